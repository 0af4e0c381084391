#include "rl/math/region.h"

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "rl/math/solve.h"

namespace moebius::math {
namespace {

// A set as an expression over intervals. Bounds are nodes; -1 is infinity.
struct Region {
  enum class Kind { kInterval, kUnion, kIntersection, kDifference };
  Kind kind = Kind::kUnion;  // a union of nothing is empty
  int low = -1, high = -1;
  bool low_closed = false, high_closed = false;
  std::vector<Region> parts = {};
};

Region All() { return {.kind = Region::Kind::kInterval}; }
Region Point(int node) {
  return {
      .kind = Region::Kind::kInterval, .low = node, .high = node, .low_closed = true, .high_closed = true};
}
Region Below(int node, bool closed) {
  return {.kind = Region::Kind::kInterval, .high = node, .high_closed = closed};
}
Region Above(int node, bool closed) {
  return {.kind = Region::Kind::kInterval, .low = node, .low_closed = closed};
}
Region Of(Region::Kind kind, std::vector<Region> parts) { return {.kind = kind, .parts = std::move(parts)}; }

bool HasInequality(const Node& node) {
  return node.op == Op::kRelation && node.text.find_first_of("<>lgni") != std::string::npos;
}

// Builds the region of a node and remembers the variable of its inequalities.
class Builder {
 public:
  explicit Builder(Work& work) : work_(work), tree_(work.tree) {}

  std::optional<Region> Build(int id) {
    const Node node = tree_[id];
    switch (node.op) {
      case Op::kSetName:
        if (node.text.empty()) return Region();
        return node.text == "R" ? std::optional<Region>(All()) : std::nullopt;
      case Op::kSequence:
        return Sequence(node);
      case Op::kUnion:
        return Parts(Region::Kind::kUnion, node.args);
      case Op::kIntersection:
        return Parts(Region::Kind::kIntersection, node.args);
      case Op::kDifference:
        return Parts(Region::Kind::kDifference, node.args);
      case Op::kBuilder: {
        if (tree_.op(node.args[0]) == Op::kSymbol) return Build(node.args[1]);
        return Parts(Region::Kind::kIntersection, node.args);
      }
      case Op::kRelation:
        return Relation(node);
      default:
        return std::nullopt;
    }
  }

  const std::string& variable() const { return variable_; }

 private:
  std::optional<Region> Parts(Region::Kind kind, const std::vector<int>& args) {
    std::vector<Region> parts;
    for (int arg : args) {
      std::optional<Region> part = Build(arg);
      if (!part) return std::nullopt;
      parts.push_back(std::move(*part));
    }
    return Of(kind, std::move(parts));
  }

  std::optional<Region> Sequence(const Node& node) {
    // "1, 2" beside "x in {1, 2}" lists the same points.
    const bool relations = std::any_of(node.args.begin(), node.args.end(),
                                       [this](int arg) { return tree_.op(arg) == Op::kRelation; });
    if (node.text == "{}" || (node.text.empty() && !relations)) {
      std::vector<Region> points;
      for (int arg : node.args) {
        if (!tree_.Symbols(arg).empty()) return std::nullopt;
        points.push_back(Point(arg));
      }
      return Of(Region::Kind::kUnion, std::move(points));
    }
    if (node.text == "or") return Parts(Region::Kind::kUnion, node.args);
    if (node.text.empty() || node.text == "and") {
      for (int arg : node.args) {
        if (tree_.op(arg) != Op::kRelation) return std::nullopt;
      }
      return Parts(Region::Kind::kIntersection, node.args);
    }
    if (node.args.size() != 2) return std::nullopt;
    Region out{.kind = Region::Kind::kInterval};
    int sign = 0;
    if (!IsInfinite(work_, node.args[0], &sign)) {
      out.low = node.args[0];
      out.low_closed = node.text[0] == '[';
    } else if (sign > 0) {
      return std::nullopt;
    }
    if (!IsInfinite(work_, node.args[1], &sign)) {
      out.high = node.args[1];
      out.high_closed = node.text[1] == ']';
    } else if (sign < 0) {
      return std::nullopt;
    }
    return out;
  }

  bool SetVariable(const std::string& name) {
    if (variable_.empty()) variable_ = name;
    return variable_ == name;
  }

  std::optional<Region> Relation(const Node& node) {
    if (node.text == "i") {
      if (tree_.op(node.args[0]) != Op::kSymbol || !SetVariable(tree_[node.args[0]].text))
        return std::nullopt;
      return Build(node.args[1]);
    }
    std::vector<Region> parts;
    for (size_t i = 0; i < node.text.size(); ++i) {
      std::optional<Region> part = Pair(node.args[i], node.text[i], node.args[i + 1]);
      if (!part) return std::nullopt;
      parts.push_back(std::move(*part));
    }
    return Of(Region::Kind::kIntersection, std::move(parts));
  }

