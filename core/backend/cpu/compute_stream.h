// The CPU backend's compute stream: work runs inline, in the caller's thread. Its events are HostEvents.
#pragma once

#include <memory>

#include "core/backend/backend.h"

namespace moebius {

std::unique_ptr<Stream> NewCpuComputeStream();

}  // namespace moebius
