// A transport over another one, of processes, that takes a device's memory too: through pinned host memory,
// with a copy before it is sent or after it has come. The other one sees host memory alone.
#pragma once

#include <memory>

#include "parallel/comm/transport.h"

namespace moebius {

std::unique_ptr<Transport> NewStagedTransport(std::unique_ptr<Transport> inner);

}  // namespace moebius
