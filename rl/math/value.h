// A number as far as it is known: an exact complex rational (times pi or not), or a ball that encloses it
// together with how small it could be without being zero.
//
// Separation bound (after Burnikel, Funke, Mehlhorn, Schirra, Schmitt, "A separation bound for real algebraic
// expressions", 2001): write x = U/L with algebraic integers U, L; let 2^u bound every conjugate of U, 2^l
// every conjugate of L, D the degree of the field of all radicals used. If x is not zero, |x| >= 2^-((D-1) u
// + l). A sum has u = max(u1 + l2, l1 + u2) + 1, l = l1 + l2; a product u1 + u2, l1 + l2; a quotient u1 + l2,
// l1 + u2; a k-th root (u + (k-1) l)/k, l. For numbers with pi, e, sine, ... and for degrees that
// would ask for thousands of bits, 4 (u + l) + 192 bits are a convention, not a theorem; what rests on it is
// marked.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "rl/math/number.h"

namespace moebius::math {

struct Size {
  double u = 0, l = 0;                                // log2, at least 0
  std::vector<std::pair<uint64_t, double>> radicals;  // key and degree of each; sorted by key
  bool algebraic = true;

  double Degree() const;
  // Bits that an absolute value must be below for it to be zero.
  double ZeroBits() const;
  // True if that follows from the separation bound, not from the convention.
  bool Proves() const;
  void AddRadical(uint64_t key, double degree);
  void Join(const Size& other);  // radicals and algebraic

 private:
  double ProvedBits() const;
};

struct Value {
  enum class Kind {
    kExact,
    kBall,
    kInfinite,   // sign
    kHuge,       // a finite real, |x| > 2^(10^12); sign
    kTiny,       // a real, 0 < |x| < 2^-(10^12); sign
    kUndefined,  // 0/0, ln 0: why
    kUnknown,    // not computed: why; retry: more precision may help
  };
  Kind kind = Kind::kExact;
  Rational re, im;        // kExact
  bool times_pi = false;  // kExact: (re + i im) pi
  Ball ball;              // kBall
  Size size;              // kExact and kBall
  int sign = 1;
  bool retry = false;
  std::string why;

  static Value Exact(Rational re);
  static Value Exact(Rational re, Rational im, bool times_pi);
  static Value Undefined(std::string why) { return Special(Kind::kUndefined, 1, std::move(why), false); }
  static Value Unknown(std::string why) { return Special(Kind::kUnknown, 1, std::move(why), false); }
  static Value Retry() { return Special(Kind::kUnknown, 1, "more precision than the budget", true); }
  static Value Special(Kind kind, int sign, std::string why = "", bool retry = false);

  bool IsExact() const { return kind == Kind::kExact; }
  bool IsNumber() const { return kind == Kind::kExact || kind == Kind::kBall; }
  bool IsZero() const { return IsExact() && re.IsZero() && im.IsZero(); }
  // An exact real rational.
  bool IsRational() const { return IsExact() && im.IsZero() && (!times_pi || re.IsZero()); }
  // Real: exactly zero imaginary part.
  bool IsReal() const { return IsExact() ? im.IsZero() : kind != Kind::kBall || ball.IsReal(); }
  // The enclosing ball at `prec` bits; of kExact and kBall.
  Ball ToBall(slong prec) const;
  // Sets `size` of an exact value.
  void Measure();
};

}  // namespace moebius::math
