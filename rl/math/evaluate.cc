#include "rl/math/evaluate.h"

#include <algorithm>
#include <cmath>

namespace moebius::math {
namespace {

// Bits of the exact value.
slong ExactBits(const Value& a) { return a.re.Bits() + a.im.Bits(); }

// Kinds that arithmetic passes on: the first that is no number.
const Value* Odd(const Value& a, const Value& b) {
  for (const Value* v : {&a, &b}) {
    if (v->kind == Value::Kind::kUndefined) return v;
  }
  for (const Value* v : {&a, &b}) {
    if (v->kind == Value::Kind::kUnknown) return v;
  }
  return nullptr;
}

}  // namespace

Value Evaluator::FromBall(Ball ball, Size size) {
  Value value;
  value.kind = Value::Kind::kBall;
  value.ball = std::move(ball);
  value.size = std::move(size);
  if (!value.ball.IsFinite()) return Value::Retry();
  return Snap(std::move(value));
}

Value Evaluator::Snap(Value value) {
  const double zero_bits = value.size.ZeroBits();
  if (value.ball.ContainsZero() && value.ball.UpperLog2() < -zero_bits) {
    presumed_ = presumed_ || !value.size.Proves();
    return Value::Exact(Rational());
  }
  // The imaginary part is (z - conj z)/2i: twice the size, in the field of z and its conjugate.
  if (!value.ball.IsReal() && arb_contains_zero(value.ball.im())) {
    Ball part;
    arb_set(part.re(), value.ball.im());
    Size twice = value.size;
    const double degree = twice.Degree();
    twice.radicals = {{2, degree * degree}};
    twice.u = 2 * (value.size.u + value.size.l) + 1;
    twice.l = 2 * value.size.l + 1;
    if (part.UpperLog2() < -twice.ZeroBits()) {
      presumed_ = presumed_ || !twice.Proves();
      arb_zero(value.ball.im());
    }
  }
  return value;
}

Value Evaluator::Transcendental(Ball ball, const Size& argument) {
  // About what the function cost, in steps of a microsecond.
  meter_->Spend(prec_ * prec_ / (1 << 19));
  Size size = argument;
  size.algebraic = false;
  size.u = std::max({1.0, ball.UpperLog2(), argument.u});
  return FromBall(std::move(ball), std::move(size));
}

Value Evaluator::Add(const Value& a, const Value& b) {
  if (const Value* odd = Odd(a, b)) return *odd;
  using Kind = Value::Kind;
  if (a.kind == Kind::kInfinite || b.kind == Kind::kInfinite) {
    const bool both = a.kind == b.kind;
    if (both && a.sign != b.sign) return Value::Undefined("infinity minus infinity");
    return a.kind == Kind::kInfinite ? a : b;
  }
  if (a.kind == Kind::kHuge || b.kind == Kind::kHuge) {
    if (a.kind == b.kind && a.sign != b.sign)
      return Value::Unknown("a difference of numbers too large to compute");
    return a.kind == Kind::kHuge ? a : b;
  }
  if (a.IsZero()) return b;
  if (b.IsZero()) return a;
  if (a.kind == Kind::kTiny || b.kind == Kind::kTiny) {
    if (a.kind == b.kind && a.sign == b.sign) return a;
    return Value::Unknown("a sum with a number too small to compute");
  }
  if (a.IsExact() && b.IsExact() && a.times_pi == b.times_pi) {
    Value out = a;
    fmpq_add(out.re.get(), a.re.get(), b.re.get());
    fmpq_add(out.im.get(), a.im.get(), b.im.get());
    if (ExactBits(out) <= meter_->max_exact_bits) return Value::Exact(out.re, out.im, out.times_pi);
  }
  Ball ball;
  acb_add(ball.get(), a.ToBall(prec_).get(), b.ToBall(prec_).get(), prec_);
  Size size = a.size;
  size.u = std::max(a.size.u + b.size.l, a.size.l + b.size.u) + 1;
  size.l = a.size.l + b.size.l;
  size.Join(b.size);
  return FromBall(std::move(ball), std::move(size));
}

Value Evaluator::Negate(Value a) {
  if (a.IsExact()) {
    fmpq_neg(a.re.get(), a.re.get());
    fmpq_neg(a.im.get(), a.im.get());
  } else if (a.kind == Value::Kind::kBall) {
    acb_neg(a.ball.get(), a.ball.get());
  } else {
    a.sign = -a.sign;
  }
  return a;
}

Value Evaluator::Multiply(const Value& a, const Value& b) {
  if (const Value* odd = Odd(a, b)) return *odd;
  using Kind = Value::Kind;
  if (!a.IsNumber() || !b.IsNumber()) {
    const auto sign = [](const Value& v) {
      if (!v.IsNumber()) return v.sign;
      if (v.IsExact()) return v.im.IsZero() ? v.re.Sign() : 2;
      return v.ball.IsPositive() ? 1 : v.ball.IsNegative() ? -1 : 2;
    };
    const int sa = sign(a), sb = sign(b);
    const Value& special = a.IsNumber() ? b : a;
    if (sa == 0 || sb == 0) {
      return special.kind == Kind::kInfinite ? Value::Undefined("zero times infinity")
                                             : Value::Exact(Rational());
    }
    if (sa == 2 || sb == 2) return Value::Unknown("a product with a number too large to compute");
    const bool mixed = !a.IsNumber() && !b.IsNumber() && a.kind != b.kind;
    if (mixed && a.kind != Kind::kInfinite && b.kind != Kind::kInfinite)
      return Value::Unknown("a product of a huge and a tiny number");
    if (mixed && (a.kind == Kind::kTiny || b.kind == Kind::kTiny))
      return Value::Undefined("infinity times a tiny number");
    return Value::Special(mixed ? Kind::kInfinite : special.kind, sa * sb);
  }
  if (a.IsZero() || b.IsZero()) return Value::Exact(Rational());
  if (a.IsExact() && b.IsExact() && !(a.times_pi && b.times_pi) &&
      ExactBits(a) + ExactBits(b) <= meter_->max_exact_bits) {
    meter_->Spend((ExactBits(a) + ExactBits(b)) / 256);
    Value out;
    Rational t;
    fmpq_mul(out.re.get(), a.re.get(), b.re.get());
    fmpq_mul(t.get(), a.im.get(), b.im.get());
    fmpq_sub(out.re.get(), out.re.get(), t.get());
    fmpq_mul(out.im.get(), a.re.get(), b.im.get());
    fmpq_mul(t.get(), a.im.get(), b.re.get());
    fmpq_add(out.im.get(), out.im.get(), t.get());
    return Value::Exact(out.re, out.im, a.times_pi || b.times_pi);
  }
  Ball ball;
  acb_mul(ball.get(), a.ToBall(prec_).get(), b.ToBall(prec_).get(), prec_);
  Size size = a.size;
  size.u += b.size.u;
  size.l += b.size.l;
  size.Join(b.size);
  return FromBall(std::move(ball), std::move(size));
}

Value Evaluator::Divide(const Value& a, const Value& b) {
  if (const Value* odd = Odd(a, b)) return *odd;
  using Kind = Value::Kind;
  if (b.IsZero()) return Value::Undefined("division by zero");
  if (b.kind == Kind::kInfinite) {
    return a.kind == Kind::kInfinite ? Value::Undefined("infinity over infinity") : Value::Exact(Rational());
  }
  if (b.kind == Kind::kHuge) return Multiply(a, Value::Special(Kind::kTiny, b.sign));
  if (b.kind == Kind::kTiny) return Multiply(a, Value::Special(Kind::kHuge, b.sign));
  Value inverse;
  if (b.IsExact() && !b.times_pi) {
    // 1/(x + iy) = (x - iy)/(x^2 + y^2)
    Rational norm, t;
    fmpq_mul(norm.get(), b.re.get(), b.re.get());
    fmpq_mul(t.get(), b.im.get(), b.im.get());
    fmpq_add(norm.get(), norm.get(), t.get());
    fmpq_div(inverse.re.get(), b.re.get(), norm.get());
    fmpq_div(inverse.im.get(), b.im.get(), norm.get());
    fmpq_neg(inverse.im.get(), inverse.im.get());
    return Multiply(a, Value::Exact(inverse.re, inverse.im, false));
  }
  if (a.IsExact() && b.IsExact() && a.times_pi && b.times_pi) {
    return Divide(Value::Exact(a.re, a.im, false), Value::Exact(b.re, b.im, false));
  }
  const Ball divisor = b.ToBall(prec_);
  if (divisor.ContainsZero()) return Value::Retry();
  acb_inv(inverse.ball.get(), divisor.get(), prec_);
  Size size = b.size;
  std::swap(size.u, size.l);
  return Multiply(a, FromBall(std::move(inverse.ball), std::move(size)));
}

Value Evaluator::Absolute(const Value& a) {
  if (!a.IsNumber()) {
    Value out = a;
    out.sign = 1;
    return out;
  }
  if (a.IsReal()) {
    if (a.IsExact()) return a.re.Sign() < 0 ? Negate(a) : a;
    if (a.ball.IsPositive()) return a;
    if (a.ball.IsNegative()) return Negate(a);
    return Value::Retry();
  }
  if (a.IsExact()) {
    Value squares = Add(Multiply(Value::Exact(a.re), Value::Exact(a.re)),
                        Multiply(Value::Exact(a.im), Value::Exact(a.im)));
    Value root = Root(squares, 2);
    return a.times_pi ? Multiply(root, Value::Exact(Rational(1, 1), Rational(), true)) : root;
  }
  // |z|^2 = z conj z.
  Ball ball;
  acb_abs(ball.re(), a.ball.get(), prec_);
  Size size = a.size;
  size.AddRadical(UniqueKey(), 2 * size.Degree());
  return FromBall(std::move(ball), std::move(size));
}

Value Evaluator::Round(const Value& a, bool up) {
  if (!a.IsNumber())
    return a.kind == Value::Kind::kTiny ? Value::Exact(Rational((up ? 1 : 0) - (a.sign < 0 ? 1 : 0), 1)) : a;
  if (!a.IsReal()) return Value::Unknown("rounding a complex number");
  Rational out;
  if (a.IsRational()) {
    if (up) {
      fmpz_cdiv_q(fmpq_numref(out.get()), a.re.num(), a.re.den());
    } else {
      fmpz_fdiv_q(fmpq_numref(out.get()), a.re.num(), a.re.den());
    }
    return Value::Exact(out);
  }
  Ball ball = a.ToBall(prec_);
  if (ball.UpperLog2() > static_cast<double>(meter_->max_exact_bits))
    return Value::Unknown("rounding a number too large");
  // At a whole number the ball straddles; then the difference to the nearest one decides.
  arf_get_fmpz(fmpq_numref(out.get()), arb_midref(ball.re()), ARF_RND_NEAR);
  const Value rest = Add(a, Negate(Value::Exact(out)));
  if (rest.IsZero()) return Value::Exact(out);
  if (up) {
    arb_ceil(ball.re(), ball.re(), prec_);
  } else {
    arb_floor(ball.re(), ball.re(), prec_);
  }
  if (!arb_get_unique_fmpz(fmpq_numref(out.get()), ball.re())) return Value::Retry();
  return Value::Exact(out);
}

Value Evaluator::Repeat(const Node& node) {
  const Value first = Eval(node.args[0]), last = Eval(node.args[1]);
  if (last.kind == Value::Kind::kInfinite) return Value::Unknown("an infinite sum or product is not covered");
  if (!first.IsRational() || !last.IsRational() || !first.re.IsInteger() || !last.re.IsInteger()) {
    return Value::Unknown("a sum or product whose limits are not whole numbers");
  }
  constexpr slong kFar = WORD_MAX;
  const slong from = first.re.Small(kFar), to = last.re.Small(kFar);
  constexpr slong kMaxTerms = 5000;
  if (from == kFar || to == kFar || to > from + kMaxTerms)
    return Value::Unknown("a sum or product with more terms than the step budget");
  Value total = Value::Exact(Rational(node.op == Op::kSum ? 0 : 1, 1));
  const auto old = values_.find(node.text) == values_.end() ? Rational() : values_[node.text];
  const bool had = values_.count(node.text) > 0;
  for (slong k = from; k <= to; ++k) {
    values_[node.text] = Rational(k, 1);
    const Value term = Eval(node.args[2]);
    total = node.op == Op::kSum ? Add(total, term) : Multiply(total, term);
    if (!total.IsNumber() || meter_->Exhausted()) break;
  }
  if (had) {
    values_[node.text] = old;
  } else {
    values_.erase(node.text);
  }
  return total;
}

Value Evaluator::EvalNode(int id) {
  if (!meter_->Spend(1 + prec_ / 512)) return Value::Unknown("the step budget is used up");
  const Node& node = tree_[id];
  switch (node.op) {
    case Op::kNumber:
      return Value::Exact(node.value);
    case Op::kSymbol: {
      const auto at = values_.find(node.text);
      return at == values_.end() ? Value::Unknown("symbol " + node.text + " has no value")
                                 : Value::Exact(at->second);
    }
    case Op::kPi:
      return Value::Exact(Rational(1, 1), Rational(), true);
    case Op::kEuler:
      return Exponential(Value::Exact(Rational(1, 1)));
    case Op::kImaginary:
      return Value::Exact(Rational(), Rational(1, 1), false);
    case Op::kInfinity:
      return Value::Special(Value::Kind::kInfinite, 1);
    case Op::kAdd:
    case Op::kMul: {
      Value out = Eval(node.args[0]);
      for (size_t i = 1; i < node.args.size(); ++i) {
        out = node.op == Op::kAdd ? Add(out, Eval(node.args[i])) : Multiply(out, Eval(node.args[i]));
      }
      return out;
    }
    case Op::kDiv:
      return Divide(Eval(node.args[0]), Eval(node.args[1]));
    case Op::kNeg:
      return Negate(Eval(node.args[0]));
    case Op::kPow:
      if (tree_.op(node.args[0]) == Op::kEuler) return Exponential(Eval(node.args[1]));
      return Power(Eval(node.args[0]), Eval(node.args[1]));
    case Op::kRoot: {
      const Value index = Eval(node.args[1]);
      if (!index.IsRational() || !index.re.IsInteger())
        return Value::Unknown("a root whose index is not a whole number");
      return Root(Eval(node.args[0]), index.re.Small(0));
    }
    case Op::kAbs:
      return Absolute(Eval(node.args[0]));
    case Op::kFloor:
    case Op::kCeil:
      return Round(Eval(node.args[0]), node.op == Op::kCeil);
    case Op::kFactorial:
      return Factorial(Eval(node.args[0]));
    case Op::kBinomial:
      return Binomial(Eval(node.args[0]), Eval(node.args[1]));
    case Op::kFunction:
      return Function(node);
    case Op::kLog: {
      const Value base = Eval(node.args[0]);
      if (base.IsRational() && base.re.IsOne()) return Value::Undefined("a logarithm to base 1");
      return Divide(Logarithm(Eval(node.args[1])), Logarithm(base));
    }
    case Op::kSum:
    case Op::kProduct:
      return Repeat(node);
    case Op::kIntegral:
      return Integral(node);
    case Op::kPercent:
      return Multiply(Eval(node.args[0]), Value::Exact(Rational(1, 100)));
    case Op::kQuantity:
      // Inside of an expression only angles are plain numbers.
      if (!node.unit.IsAngle()) return Value::Unknown("a unit inside of an expression");
      return Multiply(Eval(node.args[0]), Value::Exact(node.unit.factor, Rational(), node.unit.times_pi));
    default:
      return Value::Unknown("a structure where a number is expected");
  }
}

}  // namespace moebius::math
