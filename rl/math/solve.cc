#include "rl/math/solve.h"

namespace moebius::math {

int Substitute(Tree& tree, int id, const std::string& symbol, int value) {
  Node node = tree[id];
  if (node.op == Op::kSymbol) return node.text == symbol ? value : id;
  for (int& arg : node.args) arg = Substitute(tree, arg, symbol, value);
  return tree.Add(std::move(node));
}

std::optional<Roots> SolveQuadratic(Work& work, int id, const std::string& symbol) {
  Tree& tree = work.tree;
  const auto add = [&](int x, int y) { return tree.Make(Op::kAdd, {x, y}); };
  const auto minus = [&](int x) { return tree.Make(Op::kNeg, {x}); };
  const auto times = [&](int x, int y) { return tree.Make(Op::kMul, {x, y}); };
  const auto over = [&](int x, int y) { return tree.Make(Op::kDiv, {x, y}); };
  const int two = tree.Number(2), x = tree.Make(Op::kSymbol, {}, symbol);
  // Through the values at 0, 1 and -1.
  const int c = Substitute(tree, id, symbol, tree.Number(0)),
            p = Substitute(tree, id, symbol, tree.Number(1)),
            m = Substitute(tree, id, symbol, tree.Number(-1));
  const int a = add(over(add(p, m), two), minus(c)), b = over(add(p, minus(m)), two);
  const std::optional<int> sign_a = SignOf(work, a), sign_b = SignOf(work, b);
  if (!sign_a || !sign_b || (*sign_a == 0 && *sign_b == 0)) return std::nullopt;
  const int polynomial = add(add(times(a, times(x, x)), times(b, x)), c);
  if (CompareScalars(work, id, polynomial).outcome != Outcome::kEqual) return std::nullopt;
  if (*sign_a == 0) return Roots{.at = {over(minus(c), b)}, .degree = 1, .sign = *sign_b};
  const int discriminant = add(times(b, b), minus(times(tree.Number(4), times(a, c))));
  const std::optional<int> sign_d = SignOf(work, discriminant);
  if (!sign_d) return std::nullopt;
  Roots roots{.at = {}, .degree = 2, .sign = *sign_a};
  if (*sign_d < 0) return roots;
  const int root = tree.Make(Op::kRoot, {discriminant, two}), bottom = times(two, a);
  const int low = over(add(minus(b), minus(root)), bottom), high = over(add(minus(b), root), bottom);
  if (*sign_d == 0) {
    roots.at = {low};
  } else {
    roots.at = *sign_a > 0 ? std::vector<int>{low, high} : std::vector<int>{high, low};
  }
  return roots;
}

}  // namespace moebius::math
