// Streams and events of the CPU backend. Compute runs inline in the caller's thread; exchange is a queue with
// a thread of its own, which sleeps unless something is queued.
#pragma once

#include <memory>

#include "core/backend/backend.h"

namespace moebius {

std::unique_ptr<Stream> NewCpuStream(StreamKind kind);
std::unique_ptr<Event> NewCpuEvent();

}  // namespace moebius
