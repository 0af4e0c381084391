// What a kernel call needs beside its arguments: the device, the stream, scratch memory, and where time is
// kept.
#pragma once

#include "core/backend/backend.h"
#include "core/backend/profile.h"
#include "core/tensor/arena.h"

namespace moebius {

struct Context {
  Backend& backend;
  Stream& stream;
  Arena& scratch;                    // stack scratch: take it under an ArenaScope
  KernelProfile* profile = nullptr;  // counts time and work of every kernel when given
};

}  // namespace moebius