  // left SIGN right, in one variable.
  std::optional<Region> Pair(int left, char sign, int right) {
    if (sign == kIn || sign == kApprox) return std::nullopt;
    int infinite = 0;
    if (IsInfinite(work_, left, &infinite)) return Beside(infinite, Flip(sign));
    if (IsInfinite(work_, right, &infinite)) return Beside(infinite, sign);
    for (int side : {left, right}) {
      const int other = side == left ? right : left;
      if (tree_.op(side) == Op::kAbs && tree_.Symbols(other).empty() && sign != kEqual && sign != kNotEqual) {
        return Absolute(tree_.args(side)[0], side == left ? sign : Flip(sign), other);
      }
    }
    const int difference = tree_.Make(Op::kAdd, {left, tree_.Make(Op::kNeg, {right})});
    const std::vector<std::string> symbols = tree_.Symbols(difference);
    if (symbols.size() != 1 || !SetVariable(symbols[0])) return std::nullopt;
    const std::optional<Roots> roots = SolveQuadratic(work_, difference, symbols[0]);
    if (!roots) return std::nullopt;
    return FromRoots(*roots, sign);
  }

  // x SIGN infinity: all numbers or none.
  static Region Beside(int infinite, char sign) {
    const bool below = sign == kLess || sign == kLessEqual, above = sign == kGreater || sign == kGreaterEqual;
    return sign == kNotEqual || (infinite > 0 ? below : above) ? All() : Region();
  }

  static char Flip(char sign) {
    switch (sign) {
      case kLess:
        return kGreater;
      case kGreater:
        return kLess;
      case kLessEqual:
        return kGreaterEqual;
      case kGreaterEqual:
        return kLessEqual;
      default:
        return sign;
    }
  }

  std::optional<Region> Absolute(int inner, char sign, int bound) {
    while (tree_.op(inner) == Op::kAbs) inner = tree_.args(inner)[0];  // else each would double the work
    const int minus = tree_.Make(Op::kNeg, {bound});
    std::optional<Region> upper = Pair(inner, sign, bound), lower = Pair(inner, Flip(sign), minus);
    if (!upper || !lower) return std::nullopt;
    const bool inside = sign == kLess || sign == kLessEqual;
    return Of(inside ? Region::Kind::kIntersection : Region::Kind::kUnion, {*upper, *lower});
  }

  // Where a polynomial with these real roots and this sign at +infinity fulfils "p SIGN 0".
  static Region FromRoots(const Roots& roots, char sign) {
    std::vector<Region> points;
    for (int root : roots.at) points.push_back(Point(root));
    const Region zeros = Of(Region::Kind::kUnion, points);
    if (sign == kEqual) return zeros;
    if (sign == kNotEqual) return Of(Region::Kind::kDifference, {All(), zeros});
    const bool wants_positive = sign == kGreater || sign == kGreaterEqual;
    const bool closed = sign == kGreaterEqual || sign == kLessEqual;
    const bool outside = wants_positive == (roots.sign > 0);  // the set that reaches to +infinity
    Region region;
    if (roots.at.empty()) {
      region = outside ? All() : Region();
    } else if (roots.at.size() == 1 && roots.degree == 1) {
      region = outside ? Above(roots.at[0], false) : Below(roots.at[0], false);
    } else if (roots.at.size() == 1) {
      region = outside ? Of(Region::Kind::kDifference, {All(), zeros}) : Region();
    } else {
      region = outside
                   ? Of(Region::Kind::kUnion, {Below(roots.at[0], false), Above(roots.at[1], false)})
                   : Of(Region::Kind::kIntersection, {Above(roots.at[0], false), Below(roots.at[1], false)});
    }
    return closed ? Of(Region::Kind::kUnion, {region, zeros}) : region;
  }

  Work& work_;
  Tree& tree_;
  std::string variable_;
};

// All bounds in order, equal ones merged: a region is then the set of the points and gaps that it covers.
class Order {
 public:
  explicit Order(Work& work) : work_(work) {}

  bool Insert(const Region& region) {
    for (int node : {region.low, region.high}) {
      if (node >= 0 && !InsertNode(node)) return false;
    }
    return std::all_of(region.parts.begin(), region.parts.end(),
                       [this](const Region& part) { return Insert(part); });
  }

  // Element 2k is the gap before bound k, 2k + 1 the bound itself.
  std::vector<bool> Cover(const Region& region) const {
    std::vector<bool> out(2 * bounds_.size() + 1, false);
    if (region.kind == Region::Kind::kInterval) {
      const size_t begin = region.low < 0 ? 0 : 2 * Rank(region.low) + (region.low_closed ? 1 : 2);
      const size_t end = region.high < 0 ? out.size() : 2 * Rank(region.high) + (region.high_closed ? 2 : 1);
      for (size_t i = begin; i < end; ++i) out[i] = true;
      return out;
    }
    for (size_t p = 0; p < region.parts.size(); ++p) {
      const std::vector<bool> part = Cover(region.parts[p]);
      for (size_t i = 0; i < out.size(); ++i) {
        if (p == 0) {
          out[i] = part[i];
        } else if (region.kind == Region::Kind::kUnion) {
          out[i] = out[i] || part[i];
        } else if (region.kind == Region::Kind::kIntersection) {
          out[i] = out[i] && part[i];
        } else {
          out[i] = out[i] && !part[i];
        }
      }
    }
    return out;
  }

