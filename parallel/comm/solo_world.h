// A world of one rank, in the calling thread.
#pragma once

#include "parallel/comm/in_process.h"
#include "parallel/comm/world.h"

namespace moebius {

class SoloWorld {
 public:
  World& operator*() { return world_; }

 private:
  InProcessHub hub_{1};
  World world_{hub_.NewTransport(0), {0}, 0, {}};
};

}  // namespace moebius
