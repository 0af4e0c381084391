// An exchange as counts and offsets, one piece a peer.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "parallel/comm/communicator.h"

namespace moebius {

// Bytes for each peer [size]. What i sends j is what j expects of i.
struct AllToAllVArgs {
  const void* send = nullptr;
  std::vector<int64_t> send_bytes, send_offsets;
  void* receive = nullptr;
  std::vector<int64_t> receive_bytes, receive_offsets;
};

inline std::function<PeerPieces()> PiecesOf(const AllToAllVArgs& args) {
  PeerPieces pieces;
  for (size_t peer = 0; peer < args.send_bytes.size(); ++peer) {
    char* send = static_cast<char*>(const_cast<void*>(args.send)) + args.send_offsets[peer];
    char* receive = static_cast<char*>(args.receive) + args.receive_offsets[peer];
    pieces.send.push_back({{send, args.send_bytes[peer]}});
    pieces.receive.push_back({{receive, args.receive_bytes[peer]}});
  }
  return [pieces] { return pieces; };
}

}  // namespace moebius
