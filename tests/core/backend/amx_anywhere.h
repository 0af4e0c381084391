// Lets code with AMX's instructions run on any x86-64 processor: those that it lacks are trapped (SIGILL) and
// done by software, from their bytes and registers, as the SDM describes them. So a test sees the very
// instructions that the compiler made. Where the processor has them, nothing is trapped.
#pragma once

namespace moebius {

class AmxAnywhere {
 public:
  AmxAnywhere();
  ~AmxAnywhere();
  // Attention's layout also wants vectors of AVX2 at least.
  static bool Works();

  AmxAnywhere(const AmxAnywhere&) = delete;
  AmxAnywhere& operator=(const AmxAnywhere&) = delete;
};

// Instructions done by software since the program started.
long TrappedInstructions();

}  // namespace moebius
