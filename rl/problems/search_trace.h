// A written search for a countdown problem, depth first: two of the numbers are joined, then every join of
// what is left is tried before the first one changes; which comes first is drawn at random, every value is
// computed truly. What a model that has seen many of them learns is to search, not which try is right.
//
//   trace = { try }                 until a try hits or the searcher gives up
//   try   = step { "," step } ":" target ("!" | "?")
//   step  = number operator number "=" number
//
// A step joins two of the numbers that are left into one; "!" where the last value is the target, else "?".
// The target is written beside the value, as tiny models learn late to compare what is far apart:
//   "3+5=8,8-2=6:16?3+5=8,2+8=10:16?3+5=8,8*2=16:16!"
// How many tries are made without a hit is drawn evenly from 1 to SearchOptions::tries, so that a model sees
// giving up as a choice, and reinforcement can teach it to go on. Values are whole and above zero, the larger
// number stands before "-", no two tries of a trace are the same; a try that meets the target early leaves
// the other numbers out. The answer is the last try as one expression,
// "(3+5)*2", whether it hits or not.
#pragma once

#include <cstdint>
#include <span>

#include "rl/problems/problem.h"

namespace moebius {

struct SearchOptions {
  int64_t tries = 10;  // at most
  bool division = false;
};

// `numbers` as EvaluateExpression takes them (rl/tasks/expression.h): at most 6, in [1, 999].
WorkedAnswer SearchTrace(std::span<const int64_t> numbers, int64_t target, const SearchOptions& options,
                         uint64_t seed);

}  // namespace moebius
