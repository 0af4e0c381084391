// A transport over another one, of processes, that takes device memory straight from device to device (NCCL).
// Host memory, and everything where devices have no channels, goes the other's way.
//
// Each ordered pair of ranks that ever exchanges a device's memory has a channel, opened by its first
// message. Its messages must be transferred in one order on both ends, but a rank's streams reach their calls
// in any order. So the ends agree over the other transport first: the receiver says that its memory is ready,
// the sender answers with the message's turn, and both transfer by turns. So a transfer begins only when both
// ends are there: no device ever spins for a slow peer, and no order of calls can lock two of them.
#pragma once

#include <memory>

#include "parallel/comm/transport.h"

namespace moebius {

std::unique_ptr<Transport> NewDirectTransport(std::unique_ptr<Transport> inner);

}  // namespace moebius
