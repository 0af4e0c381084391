#include "core/tensor/arena.h"

#include <algorithm>

namespace moebius {
namespace {

constexpr int64_t kAlignment = 64;

}  // namespace

Arena::Arena(Allocator& allocator, int64_t block_bytes) : allocator_(allocator), block_bytes_(block_bytes) {}

Arena::~Arena() {
  for (const Block& block : blocks_) allocator_.Free(block.memory);
}

TensorView Arena::New(DType dtype, Shape shape) {
  const int64_t bytes =
      std::max((shape.elements() * SizeOf(dtype) + kAlignment - 1) / kAlignment * kAlignment, kAlignment);
  while (block_ < blocks_.size() && used_ + bytes > blocks_[block_].bytes) {
    ++block_;
    used_ = 0;
  }
  if (block_ == blocks_.size()) {
    const int64_t size = std::max(bytes, block_bytes_);
    blocks_.push_back({allocator_.Allocate(size), size});
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
}

int64_t Arena::reserved_bytes() const {
  int64_t bytes = 0;
  for (const Block& block : blocks_) bytes += block.bytes;
  return bytes;
}

}  // namespace moebius
