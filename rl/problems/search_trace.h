// A written search for a countdown problem: tries in random order, every value computed truly. What a model
// that has seen many of them learns is to search, not which try is right.
//
//   trace = { try }            until a try hits or the tries are used up
//   try   = step { "," step } ("!" | "?")     "!": the last value is the target; "?": it is not
//   step  = number op number "=" number
//
// A try joins two of the numbers left into their value, again and again, and stops early at the target:
// "3+5=8,8-2=6?5*2=10,10+3=13?3+5=8,8*2=16!" for 3 5 2 -> 16. Values are whole and above zero, the larger
// number stands before "-", no two tries of a trace are the same. The answer of a hit is its expression with
// every step in parentheses but the last, "(3+5)*2"; without a hit it is that of the nearest try.
//
// Three numbers up to 9: 4 tries take 52 bytes with the answer on average and at most 72, and 40 % of them
// hit; 6 tries 68, 102 and 53 %.
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
