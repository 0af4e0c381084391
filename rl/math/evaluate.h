// Evaluates a scalar expression: exactly where it is rational, else in complex balls at a given precision,
// replacing a ball by zero where its separation bound proves that it is.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "rl/math/tree.h"
#include "rl/math/value.h"

namespace moebius::math {

// What one grading may still spend. Steps are counted, not timed: the same input always ends the same way.
struct Meter {
  int64_t steps = 0;
  int64_t max_steps = 0;
  slong max_exact_bits = 0;

  bool Spend(int64_t n) { return (steps += n) <= max_steps; }
  bool Exhausted() const { return steps > max_steps; }
};

class Evaluator {
 public:
  // `values` are the symbols' values. `meter` outlives the evaluator.
  Evaluator(const Tree& tree, const std::map<std::string, Rational>& values, slong prec, Meter* meter)
      : tree_(tree), values_(values), prec_(prec), meter_(meter) {}

  Value Eval(int id) {
    Value value = EvalNode(id);
    left_reals_ = left_reals_ || (value.IsNumber() && !value.IsReal());
    return value;
  }
  // True after a zero was taken for granted by the convention for numbers that are not algebraic (value.h).
  bool presumed() const { return presumed_; }
  // True after any part of the expression had a value that is not real.
  bool left_reals() const { return left_reals_; }

 private:
  // evaluate.cc: arithmetic
  Value EvalNode(int id);
  Value Add(const Value& a, const Value& b);
  Value Negate(Value a);
  Value Multiply(const Value& a, const Value& b);
  Value Divide(const Value& a, const Value& b);
  Value Repeat(const Node& node);  // sums and products over an index
  Value FromBall(Ball ball, Size size);
  Value Snap(Value value);
  Value Absolute(const Value& a);
  Value Round(const Value& a, bool up);

  // evaluate_powers.cc
  Value Power(const Value& base, const Value& exponent);
  Value IntegerPower(const Value& base, const Rational& exponent);
  Value RealPower(const Value& base, const Value& exponent);
  Value Root(const Value& a, slong index);
  Value Exponential(const Value& a);
  Value Logarithm(const Value& a);

  // evaluate_functions.cc
  Value Factorial(const Value& n);
  Value Binomial(const Value& n, const Value& k);
  Value Function(const Node& node);
  Value Trigonometric(const std::string& name, const Value& a);
  Value CosPi(const Rational& turns, bool sine);
  Value Whole(const Node& node);  // gcd, lcm, mod
  Value Extreme(const Node& node);
  Value Determinant(const Node& matrix);
  Value Integral(const Node& node);

  uint64_t UniqueKey() { return 16 + radicals_++; }
  Value Transcendental(Ball ball, const Size& argument);

  const Tree& tree_;
  std::map<std::string, Rational> values_;
  slong prec_;
  Meter* meter_;
  bool presumed_ = false, left_reals_ = false;
  uint64_t radicals_ = 0;  // number of radicals whose key is no hash of an exact radicand
};

}  // namespace moebius::math
