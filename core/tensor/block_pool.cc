#include "core/tensor/block_pool.h"

#include <iterator>

namespace moebius {

BlockPool::~BlockPool() {
  for (const auto& [bytes, blocks] : kept_) {
    for (void* const memory : blocks) allocator_.Free(memory);
  }
}

BlockPool::Block BlockPool::Take(int64_t bytes) {
  const auto kept = kept_.lower_bound(bytes);
  if (kept != kept_.end() && kept->first / 2 <= bytes) return Pop(kept);
  for (int64_t freed = 0; freed < bytes;) {
    const auto above = kept_.lower_bound(bytes);
    if (above == kept_.begin()) break;
    const Block smaller = Pop(std::prev(above));
    allocator_.Free(smaller.memory);
    freed += smaller.bytes;
    bytes_ -= smaller.bytes;
  }
  bytes_ += bytes;
  return {allocator_.Allocate(bytes), bytes};
}

BlockPool::Block BlockPool::Pop(std::map<int64_t, std::vector<void*>>::iterator kept) {
  const Block block{kept->second.back(), kept->first};
  kept->second.pop_back();
  if (kept->second.empty()) kept_.erase(kept);
  return block;
}

}  // namespace moebius
