// A C++ program to an executable, by g++ in a slot of its own.
#pragma once

#include <string>

#include "rl/sandbox/runner.h"
#include "rl/sandbox/test_spec.h"

namespace moebius::sandbox {

struct Compiled {
  bool ok = false;
  bool harness = false;  // our fault, not the program's
  FileDescriptor executable;
  std::string message;  // the compiler's, when not ok
};

// `script`: of an assert test, "" for the other kinds.
Compiled Compile(Runner& runner, const Job& job, const std::string& script);

}  // namespace moebius::sandbox
