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
constexpr int kPoints = 96;
// Points that must agree: of smooth functions, and of those that may bend between the points (|x|, floor,
// max, roots).
constexpr int kAgreeingPoints = 12, kAgreeingBentPoints = 40;

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
  slong next = kFirstPrecision;
  while (true) {
    const slong prec = next;
    next = 3 * prec;
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
      // Zero is likely by now: go where that can be said.
      const double enough = value.size.ZeroBits() + value.size.u + 64;
      if (prec > kFirstPrecision && enough < static_cast<double>(work.budget.max_precision)) {
        next = std::max(2 * prec, static_cast<slong>(enough));
      }
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

// Symbols in exponents: large values would ask for thousands of bits there.
void CollectExponents(const Tree& tree, int id, std::vector<std::string>& out) {
  const Node& node = tree[id];
  if (node.op == Op::kPow) {
    for (const std::string& name : tree.Symbols(node.args[1])) out.push_back(name);
  }
  for (int arg : node.args) CollectExponents(tree, arg, out);
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

// The symbols of two expressions, and those among them that need special values.
struct Symbols {
  std::vector<std::string> all, whole, exponents;
  std::vector<Rational> bends = {};  // numbers near which a function that may bend is tried, too
};

// The k-th point: small and large rationals; the bits of k are the signs, so that few symbols meet all
// combinations.
Point MakePoint(const Symbols& symbols, int k, Numbers& random) {
  constexpr ulong kPrimes[] = {7, 11, 13, 17, 19, 23, 29, 31};
  constexpr slong kSpans[] = {3, 1, 12, 2, 100, 5, 1000, 30};
  const auto has = [](const std::vector<std::string>& names, const std::string& name) {
    return std::find(names.begin(), names.end(), name) != names.end();
  };
  Point point;
  for (size_t s = 0; s < symbols.all.size(); ++s) {
    const std::string& name = symbols.all[s];
    if (has(symbols.whole, name)) {
      point[name] = Rational(1 + static_cast<slong>(random.Next() % 50), 1);
      continue;
    }
    const bool exponent = has(symbols.exponents, name);
    const ulong den = exponent ? 2 + random.Next() % 2 : kPrimes[random.Next() % 8];
    const size_t turn = static_cast<size_t>(k) + static_cast<size_t>(k) / 8;
    const slong span = kSpans[turn % (exponent ? 4 : 8)] * static_cast<slong>(den);
    const slong num = 1 + static_cast<slong>(random.Next() % static_cast<uint64_t>(span));
    const bool negative = s < 3 ? (k >> s) % 2 == 1 : random.Next() % 2 == 1;
    point[name] = Rational(negative ? -num : num, den);
    if (!symbols.bends.empty() && !exponent && k % 3 == 2) {
      const size_t bend = static_cast<size_t>(k) / 3 + s, n = symbols.bends.size();
      point[name] = Rational(negative ? -1 : 1, 1 + random.Next() % 8);
      fmpq_add(point[name].get(), point[name].get(), symbols.bends[bend % n].get());
      if (bend / n % 2 == 1) fmpq_neg(point[name].get(), point[name].get());
    }
  }
  return point;
}

// True if the function may follow one formula here and another there.
bool Bends(const Tree& tree, int id) {
  const Node& node = tree[id];
  if (node.op == Op::kAbs || node.op == Op::kFloor || node.op == Op::kCeil || node.op == Op::kRoot)
    return true;
  if (node.op == Op::kFunction &&
      (node.text == "max" || node.text == "min" || node.text == "mod" || node.text.starts_with("arc")))
    return true;
  if (node.op == Op::kPow && tree.Contains(node.args[1], {Op::kDiv, Op::kSymbol})) return true;
  if (node.op == Op::kPow && tree.op(node.args[1]) == Op::kNumber && !tree[node.args[1]].value.IsInteger())
    return true;
  return std::any_of(node.args.begin(), node.args.end(), [&](int arg) { return Bends(tree, arg); });
}

// Numbers in an expression that lie beyond the points of small span.
void CollectNumbers(const Tree& tree, int id, std::vector<Rational>& out) {
  constexpr size_t kMost = 8;
  const Node& node = tree[id];
  if (node.op == Op::kNumber && fmpq_cmp_si(node.value.get(), 10) > 0 && node.value.Bits() < 64 &&
      out.size() < kMost)
    out.push_back(node.value);
  for (int arg : node.args) CollectNumbers(tree, arg, out);
}

std::vector<std::string> SymbolsOf(const Tree& tree, int a, int b) {
  std::vector<std::string> symbols = tree.Symbols(a);
  for (const std::string& name : tree.Symbols(b)) symbols.push_back(name);
  std::sort(symbols.begin(), symbols.end());
  symbols.erase(std::unique(symbols.begin(), symbols.end()), symbols.end());
  return symbols;
}

void CollectTerms(const Tree& tree, int id, int sign, std::vector<std::pair<int, int>>& out) {
  const Node& node = tree[id];
  if (node.op == Op::kNeg) return CollectTerms(tree, node.args[0], -sign, out);
  if (node.op != Op::kAdd) return out.push_back({id, sign});
  for (int arg : node.args) CollectTerms(tree, arg, sign, out);
}

// a - b without the terms that both have: what is left of 10^(10^10) + 1 and 10^(10^10) can be computed.
int Difference(Work& work, int a, int b) {
  Tree& tree = work.tree;
  std::vector<std::pair<int, int>> terms;
  CollectTerms(tree, a, 1, terms);
  const size_t from_a = terms.size();
  CollectTerms(tree, b, -1, terms);
  std::multimap<std::pair<std::string, int>, size_t> seen;
  std::vector<bool> gone(terms.size(), false);
  for (size_t i = 0; i < terms.size(); ++i) {
    std::string key = tree.Canonical(terms[i].first);
    const auto other = i < from_a ? seen.end() : seen.find({key, -terms[i].second});
    if (other == seen.end()) {
      if (i < from_a) seen.insert({{std::move(key), terms[i].second}, i});
      continue;
    }
    gone[i] = gone[other->second] = true;
    seen.erase(other);
  }
  std::vector<int> left;
  for (size_t i = 0; i < terms.size(); ++i) {
    if (!gone[i])
      left.push_back(terms[i].second > 0 ? terms[i].first : tree.Make(Op::kNeg, {terms[i].first}));
  }
  if (left.empty()) return tree.Number(0);
  return left.size() == 1 ? left[0] : tree.Make(Op::kAdd, std::move(left));
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
  if (va.kind == Kind::kUndefined && vb.kind == Kind::kUndefined)
    return Undecided("both are undefined: " + va.why);
  if (va.kind == Kind::kUndefined) return Different("the gold answer is undefined: " + va.why);
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
    if (la < 0 || lb < 0 || rounds == 0) {
      const Known rest = Settle(work, Difference(work, a, b), none, false);
      if (rest.what == Known::kNotZero) return Different("different numbers");
      return Undecided("numbers too large to compute");
    }
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

// Real, and real all the way to the result: sqrt(-2) sqrt(-3) is not.
bool RealAt(Work& work, int id, const Point& point) {
  Evaluator evaluator(work.tree, point, kFirstPrecision * 3, &work.meter);
  const Value value = evaluator.Eval(id);
  return value.IsNumber() && value.IsReal() && !evaluator.left_reals();
}

GradeResult CompareFunctions(Work& work, int a, int b, const std::vector<std::string>& names) {
  Symbols symbols{.all = names, .whole = {}, .exponents = {}};
  for (int side : {a, b}) {
    CollectWhole(work.tree, side, symbols.whole);
    CollectExponents(work.tree, side, symbols.exponents);
  }
  const bool complex = work.tree.Contains(a, {Op::kImaginary}) || work.tree.Contains(b, {Op::kImaginary});
  const int difference = Difference(work, a, b);
  Numbers random;
  const bool bends = Bends(work.tree, a) || Bends(work.tree, b);
  const int wanted = bends ? kAgreeingBentPoints : kAgreeingPoints;
  for (int side : {a, b}) {
    if (bends) CollectNumbers(work.tree, side, symbols.bends);
  }
  int agree = 0, defined = 0, undefined = 0;
  std::string why = "no point where both are defined";
  for (int k = 0; k < kPoints && agree < wanted; ++k) {
    const Point point = MakePoint(symbols, k, random);
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
  if (agree >= wanted ||
      (agree >= kAgreeingPoints / 2 && symbols.whole.empty() && why == "no point where both are defined")) {
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
  const Symbols symbols{.all = SymbolsOf(tree, a, b), .whole = {}, .exponents = {}};
  if (symbols.all.empty() || symbols.all.size() > 40) return std::nullopt;
  Numbers random;
  int agree = 0;
  std::optional<std::pair<int, int>> first;
  for (int k = 0; k < kPoints && agree < kAgreeingPoints; ++k) {
    const Point point = MakePoint(symbols, k, random);
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
