#include "rl/sandbox/verdict.h"

namespace moebius::sandbox {

std::string_view VerdictName(Verdict verdict) {
  switch (verdict) {
    case Verdict::kOk:
      return "OK";
    case Verdict::kWrong:
      return "WRONG";
    case Verdict::kRuntime:
      return "RUNTIME";
    case Verdict::kCpu:
      return "CPU";
    case Verdict::kWall:
      return "WALL";
    case Verdict::kMem:
      return "MEM";
    case Verdict::kProcs:
      return "PROCS";
    case Verdict::kDisk:
      return "DISK";
    case Verdict::kOutput:
      return "OUTPUT";
    case Verdict::kCompile:
      return "COMPILE";
    case Verdict::kDenied:
      return "DENIED";
    case Verdict::kHarness:
      break;
  }
  return "HARNESS";
}

Verdict Decide(const RunFacts& facts) {
  if (facts.harness) return Verdict::kHarness;
  if (facts.mem) return Verdict::kMem;
  if (facts.procs) return Verdict::kProcs;
  if (facts.disk) return Verdict::kDisk;
  if (facts.output) return Verdict::kOutput;
  if (facts.cpu) return Verdict::kCpu;
  if (facts.wall) return Verdict::kWall;
  if (facts.right) return facts.clean_exit ? Verdict::kOk : Verdict::kRuntime;
  if (facts.denied) return Verdict::kDenied;
  if (facts.asked_memory && !facts.clean_exit) return Verdict::kMem;
  return facts.clean_exit ? Verdict::kWrong : Verdict::kRuntime;
}

}  // namespace moebius::sandbox
