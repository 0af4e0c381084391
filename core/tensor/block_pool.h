// Blocks of memory that the arenas of one rank take turns with: what one microbatch has let go of, the next
// one finds. For one thread, and for users whose work on a block is over, or in order on the rank's compute
// stream, when they give it back.
#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "core/tensor/tensor.h"

namespace moebius {

class BlockPool {
 public:
  // The allocator outlives the pool, the pool whoever took blocks.
  explicit BlockPool(Allocator& allocator) : allocator_(allocator) {}
  ~BlockPool();
  BlockPool(const BlockPool&) = delete;
  BlockPool& operator=(const BlockPool&) = delete;

  struct Block {
    void* memory = nullptr;
    int64_t bytes = 0;
  };
  // Of `bytes` or more, up to twice as many. Where there is none, smaller ones go back to the allocator
  // first: sizes that vary from step to step do not pile up.
  Block Take(int64_t bytes);
  void Give(Block block) { kept_[block.bytes].push_back(block.memory); }

  int64_t bytes() const { return bytes_; }  // held from the allocator, in use or not

 private:
  Block Pop(std::map<int64_t, std::vector<void*>>::iterator kept);

  Allocator& allocator_;
  std::map<int64_t, std::vector<void*>> kept_;  // by size, the last one given last
  int64_t bytes_ = 0;
};

}  // namespace moebius
