// A backend of plain loops in double, straight from the comments of kernel_args.h: layers are tested on it
// too, so that a failure tells a layer's mistake from a kernel's. Not for speed.
#pragma once

#include <memory>

#include "core/backend/backend.h"

namespace moebius {

std::unique_ptr<Backend> MakePlainBackend();

}  // namespace moebius
