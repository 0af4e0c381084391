#include <algorithm>

#include "rl/math/parser_state.h"

namespace moebius::math {
namespace {

bool IsSetLetter(std::string_view name) {
  return name.size() == 1 && std::string_view("RZNQC").find(name) != std::string_view::npos;
}

}  // namespace

int Parser::SymbolNode(const std::string& name) {
  const bool bound = std::find(bound_.begin(), bound_.end(), name) != bound_.end();
  if (!bound && name == "e") return Make(Op::kEuler, {});
  if (!bound && name == "i") return Make(Op::kImaginary, {});
  return Make(Op::kSymbol, {}, name);
}

int Parser::Atom() {
  if (++depth_ > limits_.max_depth) return FailBudget("nested deeper than the depth budget");
  const int value = AtomInside();
  --depth_;
  return value;
}

int Parser::AtomInside() {
  const Token& token = Now();
  switch (token.kind) {
    case TokenKind::kNumber: {
      Skip();
      if (tree_.size() >= limits_.max_nodes) return FailBudget("more nodes than the size budget");
      return tree_.Add({.op = Op::kNumber, .value = token.value, .digits = token.digits});
    }
    case TokenKind::kLetter:
      return Letter();
    case TokenKind::kCommand:
      return Command();
    case TokenKind::kWord: {
      std::string words = token.text;
      for (Skip(); Now().kind == TokenKind::kWord; Skip()) words += " " + Now().text;
      return Make(Op::kText, {}, words);
    }
    case TokenKind::kChar:
      if (token.IsChar('(') || token.IsChar('[') || token.IsChar(']')) return Bracketed(token.text[0]);
      if (token.IsChar('{')) {
        const int inside = Group();
        // Braces without backslashes around a list are meant as a set.
        if (inside >= 0 && tree_.op(inside) == Op::kSequence && tree_[inside].text.empty()) {
          return Make(Op::kSequence, tree_.args(inside), "{}");
        }
        return inside;
      }
      if (token.IsChar('|')) {
        Skip();
        ++bars_;
        const int inside = Sum();
        --bars_;
        if (inside < 0 || !Take('|')) return Fail("a bar | is not closed");
        return Make(Op::kAbs, {inside});
      }
      return Fail("'" + token.text + "' stands where a value is expected");
    case TokenKind::kUnit:
      return Fail("a unit without an amount");
    case TokenKind::kEnd:
      break;
  }
  return Fail("the text ends where a value is expected");
}

int Parser::Group() {
  if (!Now().IsChar('{')) {
    if (Now().kind == TokenKind::kChar && !Now().IsChar('(')) return Fail("an argument is missing");
    return Atom();
  }
  Skip();
  if (Take('}')) return Make(Op::kSetName, {});
  const int bars = bars_;
  bars_ = 0;
  const int inside = List();
  bars_ = bars;
  // A brace that is never closed is closed by the end.
  if (inside >= 0 && !Take('}') && !AtEnd()) return Fail("a brace { is not closed");
  return inside;
}

int Parser::Bracketed(char open) {
  const size_t start = at_;
  Skip();
  const int bars = bars_, integrals = integrals_;
  bars_ = integrals_ = 0;
  const int inside = List();
  bars_ = bars;
  integrals_ = integrals;
  if (inside < 0) return -1;
  const Token closing = Now();
  if (!closing.IsChar(')') && !closing.IsChar(']') && !closing.IsChar('['))
    return Fail("a bracket is not closed");
  Skip();
  const Node& node = tree_[inside];
  const bool list = node.op == Op::kSequence && node.text.empty();
  // ]1,2[ is the other way to write (1,2).
  const char left = open == ']' ? '(' : open;
  const char right = closing.IsChar('[') ? ')' : closing.text[0];
  if ((open == ']' || closing.IsChar('[')) && (!list || node.args.size() != 2))
    return Fail("a bracket is not closed");
  if (!list) {
    if (left != (right == ')' ? '(' : '[')) return Fail("a bracket is closed by one of another kind");
    // (1011)_2
    if (Now().IsChar('_') && node.op == Op::kNumber && at_ - start == 3) {
      Token token;
      const std::string index = IndexText();
      const std::string& digits = tokens_[start + 1].text;
      const int base =
          index.size() <= 2 &&
                  std::all_of(index.begin(), index.end(), [](char c) { return c >= '0' && c <= '9'; }) &&
                  !index.empty()
              ? std::stoi(index)
              : 0;
      const bool fits = base >= 2 && base <= 36 && std::all_of(digits.begin(), digits.end(), [&](char c) {
                          return c >= '0' && c <= '9' && c - '0' < base;
                        });
      if (!fits) return Fail("digits that the base does not have");
      return tree_.Number(Rational::FromBase(digits, base));
    }
    return inside;
  }
  const std::vector<int> items = node.args;
  return Make(Op::kSequence, items, std::string{left, right});
}

int Parser::SetBraces() {
  if (TakeCommand("}") || Take('}')) return Make(Op::kSetName, {});
  const int bars = bars_;
  const bool no_ratio = no_ratio_;
  bars_ = 1;
  no_ratio_ = true;
  int inside = List();
  no_ratio_ = no_ratio;
  if (inside < 0) return -1;
  if (Now().IsChar('|') || Now().IsChar(':') || Now().IsCommand("mid")) {
    Skip();
    bars_ = 0;
    inside = Make(Op::kBuilder, {inside, List()});
  } else {
    const bool list = tree_.op(inside) == Op::kSequence && tree_[inside].text.empty();
    std::vector<int> items = list ? tree_.args(inside) : std::vector<int>{inside};
    inside = Make(Op::kSequence, std::move(items), "{}");
  }
  bars_ = bars;
  if (inside >= 0 && !TakeCommand("}") && !Take('}') && !AtEnd()) return Fail("a set is not closed");
  return inside;
}

int Parser::Money(std::string_view currency) {
  const int amount = Power();
  if (amount < 0) return -1;
  return tree_.Add({.op = Op::kQuantity, .args = {amount}, .unit = NamedUnit(currency)});
}

int Parser::Command() {
  const std::string name = Now().text;
  Skip();
  if (name == "frac") {
    // \frac12: one digit each.
    const Token& token = Now();
    if (token.kind == TokenKind::kNumber && token.text.size() == 2 && token.digits == 0) {
      Skip();
      return Make(Op::kDiv, {tree_.Number(token.text[0] - '0'), tree_.Number(token.text[1] - '0')});
    }
    const int top = Group();
    return top < 0 ? -1 : Make(Op::kDiv, {top, Group()});
  }
  if (name == "binom") {
    const int n = Group();
    return n < 0 ? -1 : Make(Op::kBinomial, {n, Group()});
  }
  if (name == "sqrt" || name == "cbrt") return RootCommand(name == "cbrt");
  if (name == "pi") return Make(Op::kPi, {});
  if (name == "infty") return Make(Op::kInfinity, {});
  if (name == "emptyset") return Make(Op::kSetName, {});
  if (name.starts_with("set:") && IsSetLetter(std::string_view(name).substr(4)))
    return Make(Op::kSetName, {}, name.substr(4));
  if (IsSetLetter(name)) return Make(Op::kSetName, {}, name);
  if (name == "{") return SetBraces();
  if (name == "$") return Money("dollar");
  if (name == "euro" || name == "pounds" || name == "yen") return Money(name);
  if (name == "ldots") return Make(Op::kEllipsis, {});
  if (name == "lfloor" || name == "lceil") {
    const int inside = Sum();
    if (inside < 0 || !TakeCommand(name == "lfloor" ? "rfloor" : "rceil"))
      return Fail("\\" + name + " is not closed");
    return Make(name == "lfloor" ? Op::kFloor : Op::kCeil, {inside});
  }
  if (name == "langle") {
    const int inside = List();
    if (inside < 0 || !TakeCommand("rangle")) return Fail("\\langle is not closed");
    return tree_.op(inside) == Op::kSequence ? Make(Op::kSequence, std::vector<int>(tree_.args(inside)), "()")
                                             : inside;
  }
  if (name == "overline" || name == "bar") return Make(Op::kSymbol, {}, "overline " + IndexText());
  if (name == "sum") return BigOperator(Op::kSum);
  if (name == "prod") return BigOperator(Op::kProduct);
  if (name == "int") return Integral();
  if (name.starts_with("begin:")) return Matrix(std::string_view(name).substr(6));
  if (IsFunctionName(name)) return Function(name);
  return Fail("\\" + name + " is not covered");
}

int Parser::RootCommand(bool cube) {
  int index = tree_.Number(cube ? 3 : 2);
  if (Take('[')) {
    index = Sum();
    if (index < 0 || !Take(']')) return Fail("the root's index is not closed");
  }
  return Make(Op::kRoot, {Group(), index});
}

int Parser::FunctionArgument() {
  if (Now().IsChar('(') || Now().IsChar('{') || Now().IsChar('[')) return Group();
  const bool minus = Take('-');
  int value = Power();
  while (value >= 0 && StartsFactor() && !(Now().kind == TokenKind::kCommand && IsFunctionName(Now().text))) {
    if (Now().IsChar('(') && tree_.op(value) != Op::kNumber) break;
    if (Now().kind == TokenKind::kNumber) return Fail("two numbers without a sign between them");
    value = JoinImplicit(value, Power(), false);
  }
  return minus ? Make(Op::kNeg, {value}) : value;
}

int Parser::Function(std::string_view name) {
  int power = -1, base = -1;
  while (Now().IsChar('^') || Now().IsChar('_')) {
    const bool raised = Now().IsChar('^');
    Skip();
    const int value = Limit();
    if (value < 0) return -1;
    (raised ? power : base) = value;
  }
  const int argument = FunctionArgument();
  if (argument < 0) return -1;
  std::string full(name);
  constexpr std::string_view kInvertible[] = {"sin", "cos", "tan", "cot"};
  if (power >= 0 && tree_.op(power) == Op::kNeg && tree_.op(tree_.args(power)[0]) == Op::kNumber &&
      tree_[tree_.args(power)[0]].value.IsOne()) {
    if (std::find(std::begin(kInvertible), std::end(kInvertible), name) == std::end(kInvertible))
      return Fail("an inverse function that is not covered");
    full = "arc" + full;
    power = -1;
  }
  int value;
  if (name == "log" || name == "lg") {
    value = Make(Op::kLog, {base >= 0 ? base : tree_.Number(10), argument});
  } else if (base >= 0) {
    return Fail("an index that is not covered");
  } else if (name == "exp") {
    value = Make(Op::kPow, {Make(Op::kEuler, {}), argument});
  } else if (name == "abs" || name == "floor" || name == "ceil") {
    value = Make(name == "abs" ? Op::kAbs : name == "floor" ? Op::kFloor : Op::kCeil, {argument});
  } else {
    const bool many = tree_.op(argument) == Op::kSequence;
    value =
        Make(Op::kFunction, many ? std::vector<int>(tree_.args(argument)) : std::vector<int>{argument}, full);
  }
  return power < 0 ? value : Make(Op::kPow, {value, power});
}

int Parser::BigOperator(Op op) {
  int first = -1, last = -1;
  std::string variable;
  while (Now().IsChar('_') || Now().IsChar('^')) {
    const bool lower = Now().IsChar('_');
    Skip();
    if (!lower) {
      last = Limit();
      if (last < 0) return -1;
      continue;
    }
    if (!Take('{') || Now().kind != TokenKind::kLetter) return Fail("a sum without its variable");
    variable = Now().text;
    Skip();
    if (!Take('=')) return Fail("a sum without its first value");
    first = Sum();
    if (first < 0 || !Take('}')) return Fail("a sum's first value is not closed");
  }
  if (first < 0 || last < 0) return Fail("a sum without limits");
  bound_.push_back(variable);
  const int body = Term();
  bound_.pop_back();
  return Make(op, {first, last, body}, variable);
}

int Parser::Integral() {
  int lower = -1, upper = -1;
  while (Now().IsChar('_') || Now().IsChar('^')) {
    int& limit = Now().IsChar('_') ? lower : upper;
    Skip();
    limit = Limit();
    if (limit < 0) return -1;
  }
  if (lower < 0 || upper < 0) return Fail("an integral without limits is not covered");
  ++integrals_;
  const bool bare = Now().Is(TokenKind::kLetter, "d");
  int body = bare ? tree_.Number(1) : Sum();
  --integrals_;
  if (body < 0) return -1;
  if (!Now().Is(TokenKind::kLetter, "d") || Ahead(1).kind != TokenKind::kLetter)
    return Fail("an integral without its variable");
  Skip();
  const std::string variable = Now().text;
  Skip();
  return Make(Op::kIntegral, {lower, upper, body}, variable);
}

std::string Parser::IndexText() {
  Take('_');
  std::string text;
  if (!Take('{')) {
    text = Now().text;
    Skip();
    return text;
  }
  for (int open = 1; !AtEnd(); Skip()) {
    if (Now().IsChar('{')) ++open;
    if (Now().IsChar('}') && --open == 0) break;
    text += Now().text;
  }
  Take('}');
  return text;
}

bool Parser::DefinesCall() const {
  if (!Now().IsChar('(')) return false;
  for (size_t n = 1;; n += 2) {
    const TokenKind kind = Ahead(n).kind;
    if (kind != TokenKind::kLetter && kind != TokenKind::kNumber && kind != TokenKind::kWord) return false;
    if (Ahead(n + 1).IsChar(')')) return Ahead(n + 2).IsChar('=');
    // A probability under a condition: P(A | B).
    if (!Ahead(n + 1).IsChar(',') && !Ahead(n + 1).IsChar('|') && !Ahead(n + 1).IsCommand("mid"))
      return false;
  }
}

int Parser::Call(std::string name) {
  std::vector<int> args;
  for (Skip(); !Now().IsChar('='); Skip()) {
    if (Now().kind == TokenKind::kLetter) args.push_back(Make(Op::kSymbol, {}, Now().text));
    if (Now().kind == TokenKind::kNumber) args.push_back(tree_.Number(Now().value));
    if (Now().kind == TokenKind::kWord) args.push_back(Make(Op::kText, {}, Now().text));
  }
  return Make(Op::kCall, std::move(args), name);
}

int Parser::Combinations() {
  const int inside = Bracketed('(');
  if (inside < 0) return -1;
  if (tree_.op(inside) == Op::kSequence && tree_[inside].text == "()" && tree_.args(inside).size() == 2) {
    return Make(Op::kBinomial, std::vector<int>(tree_.args(inside)));
  }
  return Make(Op::kMul, {SymbolNode("C"), inside});
}

int Parser::Letter() {
  std::string name = Now().text;
  Skip();
  if (Now().IsChar('_')) name += "_" + IndexText();
  while (Take('\'')) name += "'";
  if (DefinesCall()) return Call(name);
  if (name == "C" && Now().IsChar('(')) return Combinations();
  // f^{-1}(x) = ...
  if (Now().IsChar('^') && Ahead(1).IsChar('{') && Ahead(2).IsChar('-') && Ahead(3).IsChar('}') == false &&
      Ahead(4).IsChar('}') && Ahead(5).IsChar('(')) {
    const size_t here = at_;
    for (int i = 0; i < 5; ++i) Skip();
    if (DefinesCall()) return Call(name + "^-1");
    at_ = here;
  }
  return SymbolNode(name);
}

int Parser::Matrix(std::string_view kind) {
  const bool determinant = kind == "vmatrix";
  if (!determinant && kind != "pmatrix" && kind != "bmatrix" && kind != "Bmatrix" && kind != "matrix" &&
      kind != "array") {
    return Fail("environment " + std::string(kind) + " is not covered");
  }
  const std::string end = "end:" + std::string(kind);
  std::vector<int> entries;
  int columns = 0, row = 0;
  const int bars = bars_;
  bars_ = 0;
  while (!AtEnd() && !Now().IsCommand(end)) {
    const int entry = Clause();
    if (entry < 0) return -1;
    entries.push_back(entry);
    ++row;
    if (Take('&')) continue;
    const bool more = TakeCommand("\\");
    if (columns != 0 && row != columns) return Fail("matrix rows of different length");
    columns = row;
    row = 0;
    if (!more) break;
  }
  bars_ = bars;
  if (!TakeCommand(end) || entries.empty()) return Fail("a matrix is not closed");
  if (tree_.size() >= limits_.max_nodes) return FailBudget("more nodes than the size budget");
  const int matrix = tree_.Add({.op = Op::kMatrix, .args = std::move(entries), .columns = columns});
  return determinant ? Make(Op::kFunction, {matrix}, "det") : matrix;
}

}  // namespace moebius::math