 private:
  bool InsertNode(int node) {
    if (ranks_.size() > 200) return false;
    for (const auto& [known, where] : ranks_) {
      if (known == node) return true;
    }
    size_t low = 0, high = bounds_.size();
    while (low < high) {
      const size_t middle = (low + high) / 2;
      const int difference = work_.tree.Make(Op::kAdd, {node, work_.tree.Make(Op::kNeg, {bounds_[middle]})});
      const std::optional<int> sign = SignOf(work_, difference);
      if (!sign) return false;
      if (*sign == 0) {
        ranks_.push_back({node, bounds_[middle]});
        return true;
      }
      if (*sign < 0) {
        high = middle;
      } else {
        low = middle + 1;
      }
    }
    bounds_.insert(bounds_.begin() + static_cast<std::ptrdiff_t>(low), node);
    ranks_.push_back({node, node});
    return true;
  }

  size_t Rank(int node) const {
    int bound = node;
    for (const auto& [known, where] : ranks_) {
      if (known == node) bound = where;
    }
    return static_cast<size_t>(std::find(bounds_.begin(), bounds_.end(), bound) - bounds_.begin());
  }

  Work& work_;
  std::vector<int> bounds_;
  std::vector<std::pair<int, int>> ranks_;  // node, the equal one in bounds_
};

// Intervals with symbols in their bounds, written alike: compared bound by bound.
GradeResult CompareShapes(Work& work, int a, int b) {
  const Node na = work.tree[a], nb = work.tree[b];
  // The same bounds in other brackets are another set.
  if (na.op == Op::kSequence && nb.op == Op::kSequence && na.text != nb.text && na.args.size() == 2 &&
      nb.args.size() == 2 && work.tree.Canonical(na.args[0]) == work.tree.Canonical(nb.args[0]) &&
      work.tree.Canonical(na.args[1]) == work.tree.Canonical(nb.args[1])) {
    return Different("different brackets");
  }
  if (na.op != nb.op || na.text != nb.text || na.args.size() != nb.args.size() || na.args.empty()) {
    return Undecided("sets whose bounds cannot be ordered");
  }
  const bool deeper = na.op != Op::kSequence && na.op != Op::kRelation;
  for (size_t i = 0; i < na.args.size(); ++i) {
    const GradeResult part =
        deeper ? CompareShapes(work, na.args[i], nb.args[i]) : CompareScalars(work, na.args[i], nb.args[i]);
    if (part.outcome == Outcome::kUndecided) return part;
    // Parts in another order could still be the same set.
    if (part.outcome == Outcome::kDifferent)
      return deeper ? Undecided("sets whose bounds cannot be ordered") : part;
  }
  return Equal("the same set, bound by bound");
}

}  // namespace

bool IsRegion(const Work& work, int id) {
  const Tree& tree = work.tree;
  const Node& node = tree[id];
  switch (node.op) {
    case Op::kUnion:
    case Op::kIntersection:
    case Op::kDifference:
    case Op::kSetName:
    case Op::kBuilder:
      return true;
    case Op::kRelation:
      return HasInequality(node);
    case Op::kSequence:
      if (node.text == "(]" || node.text == "[)") return true;
      if (node.text == "()" || node.text == "[]")
        return node.args.size() == 2 && tree.Contains(id, {Op::kInfinity});
      if (node.text.empty() || node.text == "or" || node.text == "and") {
        return std::any_of(node.args.begin(), node.args.end(),
                           [&](int arg) { return HasInequality(tree[arg]); });
      }
      return false;
    default:
      return false;
  }
}

GradeResult CompareRegions(Work& work, int a, int b) {
  Builder build_a(work), build_b(work);
  std::optional<Region> ra = build_a.Build(a), rb = build_b.Build(b);
  if (!ra || !rb) return CompareShapes(work, a, b);
  if (!build_a.variable().empty() && !build_b.variable().empty() &&
      build_a.variable() != build_b.variable()) {
    return Different("conditions on different variables");
  }
  Order order(work);
  if (!order.Insert(*ra) || !order.Insert(*rb)) return CompareShapes(work, a, b);
  std::vector<bool> cover_a = order.Cover(*ra), cover_b = order.Cover(*rb);
  // "x < 1, x > 2" cannot mean both at once.
  const auto widen = [&](int id, Region& region, std::vector<bool>& cover) {
    const bool list = work.tree.op(id) == Op::kSequence && work.tree[id].text.empty();
    if (!list || std::find(cover.begin(), cover.end(), true) != cover.end()) return;
    region.kind = Region::Kind::kUnion;
    cover = order.Cover(region);
  };
  widen(a, *ra, cover_a);
  widen(b, *rb, cover_b);
  return cover_a == cover_b ? Equal("the same set of numbers") : Different("different sets of numbers");
}

}  // namespace moebius::math
