// What all groups of one rank share.
#pragma once

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "parallel/comm/links.h"
#include "parallel/comm/open_operations.h"

namespace moebius {

// Memory for contributions on their way into a sum, kept for the next one: fresh pages cost about as much as
// the sum itself. Used by the rank's exchange thread alone.
class ScratchPool {
 public:
  struct Block {
    int64_t bytes = 0;
    std::unique_ptr<char[]> memory;
  };

  Block Take(int64_t bytes) {
    Block block;
    if (!free_.empty()) {
      block = std::move(free_.back());
      free_.pop_back();
    }
    // Too small a block goes: there are never more of them than calls were open at once.
    if (block.bytes < bytes) block = {bytes, std::unique_ptr<char[]>(new char[bytes])};
    return block;
  }
  void Return(Block block) { free_.push_back(std::move(block)); }

 private:
  std::vector<Block> free_;
};

struct RankState {
  std::unique_ptr<LinkTransport> transport;
  bool ledger = true;
  int next_context = 1;  // 0 is the group of all ranks
  OpenOperations open;
  ScratchPool scratch;
};

}  // namespace moebius
