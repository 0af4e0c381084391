#include "rl/math/number.h"

#include <limits>

namespace moebius::math {
namespace {

void SetDigits(fmpz_t out, std::string_view digits, int base) {
  fmpz_set_str(out, digits.empty() ? "0" : std::string(digits).c_str(), base);
}

}  // namespace

std::string Rational::Key() const {
  char* text = fmpq_get_str(nullptr, 62, value_);
  std::string key = text;
  flint_free(text);
  return key;
}

Rational Rational::FromDecimal(std::string_view whole, std::string_view fraction) {
  Rational out;
  Integer power;
  SetDigits(fmpq_numref(out.get()), std::string(whole) + std::string(fraction), 10);
  fmpz_ui_pow_ui(power.get(), 10, fraction.size());
  fmpq_set_fmpz_frac(out.get(), fmpq_numref(out.get()), power.get());
  return out;
}

Rational Rational::FromRepeating(std::string_view whole, std::string_view fraction, std::string_view repeat) {
  // The period r of length n adds r / (10^n - 1) / 10^|fraction|.
  Rational out = FromDecimal(whole, fraction), tail;
  Integer num, den, shift;
  SetDigits(num.get(), repeat, 10);
  fmpz_ui_pow_ui(den.get(), 10, repeat.size());
  fmpz_sub_ui(den.get(), den.get(), 1);
  fmpz_ui_pow_ui(shift.get(), 10, fraction.size());
  fmpz_mul(den.get(), den.get(), shift.get());
  fmpq_set_fmpz_frac(tail.get(), num.get(), den.get());
  fmpq_add(out.get(), out.get(), tail.get());
  return out;
}

Rational Rational::FromBase(std::string_view digits, int base) {
  Rational out;
  SetDigits(fmpq_numref(out.get()), digits, base);
  return out;
}

double Ball::UpperLog2() const {
  mag_t mag;
  mag_init(mag);
  acb_get_mag(mag, value_);
  const double log2 = mag_is_zero(mag)  ? -std::numeric_limits<double>::infinity()
                      : mag_is_inf(mag) ? std::numeric_limits<double>::infinity()
                                        : mag_get_d_log2_approx(mag);
  mag_clear(mag);
  return log2;
}

}  // namespace moebius::math
