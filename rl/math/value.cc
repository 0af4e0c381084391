#include "rl/math/value.h"

#include <algorithm>
#include <cmath>

namespace moebius::math {
namespace {

// Key of the radical i; others are hashes, for which this value is as good as any.
constexpr uint64_t kImaginaryKey = 1;
// Margin of the convention, and a cap on the degree it counts
// with.
// Above this the proof would cost more than it is worth, and the convention is used.
constexpr double kMaxProvedBits = 4096;
constexpr double kMarginBits = 192, kMarginFactor = 4;

}  // namespace

double Size::Degree() const {
  double degree = 1;
  for (const auto& radical : radicals) degree *= radical.second;
  return degree;
}

double Size::ProvedBits() const { return (Degree() - 1) * u + l + 2; }

bool Size::Proves() const { return algebraic && ProvedBits() <= kMaxProvedBits; }

double Size::ZeroBits() const {
  if (Proves()) return ProvedBits();
  return kMarginFactor * (u + l) + kMarginBits;
}

void Size::AddRadical(uint64_t key, double degree) {
  const auto at = std::lower_bound(radicals.begin(), radicals.end(), std::make_pair(key, 0.0));
  if (at != radicals.end() && at->first == key) {
    at->second = std::max(at->second, degree);
  } else {
    radicals.insert(at, {key, degree});
  }
}

void Size::Join(const Size& other) {
  algebraic = algebraic && other.algebraic;
  for (const auto& [key, degree] : other.radicals) AddRadical(key, degree);
}

Value Value::Exact(Rational re) { return Exact(std::move(re), Rational(), false); }

Value Value::Exact(Rational re, Rational im, bool times_pi) {
  Value value;
  value.re = std::move(re);
  value.im = std::move(im);
  value.times_pi = times_pi && !(value.re.IsZero() && value.im.IsZero());
  value.Measure();
  return value;
}

Value Value::Special(Kind kind, int sign, std::string why, bool retry) {
  Value value;
  value.kind = kind;
  value.sign = sign;
  value.why = std::move(why);
  value.retry = retry;
  return value;
}

void Value::Measure() {
  size = Size();
  size.l = std::max<double>(0, fmpz_bits(re.den()) + (im.IsZero() ? 0 : fmpz_bits(im.den())));
  size.u = std::max<double>(1, re.Bits());
  if (!im.IsZero()) {
    size.u = std::max<double>(re.Bits(), im.Bits()) + size.l + 1;
    size.AddRadical(kImaginaryKey, 2);
  }
  if (times_pi) {
    size.u += 2;
    size.algebraic = false;
  }
}

Ball Value::ToBall(slong prec) const {
  if (kind == Kind::kBall) return ball;
  Ball out;
  arb_set_fmpq(out.re(), re.get(), prec);
  arb_set_fmpq(out.im(), im.get(), prec);
  if (times_pi) {
    Ball pi;
    arb_const_pi(pi.re(), prec);
    acb_mul(out.get(), out.get(), pi.get(), prec);
  }
  return out;
}

}  // namespace moebius::math
