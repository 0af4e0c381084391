#include "rl/math/tree.h"

#include <algorithm>

namespace moebius::math {
namespace {

void CollectSymbols(const Tree& tree, int id, std::vector<std::string>& bound,
                    std::vector<std::string>& out) {
  const Node& node = tree[id];
  if (node.op == Op::kSymbol) {
    if (std::find(bound.begin(), bound.end(), node.text) == bound.end()) out.push_back(node.text);
    return;
  }
  const bool binds = node.op == Op::kSum || node.op == Op::kProduct || node.op == Op::kIntegral;
  for (size_t i = 0; i < node.args.size(); ++i) {
    const bool body = binds && i == 2;
    if (body) bound.push_back(node.text);
    CollectSymbols(tree, node.args[i], bound, out);
    if (body) bound.pop_back();
  }
}

}  // namespace

std::string Tree::Canonical(int id) const {
  const Node& node = nodes_[id];
  if (node.op == Op::kNumber) return node.value.Key();
  if (node.op == Op::kSymbol) return "$" + node.text + ";";
  std::vector<std::string> parts;
  for (int arg : node.args) parts.push_back(Canonical(arg));
  if (node.op == Op::kAdd || node.op == Op::kMul || (node.op == Op::kSequence && node.text == "{}")) {
    std::sort(parts.begin(), parts.end());
  }
  std::string out = "(" + std::to_string(static_cast<int>(node.op)) + ":" + node.text;
  if (node.op == Op::kMatrix) out += std::to_string(node.columns);
  if (node.op == Op::kQuantity) out += node.unit.Key();
  for (const std::string& part : parts) out += " " + part;
  return out + ")";
}

std::vector<std::string> Tree::Symbols(int id) const {
  std::vector<std::string> bound, out;
  CollectSymbols(*this, id, bound, out);
  std::sort(out.begin(), out.end());
  out.erase(std::unique(out.begin(), out.end()), out.end());
  return out;
}

bool Tree::Contains(int id, std::initializer_list<Op> ops) const {
  if (std::find(ops.begin(), ops.end(), nodes_[id].op) != ops.end()) return true;
  return std::any_of(nodes_[id].args.begin(), nodes_[id].args.end(),
                     [&](int arg) { return Contains(arg, ops); });
}

int Tree::WithSign(int id, int sign) {
  if (!Contains(id, {Op::kPlusMinus})) return id;
  Node node = nodes_[id];
  for (int& arg : node.args) arg = WithSign(arg, sign);
  if (node.op != Op::kPlusMinus) return Add(std::move(node));
  const bool plus = (node.text == "+") == (sign > 0);
  return plus ? node.args[0] : Make(Op::kNeg, {node.args[0]});
}

}  // namespace moebius::math
