// Recursive descent from tokens to the expression tree. Nothing is evaluated here.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "rl/math/lexer.h"
#include "rl/math/tree.h"

namespace moebius::math {

struct ParseLimits {
  int max_depth = 200;
  int max_nodes = 5000;
};

struct ParseResult {
  int root = -1;             // -1: not readable as mathematics
  std::string why = {};      // then: the reason
  bool over_budget = false;  // the reason is depth or size, not the text's grammar
};

ParseResult Parse(const std::vector<Token>& tokens, const ParseLimits& limits, Tree* tree);

}  // namespace moebius::math
