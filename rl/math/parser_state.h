// The parser's state and the functions of its two source files: parser.cc has operators, from the loosest to
// the tightest; parser_atoms.cc what they connect. Whatever may call itself counts depth_. Every function
// returns a node, or -1 after Fail.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "rl/math/parser.h"

namespace moebius::math {

class Parser {
 public:
  Parser(const std::vector<Token>& tokens, const ParseLimits& limits, Tree* tree)
      : tokens_(tokens), limits_(limits), tree_(*tree) {}
  ParseResult Run();

 private:
  // parser.cc
  int List();           // clauses with commas, "and", "or"
  int Clause();         // relations: a = b < c, and "(mod m)" behind them
  int SetExpression();  // unions, intersections, differences
  int Ratio();          // a : b
  int Sum();
  int Term();    // products, quotients, products without a sign
  int Factor();  // signs, then a power
  int Power();
  int Exponent();
  int ExponentInside();
  int Limit();            // of an integral or sum, where _0^1 is no power
  int Postfix(int base);  // factorial, degree, percent
  bool StartsFactor() const;
  int JoinImplicit(int left, int right, bool left_is_number);
  int WithUnit(int amount);

  // parser_atoms.cc
  int Atom();
  int AtomInside();
  int Command();
  int Bracketed(char open);
  int Group();  // {...} as one operand, or one token
  int SetBraces();
  int Matrix(std::string_view kind);
  int Function(std::string_view name);
  int FunctionArgument();
  int BigOperator(Op op);
  int Integral();
  int RootCommand(bool cube);
  int Letter();
  bool DefinesCall() const;  // "(x, y) =" comes next
  int Call(std::string name);
  int Combinations();  // C(n, k); with one argument C is a letter
  std::string IndexText();
  int Money(std::string_view currency);

  const Token& Now() const { return tokens_[at_]; }
  const Token& Ahead(size_t n) const {
    return tokens_[at_ + n < tokens_.size() ? at_ + n : tokens_.size() - 1];
  }
  bool AtEnd() const { return Now().kind == TokenKind::kEnd; }
  void Skip() { at_ += at_ + 1 < tokens_.size() ? 1 : 0; }
  bool Take(char c);
  bool TakeCommand(std::string_view name);
  int Fail(std::string why);
  int FailBudget(std::string why);
  int Make(Op op, std::vector<int> args, std::string_view text = "");
  // The letter as a node: e and i are constants unless a sum uses them as its variable.
  int SymbolNode(const std::string& name);

  const std::vector<Token>& tokens_;
  const ParseLimits& limits_;
  Tree& tree_;
  size_t at_ = 0;
  int depth_ = 0;
  int bars_ = 0;           // open |...|
  int integrals_ = 0;      // open integrals: there "d x" ends the integrand
  bool no_ratio_ = false;  // in the first part of a set builder a colon is no ratio
  std::vector<std::string> bound_;
  std::string why_;
  bool over_budget_ = false;
};

}  // namespace moebius::math
