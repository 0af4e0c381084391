// One slot from the caller's side: feeds it, reads what comes out with caps, and gathers the facts of the
// run.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "rl/sandbox/runner.h"
#include "rl/sandbox/verdict.h"

namespace moebius::sandbox {

struct SlotText {
  std::string name;
  std::string_view text;
};

struct SlotProgram {
  std::vector<std::string> argv;
  std::vector<SlotText> files;                 // appear as /prog/NAME
  const FileDescriptor* executable = nullptr;  // appears as /prog/main
  std::string_view input;  // standard input, a file that can be read again through /dev/stdin
  Limits limits;
  // Called with each frame that comes from descriptor 3; returns the frame to send back, "" for none. Without
  // it the program has no descriptor 3.
  std::function<std::string(const std::string& frame)> answer;
  bool want_artifact = false;
};

struct SlotResult {
  RunFacts facts;  // right is left to the caller
  int wait_status = 0;
  std::string output, error;
  std::string harness_error;  // why facts.harness
  FileDescriptor artifact;    // sealed; size 0 when the program made none
  int64_t cpu_us = 0, wall_us = 0, memory_kb = 0;
};

SlotResult RunInSlot(Runner& runner, const SlotProgram& program);

// A frame of the channel: four bytes of length, little endian, then the bytes.
std::string Frame(std::string_view bytes);

// A sealed file in memory, open for reading only. The descriptor is -1 when the system has no room.
FileDescriptor MemoryFile(std::string_view text);

}  // namespace moebius::sandbox
