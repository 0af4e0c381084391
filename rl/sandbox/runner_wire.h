// A SlotRequest as one message between Runner and its process: JSON and the descriptors beside it.
#pragma once

#include "absl/status/status.h"
#include "rl/sandbox/slot.h"

namespace moebius::sandbox {

// Both ends are SOCK_SEQPACKET. Errors say what the system said.
absl::Status SendRequest(int socket, const SlotRequest& request);

enum class Received { kRequest, kNothing, kEnd };  // kNothing: a message that is no request
Received ReceiveRequest(int socket, SlotRequest* request);

}  // namespace moebius::sandbox
