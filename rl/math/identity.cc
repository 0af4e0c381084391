#include "rl/math/identity.h"

#include <algorithm>
#include <map>
#include <string>
#include <vector>

namespace moebius::math {
namespace {

using Kind = Value::Kind;
using Point = std::map<std::string, Rational>;

constexpr slong kFirstPrecision = 64;
constexpr int kPoints = 40, kAgreeingPoints = 4, kAgreeingWholePoints = 12;

// What is known of one number.
struct Known {
  enum Class { kZero, kNotZero, kUndefined, kNotReal, kUnknown } what = kUnknown;
  int sign = 0;           // of a real kNotZero
  bool presumed = false;  // kZero by the convention for numbers that are not algebraic
  std::string why = {};
};

// Evaluates at growing precision until zero or not zero is certain.
Known Settle(Work& work, int id, const Point& point, bool want_real) {
  Known known;
  for (slong prec = kFirstPrecision;; prec *= 3) {
    const slong bits = std::min<slong>(prec, work.budget.max_precision);
    Evaluator evaluator(work.tree, point, bits, &work.meter);
    const Value value = evaluator.Eval(id);
    known.why = value.why;
    known.presumed = evaluator.presumed();
    if (value.IsZero()) {
      known.what = Known::kZero;
      return known;
    }
    if (value.kind == Kind::kUndefined) {
      known.what = Known::kUndefined;
      return known;
    }
    if (value.kind == Kind::kUnknown && !value.retry) return known;
    if (value.kind == Kind::kInfinite || value.kind == Kind::kHuge || value.kind == Kind::kTiny) {
      known.what = Known::kNotZero;
      known.sign = value.sign;
      return known;
    }
    if (value.IsNumber()) {
      const Ball ball = value.ToBall(bits);
      const bool sure = value.IsExact() || !ball.ContainsZero();
      if (sure && ball.IsReal()) {
        known.what = Known::kNotZero;
        known.sign = ball.IsPositive() ? 1 : -1;
        return known;
      }
      if (sure && (!want_real || !arb_contains_zero(ball.im()) || value.IsExact())) {
        known.what = want_real ? Known::kNotReal : Known::kNotZero;
        return known;
      }
      known.why = "no difference found within the precision budget";
    }
    if (bits >= work.budget.max_precision) return known;
    if (work.meter.Exhausted()) {
      known.why = "the step budget is used up";
      return known;
    }
  }
}

// Symbols that must be whole numbers: below a factorial, in a binomial, a remainder or the limit of a sum.
void CollectWhole(const Tree& tree, int id, std::vector<std::string>& out) {
  const Node& node = tree[id];
  const bool whole =
      node.op == Op::kFactorial || node.op == Op::kBinomial ||
      (node.op == Op::kFunction && (node.text == "gcd" || node.text == "lcm" || node.text == "mod"));
  const bool repeats = node.op == Op::kSum || node.op == Op::kProduct;
  // (-1)^n
  const bool alternates = node.op == Op::kPow && (tree.op(node.args[0]) == Op::kNeg &&
                                                  tree.op(tree.args(node.args[0])[0]) == Op::kNumber);
  for (size_t i = 0; i < node.args.size(); ++i) {
    if (whole || (repeats && i < 2) || (alternates && i == 1)) {
      for (const std::string& name : tree.Symbols(node.args[i])) out.push_back(name);
    }
    CollectWhole(tree, node.args[i], out);
  }
}

// Numbers that look random but are the same in every run (splitmix64's mixing constants).
class Numbers {
 public:
  uint64_t Next() {
    uint64_t z = (state_ += 0x9E3779B97F4A7C15ull);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    return z ^ (z >> 31);
  }

