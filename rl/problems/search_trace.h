// A written search for a countdown problem: tries in random order, every value computed truly. What a model
// that has seen many of them learns is to search, not which try is right.
//
//   trace = { try }                 until a try hits or the tries are used up
//   try   = expression { "=" expression } "=" number ("!" | "?")
//
// A try is an expression over the numbers and what becomes of it as one pair after the other is joined,
// innermost first; "!" where its value is the target, else "?":
//   "(3+5)-2=8-2=6?(5*2)+3=10+3=13?(3+5)*2=8*2=16!"
// Values are whole and above zero, the larger number stands before "-", no two tries of a trace are the same;
// a try that meets the target early leaves the other numbers out. The answer is the expression of the hit,
// which stands in the trace to be copied; without a hit that of the nearest try.
#pragma once

#include <cstdint>
#include <span>

#include "rl/problems/problem.h"

namespace moebius {

struct SearchOptions {
  int64_t tries = 4;  // at most
  bool division = false;
};

// `numbers` as EvaluateExpression takes them (rl/tasks/expression.h): at most 6, in [1, 999].
WorkedAnswer SearchTrace(std::span<const int64_t> numbers, int64_t target, const SearchOptions& options,
                         uint64_t seed);

}  // namespace moebius
