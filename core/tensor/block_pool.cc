#include "core/tensor/block_pool.h"

namespace moebius {

BlockPool::~BlockPool() {
  for (const auto& [bytes, blocks] : kept_) {
    for (void* const memory : blocks) allocator_.Free(memory);
  }
}

BlockPool::Block BlockPool::Take(int64_t bytes) {
  const auto kept = kept_.lower_bound(bytes);
  if (kept == kept_.end() || kept->first / 2 > bytes) {
    bytes_ += bytes;
    return {allocator_.Allocate(bytes), bytes};
  }
  const Block block{kept->second.back(), kept->first};
  kept->second.pop_back();
  if (kept->second.empty()) kept_.erase(kept);
  return block;
}

}  // namespace moebius
