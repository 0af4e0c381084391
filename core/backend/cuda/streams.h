// Streams and events of the CUDA backend. A compute stream is a CUDA stream; exchange streams are the host
// queues of every backend. An event is a counter in pinned memory: compute streams write it and wait for it
// on the device, the exchange thread reads and writes it, so neither holds up the thread that launches.
#pragma once

#include <memory>

#include "core/backend/backend.h"

namespace moebius::cuda {

std::unique_ptr<Stream> NewComputeStream(int device);
std::unique_ptr<Event> NewEvent();

}  // namespace moebius::cuda
