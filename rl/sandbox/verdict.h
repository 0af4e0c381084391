// What became of a program on one test, and how the facts about its run make a verdict. A value, apart from
// the machinery that gathers the facts.
#pragma once

#include <string_view>

namespace moebius::sandbox {

enum class Verdict {
  kOk,
  kWrong,
  kRuntime,
  kCpu,
  kWall,
  kMem,
  kProcs,
  kDisk,
  kOutput,
  kCompile,
  kDenied,
  kHarness,  // our own fault
};

// "OK", "WRONG", ... as the answer spells them.
std::string_view VerdictName(Verdict verdict);

// The facts of one run. Limits first: a limit that was hit decides, whatever was printed.
struct RunFacts {
  bool harness = false;  // the slot could not be built, or ended without a report
  bool mem = false, cpu = false, wall = false, procs = false, disk = false, output = false;
  bool asked_memory = false;  // mapped more than the limit at once (no fault by itself)
  bool denied = false;        // a forbidden call was refused
  bool right = false;         // the result is the expected one
  bool clean_exit = false;    // exit code 0, no signal
};

// HARNESS, then limits, then the result: right and a clean exit is OK; right and no clean exit is RUNTIME;
// wrong is DENIED where a call was refused, MEM where more than the limit was asked for and the program
// failed, RUNTIME without a clean exit, else WRONG.
Verdict Decide(const RunFacts& facts);

}  // namespace moebius::sandbox
