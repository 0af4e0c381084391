#include <string>

#include "rl/math/compare.h"

namespace moebius::math {
namespace {

// Literals of this length are taken for printed floating-point numbers (docs/math_grader.md, rounding).
constexpr int kFloatDigits = 16, kMaxFloatDigits = 17;
// A terminating decimal of at most this many digits is what such a literal may stand for.
constexpr int kShortDigits = 15;
constexpr int kFloatBits = 51;

// Digits of a terminating decimal without trailing zeros, 0 if it does not terminate or is too long.
int DecimalDigits(const Rational& value) {
  Rational scaled = value, ten(10, 1);
  for (int places = 0; places <= kShortDigits; ++places) {
    if (scaled.IsInteger()) return static_cast<int>(fmpz_sizeinbase(scaled.num(), 10));
    fmpq_mul(scaled.get(), scaled.get(), ten.get());
  }
  return 0;
}

bool WithinFloat(const Rational& a, const Rational& b) {
  Rational difference, bound;
  fmpq_sub(difference.get(), a.get(), b.get());
  fmpq_abs(difference.get(), difference.get());
  fmpq_abs(bound.get(), b.get());
  fmpq_div_2exp(bound.get(), bound.get(), kFloatBits);
  return fmpq_cmp(difference.get(), bound.get()) <= 0;
}

}  // namespace

GradeResult Comparer::CompareNumbers(int gold, int answer) {
  const auto has_unit = [this](int id) { return tree_.Contains(id, {Op::kQuantity}); };
  if (has_unit(gold) || has_unit(answer)) {
    const GradeResult result = CompareQuantities(gold, answer);
    if (result.outcome != Outcome::kUndecided) return result;
    const GradeResult plain = CompareScalars(work_, gold, answer);
    return plain.outcome == Outcome::kUndecided ? result : plain;
  }
  GradeResult result = ComparePercent(gold, answer);
  if (result.outcome != Outcome::kDifferent) return result;
  const auto literal = [this](int id) {
    const int inner = tree_.op(id) == Op::kNeg ? tree_.args(id)[0] : id;
    return tree_.op(inner) == Op::kNumber && tree_[inner].digits <= kMaxFloatDigits ? tree_[inner].digits : 0;
  };
  if (literal(gold) >= kFloatDigits || literal(answer) >= kFloatDigits) {
    const bool gold_long = literal(gold) >= kFloatDigits;
    const std::optional<Rational> a = ExactValue(work_, gold), b = ExactValue(work_, answer);
    if (a && b) {
      const int digits = DecimalDigits(gold_long ? *b : *a);
      if (digits > 0 && digits <= kShortDigits && WithinFloat(gold_long ? *a : *b, gold_long ? *b : *a)) {
        return Equal("the same number up to floating-point printing");
      }
    }
  }
  return result;
}

GradeResult Comparer::ComparePercent(int gold, int answer) {
  const auto percent = [this](int id) {
    const int inner = tree_.op(id) == Op::kNeg ? tree_.args(id)[0] : id;
    return tree_.op(inner) == Op::kPercent;
  };
  GradeResult result = CompareScalars(work_, gold, answer);
  if (result.outcome == Outcome::kEqual || percent(gold) == percent(answer)) return result;
  // The sign may be left out where the number is too large to be meant as a fraction.
  const int id = percent(gold) ? gold : answer, other = percent(gold) ? answer : gold;
  const bool minus = tree_.op(id) == Op::kNeg;
  int bare = tree_.args(minus ? tree_.args(id)[0] : id)[0];
  const int above_one = tree_.Make(Op::kAdd, {tree_.Make(Op::kAbs, {bare}), tree_.Number(-1)});
  const std::optional<int> sign = SignOf(work_, above_one);
  if (!sign || *sign <= 0) return result;
  if (minus) bare = tree_.Make(Op::kNeg, {bare});
  const GradeResult plain = CompareScalars(work_, bare, other);
  return plain.outcome == Outcome::kEqual ? plain : result;
}

std::optional<Comparer::Quantity> Comparer::ToQuantity(int id, bool letters_are_units) {
  const Node node = tree_[id];
  switch (node.op) {
    case Op::kQuantity: {
      const std::optional<Quantity> inner = ToQuantity(node.args[0], false);
      if (!inner || inner->has_unit) return std::nullopt;
      return Quantity{.amount = node.args[0], .unit = node.unit, .has_unit = true};
    }
    case Op::kNeg: {
      std::optional<Quantity> inner = ToQuantity(node.args[0], letters_are_units);
      if (inner && inner->has_unit) inner->amount = tree_.Make(Op::kNeg, {inner->amount});
      if (inner && !inner->has_unit) inner->amount = id;
      return inner;
    }
    case Op::kAdd: {
      // Converted to the first one's unit: 5 ft 6 in.
      std::optional<Quantity> sum = ToQuantity(node.args[0], letters_are_units);
      for (size_t i = 1; sum && i < node.args.size(); ++i) {
        const std::optional<Quantity> next = ToQuantity(node.args[i], letters_are_units);
        if (!next || next->has_unit != sum->has_unit || !next->unit.SameKind(sum->unit) ||
            next->unit.times_pi != sum->unit.times_pi)
          return std::nullopt;
        Rational factor;
        fmpq_div(factor.get(), next->unit.factor.get(), sum->unit.factor.get());
        sum->amount =
            tree_.Make(Op::kAdd, {sum->amount, tree_.Make(Op::kMul, {next->amount, tree_.Number(factor)})});
      }
      return sum;
    }
    case Op::kMul:
    case Op::kDiv: {
      Quantity out{.amount = id};
      std::vector<int> amounts;
      for (size_t i = 0; i < node.args.size(); ++i) {
        std::optional<Quantity> part = ToQuantity(node.args[i], letters_are_units);
        if (!part) return std::nullopt;
        if (part->has_unit) {
          out.unit = Times(out.unit, part->unit, node.op == Op::kDiv && i == 1 ? -1 : 1);
          out.has_unit = true;
        }
        amounts.push_back(part->amount);
      }
      if (out.has_unit) out.amount = amounts.size() == 1 ? amounts[0] : tree_.Make(node.op, amounts);
      return out;
    }
    // "10 m/s^2" without \text: the letters are units only because the other side has units.
    case Op::kSymbol: {
      const std::optional<Unit> unit = letters_are_units ? FindUnit(node.text) : std::nullopt;
      if (!unit) return Quantity{.amount = id};
      return Quantity{.amount = tree_.Number(1), .unit = *unit, .has_unit = true};
    }
    case Op::kPow: {
      const slong power = tree_.op(node.args[1]) == Op::kNumber ? tree_[node.args[1]].value.Small(0) : 0;
      std::optional<Quantity> base =
          power >= 1 && power <= 9 ? ToQuantity(node.args[0], letters_are_units) : std::nullopt;
      if (!base || !base->has_unit) return Quantity{.amount = id};
      base->unit = Times(Unit(), base->unit, static_cast<int>(power));
      base->amount = tree_.Make(Op::kPow, {base->amount, node.args[1]});
      return base;
    }
    default:
      return Quantity{.amount = id};
  }
}

int Comparer::InBaseUnits(const Quantity& quantity) {
  std::vector<int> factors = {quantity.amount, tree_.Number(quantity.unit.factor)};
  if (quantity.unit.times_pi) factors.push_back(tree_.Make(Op::kPi, {}));
  return tree_.Make(Op::kMul, std::move(factors));
}

GradeResult Comparer::CompareQuantities(int gold, int answer) {
  std::optional<Quantity> a = ToQuantity(gold, false), b = ToQuantity(answer, false);
  if (a && b && a->has_unit != b->has_unit) {
    if (!a->has_unit) a = ToQuantity(gold, true);
    if (!b->has_unit) b = ToQuantity(answer, true);
  }
  if (!a || !b) return Undecided("units that are combined in a way that is not covered");
  if (a->has_unit && b->has_unit) {
    if (!a->unit.SameKind(b->unit)) return Different("units of different kinds");
    return CompareScalars(work_, InBaseUnits(*a), InBaseUnits(*b));
  }
  // One side left its unit out. An angle may also be converted to radians, which have none.
  GradeResult bare = CompareScalars(work_, a->amount, b->amount);
  const Quantity& with = a->has_unit ? *a : *b;
  if (bare.outcome == Outcome::kEqual || !with.unit.IsAngle()) return bare;
  return CompareScalars(work_, a->has_unit ? InBaseUnits(*a) : a->amount,
                        b->has_unit ? InBaseUnits(*b) : b->amount);
}

}  // namespace moebius::math
