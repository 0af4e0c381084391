#include "rl/math/parser.h"

#include <algorithm>

#include "rl/math/parser_state.h"

namespace moebius::math {
namespace {

// The letter of Node::text for a relation sign, 0 if the token is none.
char RelationSign(const Token& token) {
  if (token.kind == TokenKind::kChar) {
    if (token.IsChar('=')) return kEqual;
    if (token.IsChar('<')) return kLess;
    if (token.IsChar('>')) return kGreater;
  }
  if (token.kind != TokenKind::kCommand) return 0;
  if (token.text == "le") return kLessEqual;
  if (token.text == "ge") return kGreaterEqual;
  if (token.text == "ne") return kNotEqual;
  if (token.text == "in") return kIn;
  if (token.text == "equiv") return kEqual;
  if (token.text == "approx" || token.text == "sim" || token.text == "cong") return kApprox;
  return 0;
}

bool IsCount(const Tree& tree, int id) { return tree.op(id) == Op::kNumber && tree[id].value.IsInteger(); }

}  // namespace

ParseResult Parse(const std::vector<Token>& tokens, const ParseLimits& limits, Tree* tree) {
  return Parser(tokens, limits, tree).Run();
}

ParseResult Parser::Run() {
  int root = AtEnd() ? Fail("nothing to read") : List();
  // Braces or brackets closed once too often at the very end are a slip of the pen.
  while (root >= 0 && (Now().IsChar('}') || Now().IsCommand("\\"))) Skip();
  if (root >= 0 && !AtEnd())
    root = Fail("'" + (Now().text.empty() ? "unit" : Now().text) + "' is not expected here");
  return {.root = root, .why = why_, .over_budget = over_budget_};
}

bool Parser::Take(char c) {
  if (!Now().IsChar(c)) return false;
  Skip();
  return true;
}

bool Parser::TakeCommand(std::string_view name) {
  if (!Now().IsCommand(name)) return false;
  Skip();
  return true;
}

int Parser::Fail(std::string why) {
  if (why_.empty()) why_ = std::move(why);
  return -1;
}

int Parser::FailBudget(std::string why) {
  over_budget_ = true;
  return Fail(std::move(why));
}

int Parser::Make(Op op, std::vector<int> args, std::string_view text) {
  for (int arg : args) {
    if (arg < 0) return Fail("an operand is missing");
  }
  if (tree_.size() >= limits_.max_nodes) return FailBudget("more nodes than the size budget");
  return tree_.Make(op, std::move(args), text);
}

int Parser::List() {
  if (++depth_ > limits_.max_depth) return FailBudget("nested deeper than the depth budget");
  std::vector<int> items;
  std::string join;
  while (true) {
    const int item = Clause();
    if (item < 0) return -1;
    items.push_back(item);
    bool more = false;
    while (true) {
      if (Now().IsChar(',') || Now().IsChar(';')) {
        Skip();
      } else if (Now().IsCommand("and") || Now().IsCommand("or")) {
        join = Now().text;
        Skip();
      } else {
        break;
      }
      more = true;
    }
    // A comma before a closing bracket or the end separates nothing.
    if (!more || AtEnd() || Now().IsChar(')') || Now().IsChar(']') || Now().IsChar('}') ||
        Now().IsCommand("}"))
      break;
  }
  --depth_;
  return items.size() == 1 ? items[0] : Make(Op::kSequence, std::move(items), join);
}

int Parser::Clause() {
  // "= 5" and "\approx 5" answer without repeating the question.
  while (RelationSign(Now()) == kEqual || RelationSign(Now()) == kApprox) Skip();
  std::vector<int> operands = {SetExpression()};
  std::string signs;
  while (operands.back() >= 0) {
    const char sign = RelationSign(Now());
    if (sign == 0) break;
    Skip();
    signs += sign;
    operands.push_back(SetExpression());
  }
  if (operands.back() < 0) return -1;
  if (Now().IsChar('(') && Ahead(1).IsCommand("mod")) {
    Skip();
    Skip();
    const int modulus = Sum();
    if (modulus < 0 || !Take(')')) return Fail("(mod m) is not closed");
    operands.back() = Make(Op::kCongruent, {operands.back(), modulus});
  } else if (TakeCommand("pmod")) {
    operands.back() = Make(Op::kCongruent, {operands.back(), Group()});
  }
  return signs.empty() ? operands[0] : Make(Op::kRelation, std::move(operands), signs);
}

int Parser::SetExpression() {
  int left = Ratio();
  while (left >= 0) {
    const bool set = Now().IsCommand("cup") || Now().IsCommand("cap") || Now().IsCommand("setminus");
    if (!set) break;
    const Op op = Now().IsCommand("cup")   ? Op::kUnion
                  : Now().IsCommand("cap") ? Op::kIntersection
                                           : Op::kDifference;
    Skip();
    left = Make(op, {left, Ratio()});
  }
  return left;
}

int Parser::Ratio() {
  std::vector<int> parts = {Sum()};
  while (parts.back() >= 0 && !no_ratio_ && Now().IsChar(':') && Ahead(1).kind != TokenKind::kEnd) {
    Skip();
    parts.push_back(Sum());
  }
  return parts.size() == 1 ? parts[0] : Make(Op::kRatio, std::move(parts));
}

int Parser::Sum() {
  if (++depth_ > limits_.max_depth) return FailBudget("nested deeper than the depth budget");
  std::vector<int> terms = {Term()};
  while (terms.back() >= 0) {
    if (Take('+')) {
      terms.push_back(Term());
    } else if (Take('-')) {
      terms.push_back(Make(Op::kNeg, {Term()}));
    } else if (Now().IsCommand("pm") || Now().IsCommand("mp")) {
      const std::string_view sign = Now().IsCommand("pm") ? "+" : "-";
      Skip();
      terms.push_back(Make(Op::kPlusMinus, {Term()}, sign));
    } else {
      break;
    }
  }
  --depth_;
  // "5 ft 6 in" is a sum without a sign.
  while (terms.back() >= 0 && terms.size() < 4 && tree_.op(terms.back()) == Op::kQuantity &&
         Now().kind == TokenKind::kNumber) {
    terms.push_back(Term());
    if (terms.back() >= 0 && tree_.op(terms.back()) != Op::kQuantity)
      return Fail("a number without a sign before it");
  }
  return terms.size() == 1 ? terms[0] : Make(Op::kAdd, std::move(terms));
}

bool Parser::StartsFactor() const {
  const Token& token = Now();
  switch (token.kind) {
    case TokenKind::kEnd:
    case TokenKind::kUnit:
    case TokenKind::kWord:
      return false;
    case TokenKind::kNumber:
      return true;
    case TokenKind::kLetter:
      return !(integrals_ > 0 && token.text == "d" && (Ahead(1).kind == TokenKind::kLetter));
    case TokenKind::kChar:
      if (token.IsChar('(')) return !Ahead(1).IsCommand("mod");
      return token.IsChar('{') || (token.IsChar('|') && bars_ == 0);
    case TokenKind::kCommand:
      break;
  }
  constexpr std::string_view kNot[] = {
      "times", "cdot",    "div",       "le",     "ge",       "ne",  "in",   "equiv",  "approx",
      "sim",   "cong",    "cup",       "cap",    "setminus", "and", "or",   "pm",     "mp",
      "}",     "\\",      "ldots",     "mid",    "pmod",     "mod", "bmod", "choose", "over",
      "circ",  "rfloor",  "rceil",     "rangle", "implies",  "to",  "norm", "notin",  "$",
      "iff",   "because", "therefore", "euro",   "pounds",   "yen", "cent"};
  return std::find(std::begin(kNot), std::end(kNot), token.text) == std::end(kNot) &&
         !token.text.starts_with("end:");
}

int Parser::JoinImplicit(int left, int right, bool left_is_number) {
  if (left < 0 || right < 0) return -1;
  // 2 1/2 and 2\frac{1}{2}: a whole number and a fraction of whole numbers are added. A percent or degree
  // sign behind the fraction belongs to both.
  const bool wrapped = tree_.op(right) == Op::kPercent || tree_.op(right) == Op::kQuantity;
  const int fraction = wrapped ? tree_.args(right)[0] : right;
  if (left_is_number && tree_.op(fraction) == Op::kDiv && IsCount(tree_, tree_.args(fraction)[0]) &&
      IsCount(tree_, tree_.args(fraction)[1])) {
    const int mixed = Make(Op::kAdd, {left, fraction});
    if (!wrapped || mixed < 0) return mixed;
    Node node = tree_[right];
    node.args = {mixed};
    return tree_.Add(std::move(node));
  }
  if (tree_.op(left) != Op::kMul) return Make(Op::kMul, {left, right});
  std::vector<int> factors = tree_.args(left);
  factors.push_back(right);
  return Make(Op::kMul, std::move(factors));
}

int Parser::WithUnit(int amount) {
  Unit unit = Now().unit;
  Skip();
  const auto power = [this]() -> int {
    if (!Now().IsChar('^')) return 1;
    size_t at = 1;
    if (Ahead(at).IsChar('{')) ++at;
    const bool minus = Ahead(at).IsChar('-');
    if (minus) ++at;
    const slong value = Ahead(at).kind == TokenKind::kNumber ? Ahead(at).value.Small(0) : 0;
    if (value < 1 || value > 9) return 1;
    for (size_t i = 0; i <= at; ++i) Skip();
    if (Now().IsChar('}')) Skip();
    return static_cast<int>(minus ? -value : value);
  };
  unit = Times(Unit(), unit, power());
  while (Now().kind == TokenKind::kUnit ||
         ((Now().IsChar('/') || Now().IsCommand("cdot") || Now().IsChar('*')) &&
          Ahead(1).kind == TokenKind::kUnit)) {
    const bool over = Now().IsChar('/');
    if (Now().kind != TokenKind::kUnit) Skip();
    const Unit next = Now().unit;
    Skip();
    unit = Times(unit, next, (over ? -1 : 1) * power());
  }
  if (amount < 0) return -1;
  if (tree_.size() >= limits_.max_nodes) return FailBudget("more nodes than the size budget");
  return tree_.Add({.op = Op::kQuantity, .args = {amount}, .unit = unit});
}

int Parser::Term() {
  int left = Factor();
  bool number = left >= 0 && tree_.op(left) == Op::kNumber && tree_[left].value.IsInteger();
  while (left >= 0) {
    if (Now().IsChar('*') || Now().IsCommand("times") || Now().IsCommand("cdot")) {
      Skip();
      left = Make(Op::kMul, {left, Factor()});
      number = false;
    } else if (Now().IsChar('/') || Now().IsCommand("div")) {
      Skip();
      left = Make(Op::kDiv, {left, Factor()});
      number = false;
    } else if (Now().IsCommand("bmod") || Now().IsCommand("mod")) {
      Skip();
      left = Make(Op::kFunction, {left, Factor()}, "mod");
    } else if (Now().IsCommand("choose") || Now().IsCommand("over")) {
      const Op op = Now().IsCommand("choose") ? Op::kBinomial : Op::kDiv;
      Skip();
      left = Make(op, {left, Factor()});
    } else if (Now().kind == TokenKind::kUnit) {
      left = WithUnit(left);
    } else if (TakeCommand("$")) {
      left = tree_.Add({.op = Op::kQuantity, .args = {left}, .unit = NamedUnit("dollar")});
    } else if (Now().IsCommand("euro") || Now().IsCommand("pounds") || Now().IsCommand("yen")) {
      left = tree_.Add({.op = Op::kQuantity, .args = {left}, .unit = NamedUnit(Now().text)});
      Skip();
    } else if (TakeCommand("cent")) {
      left = tree_.Add({.op = Op::kQuantity, .args = {left}, .unit = *FindUnit("cent")});
    } else if (Now().kind == TokenKind::kNumber) {
      // A number right behind something: "2 1/2", or ")3" and "x 2" as products.
      const bool closed = at_ > 0 && (tokens_[at_ - 1].IsChar(')') || tokens_[at_ - 1].IsChar('}'));
      if (number && Now().space_before && Ahead(1).IsChar('/') && Ahead(2).kind == TokenKind::kNumber) {
        const int top = Factor();
        Skip();
        left = JoinImplicit(left, Make(Op::kDiv, {top, Factor()}), true);
        number = false;
      } else if (tree_.op(left) == Op::kQuantity) {
        break;
      } else if (closed) {
        left = JoinImplicit(left, Factor(), false);
      } else {
        return Fail("two numbers without a sign between them");
      }
    } else if (StartsFactor()) {
      // \frac right behind a whole number is a mixed number; a fraction in brackets is a factor.
      const bool fraction = Now().IsCommand("frac");
      const int right = Power();
      left = JoinImplicit(left, right, number && fraction);
      number = false;
    } else {
      break;
    }
  }
  return left;
}

int Parser::Factor() {
  // Signs in a row are folded here, so that ten thousand of them need no depth.
  bool minus = false;
  std::string_view both;
  while (true) {
    if (Now().IsChar('-')) {
      minus = !minus;
    } else if (Now().IsCommand("pm")) {
      both = minus ? "-" : "+";
      minus = false;
    } else if (Now().IsCommand("mp")) {
      both = minus ? "+" : "-";
      minus = false;
    } else if (!Now().IsChar('+')) {
      break;
    }
    Skip();
  }
  int value = Power();
  // -1\frac{1}{2} is -(1 + 1/2): the sign belongs to the whole mixed number.
  if (value >= 0 && (minus || !both.empty()) && tree_.op(value) == Op::kNumber &&
      tree_[value].value.IsInteger() && Now().IsCommand("frac")) {
    value = JoinImplicit(value, Power(), true);
  } else if (value >= 0 && (minus || !both.empty()) && tree_.op(value) == Op::kNumber &&
             Now().kind == TokenKind::kNumber && Now().space_before && Ahead(1).IsChar('/') &&
             Ahead(2).kind == TokenKind::kNumber) {
    const int top = Power();
    Skip();
    value = JoinImplicit(value, Make(Op::kDiv, {top, Power()}), true);
  }
  if (minus) value = Make(Op::kNeg, {value});
  return both.empty() ? value : Make(Op::kPlusMinus, {value}, both);
}

int Parser::Power() {
  if (++depth_ > limits_.max_depth) return FailBudget("nested deeper than the depth budget");
  int base = Postfix(Atom());
  while (base >= 0 && Now().IsChar('^')) {
    // 30^\circ, 30^{\circ}
    if (Ahead(1).IsCommand("circ") || (Ahead(1).IsChar('{') && Ahead(2).IsCommand("circ"))) {
      const bool group = Ahead(1).IsChar('{');
      for (int i = 0; i < (group ? 4 : 2); ++i) Skip();
      if (Now().Is(TokenKind::kLetter, "C") || Now().Is(TokenKind::kLetter, "F")) {
        const std::string scale = Now().text == "C" ? "celsius" : "fahrenheit";
        Skip();
        base = tree_.Add({.op = Op::kQuantity, .args = {base}, .unit = NamedUnit(scale)});
      } else {
        base = tree_.Add({.op = Op::kQuantity, .args = {base}, .unit = DegreeUnit()});
      }
      continue;
    }
    Skip();
    base = Postfix(Make(Op::kPow, {base, Exponent()}));
  }
  --depth_;
  return base;
}

int Parser::Exponent() {
  if (++depth_ > limits_.max_depth) return FailBudget("nested deeper than the depth budget");
  const int value = ExponentInside();
  --depth_;
  return value;
}

int Parser::ExponentInside() {
  if (Now().IsChar('-') || Now().IsChar('+')) {
    const bool minus = Now().IsChar('-');
    Skip();
    const int value = Exponent();
    return minus ? Make(Op::kNeg, {value}) : value;
  }
  if (Now().IsChar('{')) {
    const int inside = Group();
    // 2^{3}^4 and 2^3^4 bind to the right.
    if (Take('^')) return Make(Op::kPow, {inside, Exponent()});
    return inside;
  }
  const int atom = Atom();
  if (Take('^')) return Make(Op::kPow, {atom, Exponent()});
  return atom;
}

int Parser::Limit() {
  bool minus = false;
  for (; Now().IsChar('-') || Now().IsChar('+'); Skip()) minus = minus != Now().IsChar('-');
  const int value = Now().IsChar('{') ? Group() : Atom();
  return minus ? Make(Op::kNeg, {value}) : value;
}

int Parser::Postfix(int base) {
  while (base >= 0) {
    if (Take('!')) {
      if (Now().IsChar('!')) return Fail("double factorials are not covered");
      base = Make(Op::kFactorial, {base});
    } else if (Take('%')) {
      base = Make(Op::kPercent, {base});
    } else if (Now().IsCommand("circ")) {
      Skip();
      base = tree_.Add({.op = Op::kQuantity, .args = {base}, .unit = DegreeUnit()});
    } else {
      break;
    }
  }
  return base;
}

}  // namespace moebius::math
