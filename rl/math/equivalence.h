// The math grader: is an answer mathematically the same as the gold answer? Own parser, no eval, no clock:
// budgets are counted, so that the same texts always get the same verdict, in any thread. docs/math_grader.md
// lists what is covered and what is a choice.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace moebius::math {

enum class Outcome {
  kEqual,
  kDifferent,
  kUndecided,  // neither was shown within the budget: leave the sample out of the advantage
};
std::string_view OutcomeName(Outcome outcome);  // "equal", "different", "undecided"

struct GradeBudget {
  int64_t max_text_bytes = 400000;   // of each text that an answer is looked for in
  int64_t max_bytes = 10000;         // of each answer
  int max_depth = 600;               // nested brackets and operators, after ((x)) is reduced to (x)
  int max_nodes = 5000;              // expression nodes of each text
  int64_t max_steps = 15000;         // evaluation steps of one grading
  int64_t max_exact_bits = 1 << 18;  // of an exact rational; larger numbers are enclosed by intervals
  int64_t max_precision = 1 << 15;   // bits of an interval's ends
};

struct GradeResult {
  Outcome outcome = Outcome::kUndecided;
  std::string reason;  // one line, lower case
};

// Compares two answers; each is the answer itself ("\frac{1}{2}", "$3$", "(B)") or a text that marks one
// (extract.h). Never fails, whatever the bytes. Takes a few milliseconds at most.
GradeResult Grade(std::string_view gold, std::string_view answer, const GradeBudget& budget);
GradeResult Grade(std::string_view gold, std::string_view answer);

}  // namespace moebius::math
