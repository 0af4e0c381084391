// Tokens of cleaned LaTeX or plain mathematics.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "rl/math/number.h"
#include "rl/math/units.h"

namespace moebius::math {

enum class TokenKind {
  kEnd,
  kNumber,   // value; text: the digits as written
  kLetter,   // text: a symbol's name
  kCommand,  // text: name without backslash ("frac", "{" and "}" for set braces, "$" for the currency sign)
  kChar,     // text: one ASCII character; { and } group
  kWord,     // text: words that are no mathematics
  kUnit,     // unit
};

struct Token {
  TokenKind kind = TokenKind::kEnd;
  std::string text = {};
  Rational value = {};
  int digits = 0;             // kNumber with a decimal point: significant digits
  bool space_before = false;  // white space or a spacing command stood before it
  Unit unit = {};

  bool Is(TokenKind k, std::string_view t) const { return kind == k && text == t; }
  bool IsChar(char c) const { return kind == TokenKind::kChar && text[0] == c; }
  bool IsCommand(std::string_view name) const { return Is(TokenKind::kCommand, name); }
};

struct LexOptions {
  bool comma_thousands = true;  // outside of brackets 1,000 is a number, not two
  int max_tokens = 20000;
};

// Tokens with a kEnd at the end; redundant nested brackets such as ((x)) are reduced to (x) here, so that
// their depth costs nothing later. False with `why` if the text is too long or has characters that mean
// nothing.
bool Lex(std::string_view ascii, const LexOptions& options, std::vector<Token>* tokens, std::string* why);

// Names of functions that are written before their argument.
bool IsFunctionName(std::string_view name);

}  // namespace moebius::math
