// From a program and its tests to an answer. Comparing is done here, outside every slot.
#pragma once

#include <string>
#include <vector>

#include "rl/sandbox/runner.h"
#include "rl/sandbox/test_spec.h"
#include "rl/sandbox/verdict.h"

namespace moebius::sandbox {

struct TestAnswer {
  Verdict verdict = Verdict::kHarness;
  int64_t cpu_ms = 0, wall_ms = 0, memory_kb = 0;
};

struct Answer {
  Verdict verdict = Verdict::kHarness;  // the first that is not OK
  int passed = 0;
  std::vector<TestAnswer> tests;
  std::string message;  // compiler's words, or why HARNESS; cut short
};

// Runs every test, each in a slot of its own; may be called from several threads. Blocks.
Answer JudgeJob(Runner& runner, const Job& job);

// One line of JSON without the newline.
std::string PrintAnswer(const Answer& answer);

}  // namespace moebius::sandbox
