#include "core/tensor/arena.h"

#include <algorithm>

namespace moebius {
namespace {

constexpr int64_t kAlignment = 64;

}  // namespace

Arena::Arena(Allocator& allocator, int64_t block_bytes)
    : own_(std::in_place, allocator), pool_(*own_), block_bytes_(block_bytes) {}

Arena::Arena(BlockPool& pool, int64_t block_bytes) : pool_(pool), block_bytes_(block_bytes) {}

Arena::~Arena() {
  for (const BlockPool::Block& block : blocks_) pool_.Give(block);
}

TensorView Arena::New(DType dtype, Shape shape) {
  const int64_t bytes =
      std::max((shape.elements() * SizeOf(dtype) + kAlignment - 1) / kAlignment * kAlignment, kAlignment);
  while (block_ < blocks_.size() && used_ + bytes > blocks_[block_].bytes) {
    ++block_;
    used_ = 0;
  }
  if (block_ == blocks_.size()) {
    blocks_.push_back(pool_.Take(std::max(bytes, block_bytes_)));
  }
  void* memory = static_cast<char*>(blocks_[block_].memory) + used_;
  used_ += bytes;
  total_ += bytes;
  peak_ = std::max(peak_, total_);
  return TensorView(memory, dtype, shape);
}

void Arena::Release(Mark mark) {
  CHECK_LE(mark.total, total_);
  block_ = mark.block;
  used_ = mark.used;
  total_ = mark.total;
  if (own_) return;
  while (blocks_.size() > (used_ > 0 ? block_ + 1 : block_)) {
    pool_.Give(blocks_.back());
    blocks_.pop_back();
  }
}

}  // namespace moebius
