// Owners of FLINT's rationals and Arb's complex balls, so that no other file pairs init with clear. Both
// libraries abort when memory runs out: whoever computes with these bounds the size first.
#pragma once

#include <acb.h>
#include <arb.h>
#include <flint/fmpq.h>
#include <flint/fmpz.h>

#include <string>
#include <string_view>

namespace moebius::math {

class Integer {
 public:
  Integer() { fmpz_init(value_); }
  explicit Integer(slong value) { fmpz_init_set_si(value_, value); }
  Integer(const Integer& other) { fmpz_init_set(value_, other.value_); }
  Integer& operator=(const Integer& other) {
    fmpz_set(value_, other.value_);
    return *this;
  }
  ~Integer() { fmpz_clear(value_); }

  fmpz* get() { return value_; }
  const fmpz* get() const { return value_; }

 private:
  fmpz_t value_;
};

// A rational in lowest terms.
class Rational {
 public:
  Rational() { fmpq_init(value_); }
  Rational(slong num, ulong den) {
    fmpq_init(value_);
    fmpq_set_si(value_, num, den);
  }
  Rational(const Rational& other) {
    fmpq_init(value_);
    fmpq_set(value_, other.value_);
  }
  Rational(Rational&& other) noexcept {
    fmpq_init(value_);
    fmpq_swap(value_, other.value_);
  }
  Rational& operator=(const Rational& other) {
    fmpq_set(value_, other.value_);
    return *this;
  }
  Rational& operator=(Rational&& other) noexcept {
    fmpq_swap(value_, other.value_);
    return *this;
  }
  ~Rational() { fmpq_clear(value_); }

  fmpq* get() { return value_; }
  const fmpq* get() const { return value_; }
  const fmpz* num() const { return fmpq_numref(value_); }
  const fmpz* den() const { return fmpq_denref(value_); }
  bool IsZero() const { return fmpq_is_zero(value_); }
  bool IsOne() const { return fmpq_is_one(value_); }
  bool IsInteger() const { return fmpz_is_one(den()); }
  int Sign() const { return fmpq_sgn(value_); }
  // Bits of numerator and denominator together.
  slong Bits() const { return fmpz_bits(num()) + fmpz_bits(den()); }
  // An integer that fits `slong`, else `fallback`.
  slong Small(slong fallback) const {
    return IsInteger() && fmpz_fits_si(num()) ? fmpz_get_si(num()) : fallback;
  }
  // "-3/4"; base 62, so that long numbers stay short: a key, not for people.
  std::string Key() const;

  // whole + fraction * 10^-digits, of plain digit strings.
  static Rational FromDecimal(std::string_view whole, std::string_view fraction);
  // whole.fraction(repeat): the last digits repeat for ever. `repeat` is not empty.
  static Rational FromRepeating(std::string_view whole, std::string_view fraction, std::string_view repeat);
  // Digits in `base` (2 to 36, letters above 9); every digit must be below the base.
  static Rational FromBase(std::string_view digits, int base);

 private:
  fmpq_t value_;
};

// A complex ball: encloses the true value, whatever was rounded.
class Ball {
 public:
  Ball() { acb_init(value_); }
  Ball(const Ball& other) {
    acb_init(value_);
    acb_set(value_, other.value_);
  }
  Ball(Ball&& other) noexcept {
    acb_init(value_);
    acb_swap(value_, other.value_);
  }
  Ball& operator=(const Ball& other) {
    acb_set(value_, other.value_);
    return *this;
  }
  Ball& operator=(Ball&& other) noexcept {
    acb_swap(value_, other.value_);
    return *this;
  }
  ~Ball() { acb_clear(value_); }

  acb_ptr get() { return value_; }
  acb_srcptr get() const { return value_; }
  arb_ptr re() { return acb_realref(value_); }
  arb_ptr im() { return acb_imagref(value_); }
  arb_srcptr re() const { return acb_realref(value_); }
  arb_srcptr im() const { return acb_imagref(value_); }
  // Exactly real: the imaginary part is the number zero.
  bool IsReal() const { return arb_is_zero(im()); }
  bool IsFinite() const { return acb_is_finite(value_); }
  bool ContainsZero() const { return acb_contains_zero(value_); }
  // log2 of an upper bound of the absolute value; -inf for zero.
  double UpperLog2() const;
  // Certainly > 0, certainly < 0.
  bool IsPositive() const { return IsReal() && arb_is_positive(re()); }
  bool IsNegative() const { return IsReal() && arb_is_negative(re()); }

 private:
  acb_t value_;
};

}  // namespace moebius::math
