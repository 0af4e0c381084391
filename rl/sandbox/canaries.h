// Six things that must fail in a slot, tried in a real slot before the first program: a planted secret file,
// a listener on the loopback, signals and ptrace to the processes around, forks over the limit, writing
// outside. And memory over the limit, which must end the slot.
#pragma once

#include <string>
#include <vector>

#include "rl/sandbox/runner.h"

namespace moebius::sandbox {

struct Canary {
  std::string name;
  bool held = false;
  std::string layers;  // what holds it here
  std::string seen;    // what happened
};

// Runs all. An entry "slot" that is not held means that no slot could be built, and why.
std::vector<Canary> TryCanaries(Runner& runner);

// In the slot instead of a program (argv {"", secret, port, abstract name, outside folder}); prints what
// succeeded and exits.
[[noreturn]] void RunCanaryProbe(const std::vector<std::string>& argv);

}  // namespace moebius::sandbox