 private:
  uint64_t state_ = 20240229;
};

// The k-th point: small and large, positive and negative rationals; the first ones positive.
Point MakePoint(const std::vector<std::string>& symbols, const std::vector<std::string>& whole, int k,
                Numbers& random) {
  constexpr ulong kPrimes[] = {7, 11, 13, 17, 19, 23, 29, 31};
  constexpr slong kSpans[] = {3, 1, 12, 1, 100, 2};
  Point point;
  for (const std::string& name : symbols) {
    if (std::find(whole.begin(), whole.end(), name) != whole.end()) {
      point[name] = Rational(1 + static_cast<slong>(random.Next() % 50), 1);
      continue;
    }
    const ulong den = kPrimes[random.Next() % 8];
    const slong span = kSpans[k % 6] * static_cast<slong>(den);
    const slong num = 1 + static_cast<slong>(random.Next() % static_cast<uint64_t>(span));
    const bool negative = k % 3 == 2 || (k % 3 == 1 && random.Next() % 2 == 0);
    point[name] = Rational(negative ? -num : num, den);
  }
  return point;
}

std::vector<std::string> SymbolsOf(const Tree& tree, int a, int b) {
  std::vector<std::string> symbols = tree.Symbols(a);
  for (const std::string& name : tree.Symbols(b)) symbols.push_back(name);
  std::sort(symbols.begin(), symbols.end());
  symbols.erase(std::unique(symbols.begin(), symbols.end()), symbols.end());
  return symbols;
}

int Difference(Work& work, int a, int b) {
  return work.tree.Make(Op::kAdd, {a, work.tree.Make(Op::kNeg, {b})});
}

// Powers too large to compute are compared by their logarithms: b^x and c^y by x ln b and y ln c.
int LogarithmOf(Work& work, int id) {
  const Node node = work.tree[id];
  if (node.op != Op::kPow) return -1;
  const int log = work.tree.Make(Op::kFunction, {node.args[0]}, "ln");
  return work.tree.Make(Op::kMul, {node.args[1], log});
}

GradeResult CompareConstants(Work& work, int a, int b, int rounds) {
  const Point none;
  Evaluator rough(work.tree, none, kFirstPrecision, &work.meter);
  const Value va = rough.Eval(a), vb = rough.Eval(b);
  if (va.kind == Kind::kUndefined) return Undecided("the gold answer is undefined: " + va.why);
  if (vb.kind == Kind::kUndefined) return Different("the answer is undefined: " + vb.why);
  for (const Value* v : {&va, &vb}) {
    if (v->kind == Kind::kUnknown && !v->retry) return Undecided(v->why);
  }
  const bool special_a = !va.IsNumber() && va.kind != Kind::kUnknown,
             special_b = !vb.IsNumber() && vb.kind != Kind::kUnknown;
  if (special_a || special_b) {
    if (va.kind != vb.kind) {
      const bool tiny = va.kind == Kind::kTiny || vb.kind == Kind::kTiny;
      const Value& other = va.kind == Kind::kTiny ? vb : va;
      if (tiny && other.kind == Kind::kUnknown) return Undecided("a number too small to compute");
      return Different("numbers of incomparable size");
    }
    if (va.sign != vb.sign) return Different("opposite signs");
    if (va.kind == Kind::kInfinite) return Equal("the same infinity");
    const int la = LogarithmOf(work, a), lb = LogarithmOf(work, b);
    if (la < 0 || lb < 0 || rounds == 0) return Undecided("numbers too large to compute");
    return CompareConstants(work, la, lb, rounds - 1);
  }
  if (va.IsExact() && vb.IsExact() && va.times_pi == vb.times_pi) {
    const bool same = fmpq_equal(va.re.get(), vb.re.get()) && fmpq_equal(va.im.get(), vb.im.get());
    return same ? Equal("exactly the same number") : Different("different numbers");
  }
  const Known known = Settle(work, Difference(work, a, b), none, false);
  switch (known.what) {
    case Known::kZero:
      return Equal(known.presumed ? "the same number beyond the conventional precision"
                                  : "the same number by the separation bound");
    case Known::kNotZero:
    case Known::kNotReal:
      return Different("different numbers");
    case Known::kUndefined:
      return Different("undefined: " + known.why);
    case Known::kUnknown:
      break;
  }
  return Undecided(known.why);
}

bool DefinedAt(Work& work, int id, const Point& point) {
  Evaluator evaluator(work.tree, point, kFirstPrecision, &work.meter);
  return evaluator.Eval(id).kind != Kind::kUndefined;
}

bool RealAt(Work& work, int id, const Point& point) {
  Evaluator evaluator(work.tree, point, kFirstPrecision * 3, &work.meter);
  const Value value = evaluator.Eval(id);
  return value.IsNumber() && value.IsReal();
}

GradeResult CompareFunctions(Work& work, int a, int b, const std::vector<std::string>& symbols) {
  std::vector<std::string> whole;
  CollectWhole(work.tree, a, whole);
  CollectWhole(work.tree, b, whole);
  const bool complex = work.tree.Contains(a, {Op::kImaginary}) || work.tree.Contains(b, {Op::kImaginary});
  const int difference = Difference(work, a, b);
  Numbers random;
  // Whole numbers are few: more of them, so that no polynomial passes by chance.
  const int wanted = whole.empty() ? kAgreeingPoints : kAgreeingWholePoints;
  int agree = 0, defined = 0, undefined = 0;
  std::string why = "no point where both are defined";
  for (int k = 0; k < kPoints && agree < wanted; ++k) {
    const Point point = MakePoint(symbols, whole, k, random);
    const Known known = Settle(work, difference, point, false);
    if (known.what == Known::kUnknown) {
      why = known.why;
      if (work.meter.Exhausted()) break;
      continue;
    }
    if (known.what == Known::kUndefined) {
      undefined += DefinedAt(work, a, point) && !DefinedAt(work, b, point);
      continue;
    }
    ++defined;
    // Outside of the reals the branches of roots and logarithms are nobody's answer.
    if (!complex && known.what != Known::kZero && !(RealAt(work, a, point) && RealAt(work, b, point)))
      continue;
    if (known.what != Known::kZero) return Different("different values at a point");
    ++agree;
  }
  // Fewer points are enough if the others lie outside of the domain, not if they could not be computed.
  if (agree >= wanted || (agree >= 2 && whole.empty() && why == "no point where both are defined")) {
    return Equal("the same values at " + std::to_string(agree) + " points");
  }
  if (defined == 0 && undefined == kPoints) return Different("the answer is defined nowhere");
  return Undecided(why);
}

}  // namespace

GradeResult Equal(std::string reason) { return {Outcome::kEqual, std::move(reason)}; }
GradeResult Different(std::string reason) { return {Outcome::kDifferent, std::move(reason)}; }
GradeResult Undecided(std::string reason) { return {Outcome::kUndecided, std::move(reason)}; }

GradeResult CompareScalars(Work& work, int a, int b) {
  if (work.tree.Canonical(a) == work.tree.Canonical(b)) return Equal("the same expression");
  const std::vector<std::string> symbols = SymbolsOf(work.tree, a, b);
  if (symbols.size() > 40) return Undecided("more than 40 symbols");
  return symbols.empty() ? CompareConstants(work, a, b, 3) : CompareFunctions(work, a, b, symbols);
}

std::optional<int> SignOf(Work& work, int id) {
  if (!work.tree.Symbols(id).empty()) return std::nullopt;
  const Known known = Settle(work, id, {}, true);
  if (known.what == Known::kZero) return 0;
  return known.what == Known::kNotZero && known.sign != 0 ? std::optional<int>(known.sign) : std::nullopt;
}

std::optional<Rational> ExactValue(Work& work, int id) {
  if (!work.tree.Symbols(id).empty()) return std::nullopt;
  Evaluator evaluator(work.tree, {}, kFirstPrecision, &work.meter);
  const Value value = evaluator.Eval(id);
  return value.IsRational() ? std::optional<Rational>(value.re) : std::nullopt;
}

bool IsInfinite(Work& work, int id, int* sign) {
  if (!work.tree.Contains(id, {Op::kInfinity})) return false;
  Evaluator evaluator(work.tree, {}, kFirstPrecision, &work.meter);
  const Value value = evaluator.Eval(id);
  if (value.kind != Kind::kInfinite) return false;
  if (sign != nullptr) *sign = value.sign;
  return true;
}

namespace {

// A copy of `id` with numbers for symbols.
int At(Tree& tree, int id, const Point& point) {
  Node node = tree[id];
  if (node.op == Op::kSymbol) {
    const auto found = point.find(node.text);
    return found == point.end() ? id : tree.Number(found->second);
  }
  for (int& arg : node.args) arg = At(tree, arg, point);
  return tree.Add(std::move(node));
}

}  // namespace

std::optional<bool> Proportional(Work& work, int a, int b, bool positive) {
  Tree& tree = work.tree;
  const std::vector<std::string> symbols = SymbolsOf(tree, a, b);
  if (symbols.empty() || symbols.size() > 40) return std::nullopt;
  Numbers random;
  int agree = 0;
  std::optional<std::pair<int, int>> first;
  for (int k = 0; k < kPoints && agree < kAgreeingPoints; ++k) {
    const Point point = MakePoint(symbols, {}, k, random);
    const int pa = At(tree, a, point), pb = At(tree, b, point);
    const Known ka = Settle(work, pa, {}, true), kb = Settle(work, pb, {}, true);
    for (const Known* known : {&ka, &kb}) {
      if (known->what == Known::kUnknown && work.meter.Exhausted()) return std::nullopt;
    }
    const auto number = [](const Known& known) {
      return known.what == Known::kZero || known.what == Known::kNotZero;
    };
    if (!number(ka) || !number(kb)) continue;
    if ((ka.what == Known::kZero) != (kb.what == Known::kZero)) return false;
    if (ka.what == Known::kZero) continue;
    if (positive && ka.sign != kb.sign) return false;
    if (!first) {
      first = {pa, pb};
      continue;
    }
    // a(p) b(q) = a(q) b(p)
    const int cross =
        Difference(work, tree.Make(Op::kMul, {pa, first->second}), tree.Make(Op::kMul, {first->first, pb}));
    const Known known = Settle(work, cross, {}, true);
    if (known.what == Known::kUnknown || known.what == Known::kUndefined) return std::nullopt;
    if (known.what != Known::kZero) return false;
    ++agree;
  }
  return agree >= kAgreeingPoints ? std::optional<bool>(true) : std::nullopt;
}

}  // namespace moebius::math
