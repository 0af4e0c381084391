#include "parallel/buffer_pool.h"

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
  const TensorView view(memory_.view().as<uint8_t>() + offset, dtype, shape);
  CHECK_LE(offset + view.bytes(), memory_.view().bytes());
  return view;
}

BufferPool::Buffer BufferPool::Take(int64_t bytes) {
  std::lock_guard lock(mutex_);
  const auto found = free_.lower_bound(bytes);
  // A much larger one is left for who needs it.
  if (found != free_.end() && found->first <= 2 * bytes + (64 << 10)) {
    Tensor memory = std::move(found->second);
    free_.erase(found);
    return Buffer(this, std::move(memory));
  }
  const int64_t rounded = (bytes + bytes / 8 + 4095) / 4096 * 4096 + 4096;
  reserved_ += rounded;
  return Buffer(this, Tensor(allocator_, DType::kU8, {rounded}));
}

void BufferPool::Give(Tensor memory) {
  std::lock_guard lock(mutex_);
  const int64_t bytes = memory.view().bytes();
  free_.emplace(bytes, std::move(memory));
}

int64_t BufferPool::reserved_bytes() const {
  std::lock_guard lock(mutex_);
  return reserved_;
}

}  // namespace moebius
