// Messages over the sockets of tcp_process.h; of host memory (staged.h).
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "parallel/comm/transport.h"

namespace moebius {

struct TcpLink {
  int socket = -1;  // connected; -1: to itself
  std::string in;   // read, but not a whole frame, or the next transport's
};

// links by rank; they outlive it. One transport at a time uses them.
std::unique_ptr<Transport> NewTcpTransport(int rank, std::vector<TcpLink>& links);

}  // namespace moebius
