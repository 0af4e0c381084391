#include <cmath>
#include <functional>
#include <limits>

#include "rl/math/evaluate.h"

namespace moebius::math {
namespace {

// Beyond this log2 a number is kHuge, below its negative kTiny.
constexpr double kHugeLog2 = 1e12;
// Roots of higher index are computed by logarithms.
constexpr slong kMaxRootIndex = 64;

using Kind = Value::Kind;

// log2 |x| of a real ball that is certainly not zero, roughly; 0 if it may be 1.
double RoughLog2(const Ball& ball) {
  Ball log;
  arb_abs(log.re(), ball.re());
  arb_log(log.re(), log.re(), 64);
  if (arb_contains_zero(log.re())) return 0;
  return arf_get_d(arb_midref(log.re()), ARF_RND_NEAR) / std::log(2.0);
}

// x^infinity and the like: what grows and what vanishes.
Value Grown(Kind kind, bool grows, int sign) {
  if (grows) return Value::Special(kind, sign);
  return kind == Kind::kInfinite ? Value::Exact(Rational()) : Value::Special(Kind::kTiny, sign);
}

}  // namespace

Value Evaluator::Power(const Value& base, const Value& exponent) {
  for (const Value* v : {&base, &exponent}) {
    if (v->kind == Kind::kUndefined || v->kind == Kind::kUnknown) return *v;
  }
  if (exponent.IsZero()) {
    if (base.IsZero() || base.kind == Kind::kInfinite)
      return Value::Undefined("an undefined power with exponent 0");
    return Value::Exact(Rational(1, 1));
  }
  if (!base.IsNumber()) {
    if (!exponent.IsRational() || base.kind == Kind::kUnknown)
      return Value::Unknown("a power of a number too large to compute");
    const Rational& p = exponent.re;
    const bool odd = p.IsInteger() && fmpz_is_odd(p.num());
    if (base.sign < 0 && !p.IsInteger()) return Value::Unknown("a power of a number too large to compute");
    // Roots of huge numbers need not be huge.
    if (base.kind != Kind::kInfinite && !p.IsInteger())
      return Value::Unknown("a root of a number too large to compute");
    const int sign = base.sign < 0 && odd ? -1 : 1;
    if (p.Sign() > 0) return Value::Special(base.kind, sign);
    if (base.kind == Kind::kInfinite) return Value::Exact(Rational());
    return Value::Special(base.kind == Kind::kHuge ? Kind::kTiny : Kind::kHuge, sign);
  }
  if (!exponent.IsNumber()) {
    if (exponent.kind == Kind::kTiny) return Value::Unknown("a power with an exponent too small to compute");
    if (base.IsRational() && base.re.IsOne()) {
      return exponent.kind == Kind::kInfinite ? Value::Undefined("1 to the power infinity") : base;
    }
    const Ball ball = base.ToBall(prec_);
    if (!ball.IsPositive()) return Value::Unknown("a power with an exponent too large to compute");
    const double log2 = RoughLog2(ball);
    if (log2 == 0) return Value::Retry();
    return Grown(exponent.kind, (log2 > 0) == (exponent.sign > 0), 1);
  }
  if (exponent.IsRational()) {
    if (exponent.re.IsInteger()) return IntegerPower(base, exponent.re);
    return RealPower(base, exponent);
  }
  if (base.IsZero()) {
    const Ball e = exponent.ToBall(prec_);
    if (e.IsPositive()) return Value::Exact(Rational());
    return e.IsNegative() ? Value::Undefined("division by zero") : Value::Retry();
  }
  return Exponential(Multiply(exponent, Logarithm(base)));
}

Value Evaluator::IntegerPower(const Value& base, const Rational& exponent) {
  const int sign = exponent.Sign();
  if (base.IsZero()) return sign > 0 ? base : Value::Undefined("division by zero");
  const bool odd = fmpz_is_odd(exponent.num());
  if (base.IsRational() && fmpz_is_pm1(base.re.num()) && base.re.IsInteger()) {
    return base.re.Sign() > 0 || odd ? base : Value::Exact(Rational(1, 1));
  }
  constexpr slong kFar = WORD_MAX;
  const slong n = exponent.Small(kFar);
  if (n == 1) return base;
  const double count = std::fabs(fmpz_get_d(exponent.num()));
  const double bits = static_cast<double>(base.re.Bits() + base.im.Bits()) * count;
  if (n != kFar && base.IsRational() && bits <= static_cast<double>(meter_->max_exact_bits)) {
    if (!meter_->Spend(static_cast<int64_t>(bits) / 256)) return Value::Unknown("the step budget is used up");
    Rational out;
    fmpq_pow_si(out.get(), base.re.get(), n);
    return Value::Exact(out);
  }
  if (n != kFar && base.IsExact() && !base.times_pi && bits <= 4096) {
    Value out = Value::Exact(Rational(1, 1)), square = base;
    for (ulong k = std::labs(n); k > 0; k >>= 1) {
      if (k & 1) out = Multiply(out, square);
      if (k > 1) square = Multiply(square, square);
    }
    return sign > 0 ? out : Divide(Value::Exact(Rational(1, 1)), out);
  }
  const Ball ball = base.ToBall(prec_);
  if (ball.ContainsZero())
    return sign > 0 && n != kFar && count < 64 ? Multiply(base, IntegerPower(base, Rational(n - 1, 1)))
                                               : Value::Retry();
  if (ball.IsReal()) {
    const double log2 = RoughLog2(ball) * count * sign;
    const int out_sign = ball.IsNegative() && odd ? -1 : 1;
    if (log2 > kHugeLog2) return Value::Special(Kind::kHuge, out_sign);
    if (log2 < -kHugeLog2) return Value::Special(Kind::kTiny, out_sign);
  }
  if (count > 1e15) return Value::Unknown("a power with an exponent too large to compute");
  Ball out;
  acb_pow_fmpz(out.get(), ball.get(), exponent.num(), prec_);
  Size size = base.size;
  size.u *= count;
  size.l *= count;
  if (sign < 0) std::swap(size.u, size.l);
  return FromBall(std::move(out), std::move(size));
}

Value Evaluator::RealPower(const Value& base, const Value& exponent) {
  const Rational& p = exponent.re;
  const bool small = fmpz_cmp_si(p.den(), kMaxRootIndex) <= 0;
  if (base.IsZero()) return p.Sign() > 0 ? base : Value::Undefined("division by zero");
  if (!small) return Exponential(Multiply(exponent, Logarithm(base)));
  Rational numerator;
  fmpz_set(fmpq_numref(numerator.get()), p.num());
  const Value root = Root(base, fmpz_get_si(p.den()));
  return root.IsNumber() ? Power(root, Value::Exact(numerator)) : root;
}

Value Evaluator::Root(const Value& a, slong index) {
  if (index <= 0) return Value::Undefined("a root of an index below 1");
  if (index == 1 || a.IsZero()) return a;
  if (a.kind == Kind::kInfinite && a.sign > 0) return a;
  if (!a.IsNumber())
    return a.kind == Kind::kUndefined || a.kind == Kind::kUnknown
               ? a
               : Value::Unknown("a root of a number too large to compute");
  if (index > 10000) return Value::Unknown("a root of an index above 10000");
  Ball ball = a.ToBall(prec_);
  if (ball.IsReal() && !ball.IsPositive()) {
    if (!ball.IsNegative()) return Value::Retry();
    // Odd roots of negative numbers are the real ones; square roots are imaginary.
    if (index % 2 == 1) return Negate(Root(Negate(a), index));
    if (index == 2) return Multiply(Value::Exact(Rational(), Rational(1, 1), false), Root(Negate(a), 2));
  }
  meter_->Spend((prec_ + a.re.Bits()) / 32);
  std::string key;
  if (a.IsRational()) {
    if (a.re.Sign() > 0) {
      Rational out;
      if (fmpz_root(fmpq_numref(out.get()), a.re.num(), index) &&
          fmpz_root(fmpq_denref(out.get()), a.re.den(), index)) {
        return Value::Exact(out);
      }
    }
    key = a.re.Key() + "^1/" + std::to_string(index);
  }
  if (!ball.IsReal() && arb_contains_zero(ball.im()) && !arb_is_positive(ball.re())) return Value::Retry();
  if (ball.IsPositive()) {
    arb_root_ui(ball.re(), ball.re(), index, prec_);
  } else {
    acb_root_ui(ball.get(), ball.get(), index, prec_);
  }
  Size size = a.size;
  size.u = (a.size.u + static_cast<double>(index - 1) * a.size.l) / static_cast<double>(index);
  size.AddRadical(key.empty() ? UniqueKey() : std::hash<std::string>()(key), static_cast<double>(index));
  return FromBall(std::move(ball), std::move(size));
}

Value Evaluator::Exponential(const Value& a) {
  if (a.IsZero()) return Value::Exact(Rational(1, 1));
  if (!a.IsNumber()) {
    if (a.kind == Kind::kInfinite || a.kind == Kind::kHuge) return Grown(a.kind, a.sign > 0, 1);
    return a.kind == Kind::kTiny ? Value::Unknown("a power with an exponent too small to compute") : a;
  }
  if (a.IsExact() && a.times_pi && a.re.IsZero()) {
    return Add(CosPi(a.im, false),
               Multiply(Value::Exact(Rational(), Rational(1, 1), false), CosPi(a.im, true)));
  }
  Ball ball = a.ToBall(prec_);
  const double log2 = arf_get_d(arb_midref(ball.re()), ARF_RND_NEAR) / std::log(2.0);
  if (std::fabs(log2) > kHugeLog2) {
    if (!ball.IsReal()) return Value::Unknown("a complex power too large to compute");
    return Value::Special(log2 > 0 ? Kind::kHuge : Kind::kTiny, 1);
  }
  acb_exp(ball.get(), ball.get(), prec_);
  return Transcendental(std::move(ball), a.size);
}

Value Evaluator::Logarithm(const Value& a) {
  if (a.IsZero()) return Value::Undefined("a logarithm of zero");
  if (a.kind == Kind::kInfinite && a.sign > 0) return a;
  if (!a.IsNumber())
    return a.kind == Kind::kUndefined || a.kind == Kind::kUnknown
               ? a
               : Value::Unknown("a logarithm of a number too large to compute");
  if (a.IsRational() && a.re.IsOne()) return Value::Exact(Rational());
  Ball ball = a.ToBall(prec_);
  const bool cut = !ball.IsReal() && arb_contains_zero(ball.im()) && !arb_is_positive(ball.re());
  if (ball.ContainsZero() || cut) return Value::Retry();
  acb_log(ball.get(), ball.get(), prec_);
  return Transcendental(std::move(ball), a.size);
}

}  // namespace moebius::math
