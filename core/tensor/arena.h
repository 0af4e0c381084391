// Arenas: memory handed out by moving a pointer, given back all at once or down to a mark, with the peak
// kept. A microbatch's Saved has arenas (Reset at its end); a call's scratch is another (ArenaScope).
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "core/tensor/block_pool.h"
#include "core/tensor/tensor.h"

namespace moebius {

class Arena {
 public:
  // Grows by blocks of at least `block_bytes`. They stay for reuse until the arena dies, or, where they come
  // from a pool, go back to it as soon as nothing is left in them.
  explicit Arena(Allocator& allocator, int64_t block_bytes = kBlockBytes);
  explicit Arena(BlockPool& pool, int64_t block_bytes = kBlockBytes);
  ~Arena();
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  // Uninitialised, 64-byte aligned, valid until Reset or a Release below it.
  TensorView New(DType dtype, Shape shape);

  struct Mark {
    size_t block = 0;
    int64_t used = 0;
    int64_t total = 0;
  };
  Mark mark() const { return {block_, used_, total_}; }
  void Release(Mark mark);
  void Reset() { Release(Mark()); }

  int64_t bytes() const { return total_; }      // handed out now
  int64_t peak_bytes() const { return peak_; }  // the most ever handed out

 private:
  static constexpr int64_t kBlockBytes = int64_t{16} << 20;

  std::optional<BlockPool> own_;
  BlockPool& pool_;
  const int64_t block_bytes_;
  std::vector<BlockPool::Block> blocks_;
  size_t block_ = 0;  // the block that is being filled
  int64_t used_ = 0;  // bytes of it that are taken
  int64_t total_ = 0;
  int64_t peak_ = 0;
};

// Gives back at the end of a scope what was taken inside it.
class ArenaScope {
 public:
  explicit ArenaScope(Arena& arena) : arena_(arena), mark_(arena.mark()) {}
  ~ArenaScope() { arena_.Release(mark_); }
  ArenaScope(const ArenaScope&) = delete;
  ArenaScope& operator=(const ArenaScope&) = delete;

 private:
  Arena& arena_;
  Arena::Mark mark_;
};

}  // namespace moebius
