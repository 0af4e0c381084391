#include <algorithm>
#include <cmath>

#include "rl/math/evaluate.h"
#include "rl/math/integrate.h"

namespace moebius::math {
namespace {

using Kind = Value::Kind;

bool IsWhole(const Value& v) { return v.IsRational() && v.re.IsInteger(); }

double Totient(ulong n) {
  double phi = static_cast<double>(n);
  for (ulong p = 2; p * p <= n; ++p) {
    if (n % p != 0) continue;
    phi -= phi / static_cast<double>(p);
    while (n % p == 0) n /= p;
  }
  return n > 1 ? phi - phi / static_cast<double>(n) : phi;
}

}  // namespace

Value Evaluator::Factorial(const Value& n) {
  if (n.kind == Kind::kHuge || n.kind == Kind::kInfinite) {
    return n.sign > 0 ? n : Value::Undefined("the factorial of a negative number");
  }
  if (!n.IsNumber()) return n.kind == Kind::kTiny ? Value::Unknown("a factorial that is not covered") : n;
  if (!n.IsRational()) return Value::Unknown("the factorial of a number that is not rational");
  if (n.re.IsInteger() && n.re.Sign() < 0) return Value::Undefined("the factorial of a negative number");
  const double size = std::fabs(fmpq_get_d(n.re.get()));
  if (n.re.IsInteger()) {
    if (size > 1e10) return Value::Special(Kind::kHuge, 1);
    const double bits = size * std::log2(size + 2);
    if (bits <= static_cast<double>(meter_->max_exact_bits)) {
      if (!meter_->Spend(static_cast<int64_t>(bits) / 64))
        return Value::Unknown("the step budget is used up");
      Rational out;
      fmpz_fac_ui(fmpq_numref(out.get()), static_cast<ulong>(n.re.Small(0)));
      return Value::Exact(out);
    }
  }
  constexpr slong kMaxGammaBits = 640;
  if ((!n.re.IsInteger() && size > 1000) || prec_ > kMaxGammaBits)
    return Value::Unknown("a factorial too large to compute");
  meter_->Spend(prec_);
  Ball ball;
  Rational next;
  fmpq_add_si(next.get(), n.re.get(), 1);
  arb_gamma_fmpq(ball.re(), next.get(), prec_);
  Size unit;
  unit.u = size * std::log2(size + 2);
  return Transcendental(std::move(ball), unit);
}

Value Evaluator::Binomial(const Value& n, const Value& k) {
  if (!n.IsRational() || !IsWhole(k)) return Value::Unknown("a binomial coefficient of these numbers");
  Rational out;
  if (k.re.Sign() < 0) return Value::Exact(out);
  const slong top = n.re.Small(-1), bottom = k.re.Small(-1);
  if (top >= 0 && bottom >= 0) {
    const double smaller = static_cast<double>(std::min(bottom, top - bottom));
    if (smaller < 0) return Value::Exact(out);
    const double bits = smaller * std::log2(static_cast<double>(top) + 2);
    if (top <= 10000000 && bits <= static_cast<double>(meter_->max_exact_bits)) {
      if (!meter_->Spend(static_cast<int64_t>(bits) / 64))
        return Value::Unknown("the step budget is used up");
      fmpz_bin_uiui(fmpq_numref(out.get()), static_cast<ulong>(top), static_cast<ulong>(bottom));
      return Value::Exact(out);
    }
  }
  if (bottom < 0 || bottom > 200) return Value::Unknown("a binomial coefficient too large to compute");
  Value value = Value::Exact(Rational(1, 1));
  for (slong j = 0; j < bottom; ++j) {
    value = Divide(Multiply(value, Add(n, Value::Exact(Rational(-j, 1)))), Value::Exact(Rational(j + 1, 1)));
  }
  return value;
}

Value Evaluator::CosPi(const Rational& turns, bool sine) {
  Rational r = turns, half(1, 2), two(2, 1);
  if (sine) fmpq_sub(r.get(), r.get(), half.get());
  // Modulo 2.
  Integer whole, double_den;
  fmpz_mul_ui(double_den.get(), r.den(), 2);
  fmpz_fdiv_r(fmpq_numref(r.get()), r.num(), double_den.get());
  fmpq_canonicalise(r.get());
  const slong den = fmpz_fits_si(r.den()) ? fmpz_get_si(r.den()) : WORD_MAX;
  if (den <= 3) {
    const slong sixths = fmpz_get_si(r.num()) * (6 / den);
    switch (sixths) {
      case 0:
        return Value::Exact(Rational(1, 1));
      case 2:
      case 10:
        return Value::Exact(half);
      case 3:
      case 9:
        return Value::Exact(Rational());
      case 4:
      case 8:
        return Value::Exact(Rational(-1, 2));
      default:
        return Value::Exact(Rational(-1, 1));
    }
  }
  Ball ball;
  arb_cos_pi_fmpq(ball.re(), r.get(), prec_);
  Size size;
  size.u = size.l = 1;
  constexpr slong kMaxOrder = 2000;
  if (den <= kMaxOrder) {
    size.AddRadical(0x636F73ull << 32 | static_cast<uint64_t>(den), Totient(2 * static_cast<ulong>(den)));
  } else {
    size.algebraic = false;
  }
  return FromBall(std::move(ball), std::move(size));
}

Value Evaluator::Trigonometric(const std::string& name, const Value& a) {
  const Value one = Value::Exact(Rational(1, 1));
  const auto sine_or_cosine = [&](bool sine) -> Value {
    if (a.IsExact() && a.im.IsZero() && (a.times_pi || a.IsZero())) return CosPi(a.re, sine);
    Ball ball = a.ToBall(prec_);
    if (sine) {
      acb_sin(ball.get(), ball.get(), prec_);
    } else {
      acb_cos(ball.get(), ball.get(), prec_);
    }
    return Transcendental(std::move(ball), a.size);
  };
  if (name == "sin") return sine_or_cosine(true);
  if (name == "cos") return sine_or_cosine(false);
  if (name == "tan") return Divide(sine_or_cosine(true), sine_or_cosine(false));
  if (name == "cot") return Divide(sine_or_cosine(false), sine_or_cosine(true));
  if (name == "sec") return Divide(one, sine_or_cosine(false));
  if (name == "csc") return Divide(one, sine_or_cosine(true));
  Ball ball = a.ToBall(prec_);
  if (!ball.IsReal()) return Value::Unknown("the function " + name + " of a complex number");
  if (name == "sinh") arb_sinh(ball.re(), ball.re(), prec_);
  if (name == "cosh") arb_cosh(ball.re(), ball.re(), prec_);
  if (name == "tanh") arb_tanh(ball.re(), ball.re(), prec_);
  if (name == "arctan") arb_atan(ball.re(), ball.re(), prec_);
  if (name == "arccot") {
    // Between 0 and pi.
    Ball half_pi;
    arb_const_pi(half_pi.re(), prec_);
    arb_mul_2exp_si(half_pi.re(), half_pi.re(), -1);
    arb_atan(ball.re(), ball.re(), prec_);
    arb_sub(ball.re(), half_pi.re(), ball.re(), prec_);
  }
  if (name == "arcsin" || name == "arccos") {
    Ball one_ball = one.ToBall(prec_), magnitude;
    arb_abs(magnitude.re(), ball.re());
    if (arb_gt(magnitude.re(), one_ball.re())) return Value::Undefined(name + " of a number above 1");
    if (name == "arcsin") arb_asin(ball.re(), ball.re(), prec_);
    if (name == "arccos") arb_acos(ball.re(), ball.re(), prec_);
  }
  return Transcendental(std::move(ball), a.size);
}

Value Evaluator::Whole(const Node& node) {
  if (node.args.size() < 2) return Value::Unknown(node.text + " of one number");
  Value out = Eval(node.args[0]);
  for (size_t i = 1; i < node.args.size(); ++i) {
    const Value next = Eval(node.args[i]);
    if (!IsWhole(out) || !IsWhole(next)) return Value::Unknown(node.text + " of numbers that are not whole");
    Rational result;
    if (node.text == "mod") {
      if (next.IsZero()) return Value::Undefined("a remainder of division by zero");
      fmpz_fdiv_r(fmpq_numref(result.get()), out.re.num(), next.re.num());
    } else if (node.text == "gcd") {
      fmpz_gcd(fmpq_numref(result.get()), out.re.num(), next.re.num());
    } else {
      fmpz_lcm(fmpq_numref(result.get()), out.re.num(), next.re.num());
    }
    if (result.Bits() > meter_->max_exact_bits) return Value::Unknown("a number above the size budget");
    out = Value::Exact(result);
  }
  return out;
}

Value Evaluator::Extreme(const Node& node) {
  Value best = Eval(node.args[0]);
  for (size_t i = 1; i < node.args.size(); ++i) {
    const Value next = Eval(node.args[i]);
    const Value difference = Add(next, Negate(best));
    if (!difference.IsNumber()) return difference;
    if (!difference.IsReal()) return Value::Unknown(node.text + " of complex numbers");
    const Ball ball = difference.ToBall(prec_);
    if (!difference.IsZero() && ball.ContainsZero()) return Value::Retry();
    if (ball.IsPositive() == (node.text == "max") && !difference.IsZero()) best = next;
  }
  return best;
}

Value Evaluator::Determinant(const Node& matrix) {
  const int n = matrix.columns;
  if (n * n != static_cast<int>(matrix.args.size()))
    return Value::Undefined("the determinant of a matrix that is not square");
  if (n > 5) return Value::Unknown("a determinant above 5 rows");
  std::vector<Value> entries;
  for (int arg : matrix.args) entries.push_back(Eval(arg));
  // Sum over permutations, kept in order of the rows.
  std::vector<int> columns(n);
  for (int i = 0; i < n; ++i) columns[i] = i;
  Value total = Value::Exact(Rational());
  do {
    int inversions = 0;
    Value term = Value::Exact(Rational(1, 1));
    for (int i = 0; i < n; ++i) {
      for (int j = i + 1; j < n; ++j) inversions += columns[i] > columns[j];
      term = Multiply(term, entries[i * n + columns[i]]);
    }
    total = Add(total, inversions % 2 == 0 ? term : Negate(term));
  } while (std::next_permutation(columns.begin(), columns.end()));
  return total;
}

Value Evaluator::Function(const Node& node) {
  const std::string& name = node.text;
  if (name == "gcd" || name == "lcm" || name == "mod") return Whole(node);
  if (name == "max" || name == "min") return Extreme(node);
  if (name == "det") {
    if (tree_.op(node.args[0]) != Op::kMatrix) return Value::Unknown("the determinant of what is no matrix");
    return Determinant(tree_[node.args[0]]);
  }
  if (node.args.size() != 1) return Value::Unknown(name + " of several numbers");
  const Value a = Eval(node.args[0]);
  if (name == "ln") return Logarithm(a);
  if (name == "Re" || name == "Im") {
    if (!a.IsExact()) return Value::Unknown("the parts of a complex number that is not exact");
    return Value::Exact(name == "Re" ? a.re : a.im, Rational(), a.times_pi);
  }
  if (!a.IsNumber()) {
    return a.kind == Kind::kUndefined || a.kind == Kind::kUnknown
               ? a
               : Value::Unknown("the function " + name + " of a number too large");
  }
  return Trigonometric(name, a);
}

Value Evaluator::Integral(const Node& node) {
  const Value lower = Eval(node.args[0]), upper = Eval(node.args[1]);
  if (!lower.IsNumber() || !upper.IsNumber() || !lower.IsReal() || !upper.IsReal()) {
    return Value::Unknown("an integral whose limits are not real numbers");
  }
  constexpr slong kMaxIntegralBits = 640;
  if (prec_ > kMaxIntegralBits) return Value::Unknown("an integral beyond its precision budget");
  Ball out;
  std::string why;
  if (!Integrate({.tree = tree_, .values = values_, .variable = node.text, .body = node.args[2]},
                 lower.ToBall(prec_), upper.ToBall(prec_), prec_, meter_, &out, &why)) {
    return Value::Unknown(why);
  }
  Size size;
  size.u = std::max(lower.size.u + lower.size.l, upper.size.u + upper.size.l);
  return Transcendental(std::move(out), size);
}

}  // namespace moebius::math
