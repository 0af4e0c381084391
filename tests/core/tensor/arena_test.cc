#include "core/tensor/arena.h"

#include <cstdlib>
#include <cstring>

#include "core/base/random.h"
#include "gtest/gtest.h"

namespace moebius {
namespace {

class HeapAllocator final : public Allocator {
 public:
  void* Allocate(int64_t bytes) override {
    ++blocks;
    return std::aligned_alloc(64, (bytes + 127) / 64 * 64);
  }
  void Free(void* memory) override {
    --blocks;
    std::free(memory);
  }
  int blocks = 0;
};

TEST(ArenaTest, HandsOutAlignedMemoryThatDoesNotOverlap) {
  HeapAllocator heap;
  Arena arena(heap, 4096);
  std::vector<TensorView> views;
  for (int i = 1; i < 60; ++i) {
    views.push_back(arena.New(DType::kU8, {i * 7}));
    EXPECT_EQ(reinterpret_cast<uintptr_t>(views.back().data) % 64, 0u);
    std::memset(views.back().data, i, views.back().bytes());
  }
  for (int i = 1; i < 60; ++i) {
    for (int64_t b = 0; b < views[i - 1].bytes(); ++b) ASSERT_EQ(views[i - 1].as<uint8_t>()[b], i);
  }
}

TEST(ArenaTest, ReusesWhatWasReleasedAndKeepsThePeak) {
  HeapAllocator heap;
  {
    Arena arena(heap, 1024);
    const TensorView kept = arena.New(DType::kF32, {16});
    void* first;
    {
      ArenaScope scope(arena);
      first = arena.New(DType::kF32, {100}).data;
      EXPECT_EQ(arena.bytes(), 64 + 448);
    }
    EXPECT_EQ(arena.bytes(), 64);
    EXPECT_EQ(arena.New(DType::kF32, {10}).data, first);
    EXPECT_NE(kept.data, first);
    EXPECT_EQ(arena.peak_bytes(), 512);
    arena.Reset();
    EXPECT_EQ(arena.bytes(), 0);
    EXPECT_EQ(arena.peak_bytes(), 512);
    EXPECT_EQ(arena.New(DType::kF32, {1}).data, kept.data);
    EXPECT_EQ(heap.blocks, 1);
  }
  EXPECT_EQ(heap.blocks, 0);
}

TEST(ArenaTest, GrowsByBlocksAndTakesLargerPiecesToo) {
  HeapAllocator heap;
  Arena arena(heap, 1024);
  for (int step = 0; step < 3; ++step) {
    arena.New(DType::kU8, {1000});
    const Arena::Mark mark = arena.mark();
    std::memset(arena.New(DType::kU8, {5000}).data, 1, 5000);
    arena.New(DType::kU8, {600});
    arena.Release(mark);
    std::memset(arena.New(DType::kU8, {2000}).data, 2, 2000);
    arena.Reset();
  }
  EXPECT_EQ(heap.blocks, 3) << "blocks are kept for reuse";
}

TEST(ArenaTest, ArenasOfAPoolTakeTurnsWithItsBlocks) {
  HeapAllocator heap;
  {
    BlockPool pool(heap);
    Arena one(pool, 1024), two(pool, 1024);
    const TensorView kept = one.New(DType::kU8, {512});
    const Arena::Mark mark = one.mark();
    const TensorView large = one.New(DType::kU8, {4096});
    EXPECT_EQ(pool.bytes(), 5 * 1024);
    one.Release(mark);
    EXPECT_EQ(two.New(DType::kU8, {3000}).data, large.data);
    EXPECT_EQ(one.New(DType::kU8, {512}).data, static_cast<char*>(kept.data) + 512) << "its own block stays";
    two.Reset();
    // Too large a block is kept for who needs it.
    EXPECT_NE(two.New(DType::kU8, {64}).data, large.data);
    EXPECT_EQ(one.New(DType::kU8, {4096}).data, large.data);
    EXPECT_EQ(pool.bytes(), 6 * 1024);
    one.Reset();
    EXPECT_EQ(two.New(DType::kU8, {1024}).data, kept.data);
  }
  EXPECT_EQ(heap.blocks, 0);
}

// As answers of other lengths bring them.
TEST(ArenaTest, SizesThatVaryDoNotPileUpInAPool) {
  HeapAllocator heap;
  BlockPool pool(heap);
  const RandomStream random(1, "sizes");
  int64_t most = 0;
  for (int step = 0; step < 200; ++step) {
    Arena arena(pool, 1024);
    const auto rows = static_cast<int64_t>(100 + random.Below(step, 300));
    for (const int64_t width : {64, 16, 256, 1}) {
      for (int layer = 0; layer < 10; ++layer) arena.New(DType::kU8, {rows, width});
    }
    most = std::max(most, arena.bytes());
  }
  EXPECT_LT(pool.bytes(), 1.5 * static_cast<double>(most));
}

TEST(ArenaTest, EmptyTensorsHaveAnAddress) {
  HeapAllocator heap;
  Arena arena(heap);
  EXPECT_TRUE(arena.New(DType::kF32, {0, 8}));
}

}  // namespace
}  // namespace moebius
