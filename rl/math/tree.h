// The expression tree: plain nodes in one list, children before parents, so that nothing recurses to free it.
#pragma once

#include <cstdint>
#include <deque>
#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include "rl/math/number.h"
#include "rl/math/units.h"

namespace moebius::math {

enum class Op : uint8_t {
  // Scalars.
  kNumber,  // value
  kSymbol,  // text: name
  kPi,
  kEuler,
  kImaginary,
  kInfinity,
  kAdd,  // two or more
  kMul,  // two or more
  kDiv,  // numerator, denominator
  kPow,  // base, exponent
  kNeg,
  kPlusMinus,  // text "+" for ±x, "-" for ∓x
  kRoot,       // radicand, index
  kAbs,
  kFloor,
  kCeil,
  kFactorial,
  kBinomial,  // n, k
  kFunction,  // text: sin, ln, gcd, ...; arguments
  kLog,       // base, argument
  kSum,       // text: variable; first, last, body
  kProduct,   // the same
  kIntegral,  // text: variable; lower, upper, body
  kPercent,   // x / 100
  kQuantity,  // x times unit
  // Structures.
  kSequence,  // text: "" bare list, "or", "and", "{}", "()", "[]", "(]", "[)"
  kMatrix,    // columns; entries row by row
  kRelation,  // text: one letter for each sign between operands, see Sign; operands
  kUnion,
  kIntersection,
  kDifference,
  kSetName,    // text: R, Z, N, Q, C, or "" for the empty set
  kBuilder,    // set builder: variable or "variable in set", condition
  kRatio,      // a : b : ...
  kCongruent,  // x (mod m): x, m
  kCall,       // f(x) as the left side of a definition; text: f
  kEllipsis,
  kText,  // text: words
};

// Letters of Node::text for kRelation.
inline constexpr char kEqual = '=', kLess = '<', kGreater = '>', kLessEqual = 'l', kGreaterEqual = 'g',
                      kNotEqual = 'n', kIn = 'i', kApprox = '~';

struct Node {
  Op op = Op::kNumber;
  std::vector<int> args = {};
  std::string text = {};
  Rational value = {};  // kNumber
  int columns = 0;      // kMatrix
  Unit unit = {};       // kQuantity
  int digits = 0;       // kNumber: significant digits as written when it had a decimal point
};

class Tree {
 public:
  int Add(Node node) {
    nodes_.push_back(std::move(node));
    return static_cast<int>(nodes_.size()) - 1;
  }
  int Make(Op op, std::vector<int> args, std::string_view text = "") {
    return Add({.op = op, .args = std::move(args), .text = std::string(text)});
  }
  int Number(const Rational& value) { return Add({.op = Op::kNumber, .value = value}); }
  int Number(slong value) { return Number(Rational(value, 1)); }

  const Node& operator[](int id) const { return nodes_[id]; }
  Op op(int id) const { return nodes_[id].op; }
  const std::vector<int>& args(int id) const { return nodes_[id].args; }
  int size() const { return static_cast<int>(nodes_.size()); }

  // A text that two nodes share only if they are the same up to the order of sums, products and braces'
  // elements.
  std::string Canonical(int id) const;
  // Symbols that occur in `id` and are not bound by a sum or integral; sorted, each once.
  std::vector<std::string> Symbols(int id) const;
  // True if `id` or a node below it has one of these operations.
  bool Contains(int id, std::initializer_list<Op> ops) const;
  // A copy of `id` in which every ±x is x (sign 1) or -x (sign -1), and ∓x the opposite.
  int WithSign(int id, int sign);

 private:
  std::deque<Node> nodes_;  // references to nodes stay valid while others are added
};

}  // namespace moebius::math
