// The one implementation of Communicator: collectives as phases of messages over any transport.
#pragma once

#include <memory>

#include "parallel/comm/communicator.h"
#include "parallel/comm/operation.h"

namespace moebius {

std::unique_ptr<Communicator> NewGroup(RankState* state, std::shared_ptr<const GroupInfo> info);

}  // namespace moebius
