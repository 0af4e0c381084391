// A written search for a countdown problem, depth first and in a fixed order: two of the numbers are joined,
// then every join of what is left is tried before the first one changes. Every value is computed truly. What
// a model that has seen many of them learns is to search, not which try is right.
//
//   trace = { [ head ";" ] try }         until a try hits or the searcher gives up
//   head  = [ step { "," step } ]        all steps but the last, written where it differs from the one before
//   try   = step ":" target ("!" | "?")
//   step  = number operator number "=" number
//
// A step joins two of the numbers that are left into one; "!" where the last value is the target, else "?".
// The target is written beside the value, as tiny models learn late to compare what is far apart. For 3 5 2
// and 16:
//   "3+5=8;8+2=10:16?8*2=16:16!"
// Values are whole and above zero, the larger number stands before "-", no two tries of a trace are the same;
// a try that meets the target early leaves the other numbers out. The answer is the last try as one
// expression, "(3+5)*2", whether it hits or not.
//
// Searchers differ in patience alone: a few (`patient`) search on, the others give up after a number of tries
// that is drawn evenly from 1 to `tries`. So a model sees giving up and going on as a choice, and
// reinforcement can teach it to go on.
#pragma once

#include <cstdint>
#include <span>

#include "rl/problems/problem.h"

namespace moebius {

struct SearchOptions {
  int64_t tries = 10;  // at most, of who is not patient
  double patient = 0;  // share of those who search until they hit, all is tried, or 1000 tries are made
  bool division = false;
};

// `numbers` as EvaluateExpression takes them (rl/tasks/expression.h): at most 6, in [1, 999].
WorkedAnswer SearchTrace(std::span<const int64_t> numbers, int64_t target, const SearchOptions& options,
                         uint64_t seed);

}  // namespace moebius
