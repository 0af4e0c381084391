#include "rl/math/compare.h"

#include <algorithm>
#include <map>
#include <set>
#include <string>

#include "rl/math/clean.h"
#include "rl/math/family.h"
#include "rl/math/progression.h"
#include "rl/math/region.h"

namespace moebius::math {
namespace {

constexpr size_t kMaxElements = 300;
constexpr int kMaxDepth = 40;

bool IsList(const Tree& tree, int id) { return tree.op(id) == Op::kSequence; }

bool IsBareList(const Tree& tree, int id) {
  if (!IsList(tree, id)) return false;
  const std::string& kind = tree[id].text;
  return kind.empty() || kind == "and" || kind == "or";
}

bool IsNamedSet(const Tree& tree, int id) {
  return tree.op(id) == Op::kSetName && tree[id].text != "R" && !tree[id].text.empty();
}

}  // namespace

GradeResult Comparer::Compare(int gold, int answer) {
  if (depth_ >= kMaxDepth) return Undecided("nested deeper than the depth budget");
  if (tree_.Canonical(gold) == tree_.Canonical(answer)) return Equal("the same expression");
  ++depth_;
  const auto finish = [this](GradeResult result) {
    --depth_;
    return result;
  };
  gold = FoldMatrix(ExpandSigns(AddParts(gold)));
  answer = FoldMatrix(ExpandSigns(AddParts(answer)));
  const auto either = [&](Op op) { return tree_.op(gold) == op || tree_.op(answer) == op; };
  const auto both = [&](Op op) { return tree_.op(gold) == op && tree_.op(answer) == op; };

  if (both(Op::kText)) {
    const bool same = PlainWords(tree_[gold].text) == PlainWords(tree_[answer].text);
    return finish(same ? Equal("the same words") : Different("different words"));
  }
  if (IsRegion(work_, gold) || IsRegion(work_, answer)) {
    // R for \mathbb{R}
    const bool letter = (tree_.op(gold) == Op::kSetName && tree_.op(answer) == Op::kSymbol) ||
                        (tree_.op(gold) == Op::kSymbol && tree_.op(answer) == Op::kSetName);
    if (letter && tree_[gold].text == tree_[answer].text) return finish(Equal("the same set"));
    if (IsNamedSet(tree_, gold) != IsNamedSet(tree_, answer) || both(Op::kSetName))
      return finish(Different("different sets"));
    return finish(CompareInequalities(gold, answer));
  }
  if (either(Op::kRelation)) return finish(CompareRelations(gold, answer));
  const bool words_in_gold = tree_.Contains(gold, {Op::kText}),
             words_in_answer = tree_.Contains(answer, {Op::kText});
  if (words_in_answer && !words_in_gold && tree_.op(answer) != Op::kSequence)
    return finish(Different("words among mathematics"));
  if (either(Op::kText)) return finish(Different("words against mathematics"));
  if (either(Op::kEllipsis)) return finish(Undecided("an answer of dots only"));
  if (either(Op::kMatrix)) return finish(CompareMatrices(gold, answer));
  if (IsList(tree_, gold) && IsList(tree_, answer)) return finish(CompareLists(gold, answer));
  if (IsList(tree_, gold) || IsList(tree_, answer)) {
    const int list = IsList(tree_, gold) ? gold : answer, other = list == gold ? answer : gold;
    // {5} states 5; anything longer is no single value.
    if (tree_[list].text == "{}" && tree_.args(list).size() == 1) {
      return finish(list == gold ? Compare(tree_.args(list)[0], other) : Compare(other, tree_.args(list)[0]));
    }
    return finish(
        Different(list == gold ? "one value where several are asked" : "several values where one is asked"));
  }
  if (either(Op::kRatio)) return finish(CompareRatios(gold, answer));
  if (either(Op::kCongruent)) return finish(CompareCongruences(gold, answer));
  GradeResult result = CompareNumbers(gold, answer);
  if (result.outcome == Outcome::kDifferent && !integer_.empty())
    result = CompareFamilies(work_, gold, answer, integer_);
  return finish(std::move(result));
}

int Comparer::AddParts(int id) {
  if (!IsBareList(tree_, id) || tree_[id].text == "or") return id;
  const std::vector<int>& parts = tree_.args(id);
  for (size_t i = 0; i < parts.size(); ++i) {
    if (tree_.op(parts[i]) != Op::kQuantity) return id;
    const Unit& unit = tree_[parts[i]].unit;
    const Unit& before = tree_[parts[i == 0 ? 0 : i - 1]].unit;
    if (!unit.SameKind(before) || (i > 0 && fmpq_cmp(unit.factor.get(), before.factor.get()) >= 0)) return id;
  }
  return tree_.Make(Op::kAdd, std::vector<int>(parts));
}

int Comparer::ExpandSigns(int id) {
  if (!tree_.Contains(id, {Op::kPlusMinus})) return id;
  if (IsList(tree_, id)) {
    // {±1, ±2} has four elements: every element on its own.
    std::vector<int> items;
    const std::string kind = tree_[id].text;
    if (kind == "()" || kind == "[]")
      return tree_.Make(Op::kSequence, {tree_.WithSign(id, 1), tree_.WithSign(id, -1)});
    for (int arg : std::vector<int>(tree_.args(id))) {
      const int expanded = ExpandSigns(arg);
      if (expanded == arg) {
        items.push_back(arg);
      } else {
        for (int item : tree_.args(expanded)) items.push_back(item);
      }
    }
    return tree_.Make(Op::kSequence, std::move(items), kind);
  }
  return tree_.Make(Op::kSequence, {tree_.WithSign(id, 1), tree_.WithSign(id, -1)});
}

int Comparer::FoldMatrix(int id) {
  if (tree_.op(id) == Op::kMatrix || !tree_.Contains(id, {Op::kMatrix})) return id;
  Node node = tree_[id];
  if (node.op == Op::kRelation) {
    for (int& arg : node.args) arg = FoldMatrix(arg);
    return tree_.Add(std::move(node));
  }
  if (node.op == Op::kNeg) {
    Node matrix = tree_[FoldMatrix(node.args[0])];
    if (matrix.op != Op::kMatrix) return id;
    for (int& entry : matrix.args) entry = tree_.Make(Op::kNeg, {entry});
    return tree_.Add(std::move(matrix));
  }
  if (node.op != Op::kMul && node.op != Op::kDiv) return id;
  // One matrix among scalar factors: the factors go into its entries.
  int matrix_id = -1;
  for (int& arg : node.args) {
    arg = FoldMatrix(arg);
    if (tree_.op(arg) != Op::kMatrix) continue;
    if (matrix_id >= 0) return id;
    matrix_id = arg;
  }
  if (matrix_id < 0 || (node.op == Op::kDiv && node.args[0] != matrix_id)) return id;
  Node matrix = tree_[matrix_id];
  for (int& entry : matrix.args) {
    std::vector<int> factors = node.args;
    std::replace(factors.begin(), factors.end(), matrix_id, entry);
    entry = tree_.Make(node.op, std::move(factors));
  }
  return tree_.Add(std::move(matrix));
}

GradeResult Comparer::InOrder(const std::vector<int>& gold, const std::vector<int>& answer) {
  if (gold.size() != answer.size()) return Different("lists of different length");
  return Together([&] {
    GradeResult open = Equal("the same elements in order");
    for (size_t i = 0; i < gold.size(); ++i) {
      GradeResult part = Compare(gold[i], answer[i]);
      if (part.outcome == Outcome::kDifferent) return part;
      if (part.outcome == Outcome::kUndecided) open = std::move(part);
    }
    return open;
  });
}

GradeResult Comparer::AnyOrder(const std::vector<int>& gold, const std::vector<int>& answer,
                               bool repeats_count) {
  if (gold.size() > kMaxElements || answer.size() > kMaxElements)
    return Undecided("more elements than the size budget");
  if (repeats_count && gold.size() != answer.size()) return Different("lists of different length");
  std::vector<bool> used(answer.size(), false);
  GradeResult open = Equal("the same elements");
  const auto search = [&](int element, const std::vector<int>& in, bool mark, bool element_is_gold) {
    GradeResult best = Different("an element that the other does not have");
    for (size_t i = 0; i < in.size(); ++i) {
      if (mark && used[i]) continue;
      GradeResult part = element_is_gold ? Compare(element, in[i]) : Compare(in[i], element);
      if (part.outcome == Outcome::kEqual) {
        if (mark) used[i] = true;
        return part;
      }
      if (part.outcome == Outcome::kUndecided) best = std::move(part);
    }
    return best;
  };
  for (int element : gold) {
    GradeResult part = search(element, answer, repeats_count, true);
    if (part.outcome == Outcome::kDifferent) return part;
    if (part.outcome == Outcome::kUndecided) open = std::move(part);
  }
  for (int element : repeats_count ? std::vector<int>() : answer) {
    GradeResult part = search(element, gold, false, false);
    if (part.outcome == Outcome::kDifferent) return part;
    if (part.outcome == Outcome::kUndecided) open = std::move(part);
  }
  return open;
}

bool Comparer::NamesDiffer(const std::vector<int>& list) const {
  std::set<char> letters;
  for (const int element : list) {
    const Node& node = tree_[element];
    if (node.op != Op::kRelation || node.text != "=" || tree_.op(node.args[0]) != Op::kSymbol) return false;
    // x_1 and x_2 are two roots, in any order.
    if (!letters.insert(tree_[node.args[0]].text[0]).second) return false;
  }
  return true;
}

std::vector<int> Comparer::ByName(const std::vector<int>& list) {
  std::map<std::string, int> named;
  for (const int element : list) {
    const Node& node = tree_[element];
    const bool assigns =
        node.op == Op::kRelation && node.text == "=" && tree_.op(node.args[0]) == Op::kSymbol;
    if (!assigns || !named.emplace(tree_[node.args[0]].text, element).second) return list;
  }
  std::vector<int> sorted;
  for (const auto& [name, element] : named) sorted.push_back(element);
  return sorted;
}

GradeResult Comparer::CompareLists(int gold, int answer) {
  const auto dots = [this](int id) {
    const std::vector<int>& args = tree_.args(id);
    return std::any_of(args.begin(), args.end(), [this](int arg) { return tree_.op(arg) == Op::kEllipsis; });
  };
  if (dots(gold) || dots(answer)) return CompareEllipses(gold, answer);
  const std::vector<int> a = tree_.args(gold), b = tree_.args(answer);
  const std::string& ka = tree_[gold].text;
  const std::string& kb = tree_[answer].text;
  const bool bare_a = IsBareList(tree_, gold), bare_b = IsBareList(tree_, answer);
  if (ka == "{}" || kb == "{}") {
    if ((ka == "{}" || bare_a) && (kb == "{}" || bare_b)) return AnyOrder(a, b, false);
    return Different("a set against an ordered tuple or interval");
  }
  if (bare_a && bare_b) {
    // The values of several variables have their order: "x = 1, y = 2" is no "2, 1".
    const bool named_a = NamesDiffer(a), named_b = NamesDiffer(b);
    if (named_a && named_b) return Together([&] { return AnyOrder(a, b, true); });
    if (named_a == named_b) return AnyOrder(a, b, true);
    const GradeResult written = InOrder(a, b);
    return written.outcome == Outcome::kEqual ? written
                                              : InOrder(named_a ? ByName(a) : a, named_b ? ByName(b) : b);
  }
  if (bare_a || bare_b) {
    const std::string& kind = bare_a ? kb : ka;
    if (kind == "[]" && a.size() == 2 && b.size() == 2) return Different("a closed interval against a list");
    // "y = 3, x = 2" is the point (2, 3).
    return InOrder(bare_a ? ByName(a) : a, bare_b ? ByName(b) : b);
  }
  if (ka != kb) return Different("different brackets");
  return InOrder(a, b);
}

GradeResult Comparer::CompareEllipses(int gold, int answer) {
  const auto dots_in = [this](int id) { return tree_.Contains(id, {Op::kEllipsis}); };
  const std::string& ka = tree_[gold].text;
  const std::string& kb = tree_[answer].text;
  if ((ka == "()" || ka == "[]") != (kb == "()" || kb == "[]"))
    return Different("a set or list against a tuple");
  const std::optional<Progression> pa = ReadProgression(work_, tree_.args(gold)),
                                   pb = ReadProgression(work_, tree_.args(answer));
  if (pa && pb) {
    if (pa->finite != pb->finite) return Different("a finite against an endless sequence");
    const GradeResult first = CompareScalars(work_, pa->first, pb->first);
    const GradeResult step = CompareScalars(work_, pa->step, pb->step);
    const GradeResult last = pa->finite ? CompareScalars(work_, pa->last, pb->last) : Equal("");
    for (const GradeResult* part : {&first, &step, &last}) {
      if (part->outcome == Outcome::kDifferent) return Different("different progressions");
    }
    for (const GradeResult* part : {&first, &step, &last}) {
      if (part->outcome == Outcome::kUndecided) return *part;
    }
    return Equal("the same progression");
  }
  const std::optional<std::vector<int>> ea = Expand(work_, pa, tree_.args(gold)),
                                        eb = Expand(work_, pb, tree_.args(answer));
  if (ea && eb) {
    const int la = tree_.Make(Op::kSequence, *ea, std::string(ka)),
              lb = tree_.Make(Op::kSequence, *eb, std::string(kb));
    return CompareLists(la, lb);
  }
  // What has no dots is no endless sequence, nor one that ends at a symbol.
  if ((pa && !dots_in(answer)) || (pb && !dots_in(gold)))
    return Different("a list against a longer sequence");
  const auto ends_in_dots = [this](int id) { return tree_.op(tree_.args(id).back()) == Op::kEllipsis; };
  if (ends_in_dots(gold) != ends_in_dots(answer)) return Different("a finite against an endless sequence");
  // Not a progression that is understood: element by element, dots against dots.
  const std::vector<int> a = tree_.args(gold), b = tree_.args(answer);
  if (a.size() != b.size()) return Undecided("sequences with dots that are not understood");
  for (size_t i = 0; i < a.size(); ++i) {
    const bool dots_a = tree_.op(a[i]) == Op::kEllipsis, dots_b = tree_.op(b[i]) == Op::kEllipsis;
    if (dots_a != dots_b) return Undecided("sequences with dots that are not understood");
    if (dots_a) continue;
    GradeResult part = Compare(a[i], b[i]);
    if (part.outcome != Outcome::kEqual) return part;
  }
  return Equal("the same elements around the dots");
}

GradeResult Comparer::CompareMatrices(int gold, int answer) {
  const bool ma = tree_.op(gold) == Op::kMatrix, mb = tree_.op(answer) == Op::kMatrix;
  if (ma && mb) {
    if (tree_[gold].columns != tree_[answer].columns) return Different("matrices of different shape");
    return InOrder(tree_.args(gold), tree_.args(answer));
  }
  const int matrix = ma ? gold : answer, other = ma ? answer : gold;
  const size_t entries = tree_.args(matrix).size();
  const bool vector = tree_[matrix].columns == 1 || static_cast<size_t>(tree_[matrix].columns) == entries;
  // A row or column is also written as a tuple.
  if (vector && IsList(tree_, other) && tree_[other].text != "{}")
    return InOrder(tree_.args(gold), tree_.args(answer));
  // [[1,2],[3,4]] lists the rows.
  if (IsList(tree_, other) && tree_[other].text == "[]") {
    std::vector<int> rows;
    for (int row : tree_.args(other)) {
      if (!IsList(tree_, row) || static_cast<int>(tree_.args(row).size()) != tree_[matrix].columns)
        return Different("a matrix against what is none");
      rows.insert(rows.end(), tree_.args(row).begin(), tree_.args(row).end());
    }
    return ma ? InOrder(tree_.args(gold), rows) : InOrder(rows, tree_.args(answer));
  }
  if (entries == 1) return ma ? Compare(tree_.args(gold)[0], answer) : Compare(gold, tree_.args(answer)[0]);
  return Different("a matrix against what is none");
}

GradeResult Comparer::CompareRatios(int gold, int answer) {
  std::vector<int> a =
      tree_.op(gold) == Op::kRatio ? tree_.args(gold) : std::vector<int>{gold, tree_.Number(1)};
  std::vector<int> b =
      tree_.op(answer) == Op::kRatio ? tree_.args(answer) : std::vector<int>{answer, tree_.Number(1)};
  if (a.size() != b.size()) return Different("ratios of different length");
  for (const std::vector<int>* side : {&a, &b}) {
    for (int part : *side) {
      const std::optional<int> sign =
          tree_.Symbols(part).empty() ? SignOf(work_, part) : std::optional<int>(1);
      if (!sign) return Undecided("a ratio of what is no real number");
      if (*sign == 0) return Undecided("a ratio with zero");
    }
  }
  for (size_t i = 1; i < a.size(); ++i) {
    const GradeResult part =
        CompareScalars(work_, tree_.Make(Op::kMul, {a[0], b[i]}), tree_.Make(Op::kMul, {a[i], b[0]}));
    if (part.outcome != Outcome::kEqual) return part;
  }
  return Equal("the same ratio");
}

GradeResult Comparer::CompareCongruences(int gold, int answer) {
  const bool ca = tree_.op(gold) == Op::kCongruent, cb = tree_.op(answer) == Op::kCongruent;
  if (!ca || !cb) {
    // The modulus is left out: the residue must be the number itself.
    return ca ? Compare(tree_.args(gold)[0], answer) : Compare(gold, tree_.args(answer)[0]);
  }
  const std::vector<int> a = tree_.args(gold), b = tree_.args(answer);
  const GradeResult modulus = CompareScalars(work_, a[1], b[1]);
  if (modulus.outcome != Outcome::kEqual) return modulus;
  const int difference = tree_.Make(Op::kAdd, {a[0], tree_.Make(Op::kNeg, {b[0]})});
  return CompareScalars(work_, tree_.Make(Op::kFunction, {difference, a[1]}, "mod"), tree_.Number(0));
}

}  // namespace moebius::math
