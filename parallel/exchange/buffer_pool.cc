#include "parallel/exchange/buffer_pool.h"

#include <utility>

namespace moebius {

BufferPool::Buffer& BufferPool::Buffer::operator=(Buffer&& other) noexcept {
  Release();
  pool_ = std::exchange(other.pool_, nullptr);
  memory_ = std::move(other.memory_);
  return *this;
}

void BufferPool::Buffer::Release() {
  if (pool_ != nullptr) pool_->Give(std::move(memory_));
  pool_ = nullptr;
}

TensorView BufferPool::Buffer::View(DType dtype, Shape shape, int64_t offset) const {
  const TensorView all = memory_.tensor.view();
  const TensorView view(all.as<uint8_t>() + offset, dtype, shape);
  CHECK_LE(offset + view.bytes(), all.bytes());
  return view;
}

BufferPool::Buffer BufferPool::Take(int64_t bytes) {
  std::lock_guard lock(mutex_);
  // A much larger one is left for who needs it.
  for (auto found = free_.lower_bound(bytes); found != free_.end() && found->first <= 2 * bytes + (64 << 10);
       ++found) {
    if (!found->second.passed->Done()) continue;
    Memory memory = std::move(found->second);
    free_.erase(found);
    return Buffer(this, std::move(memory));
  }
  const int64_t rounded = (bytes + bytes / 8 + 4095) / 4096 * 4096 + 4096;
  reserved_ += rounded;
  return Buffer(this, {Tensor(backend_, DType::kU8, {rounded}), backend_.NewEvent()});
}

void BufferPool::Give(Memory memory) {
  compute_.Record(*memory.passed);
  std::lock_guard lock(mutex_);
  const int64_t bytes = memory.tensor.view().bytes();
  free_.emplace(bytes, std::move(memory));
}

int64_t BufferPool::reserved_bytes() const {
  std::lock_guard lock(mutex_);
  return reserved_;
}

}  // namespace moebius
