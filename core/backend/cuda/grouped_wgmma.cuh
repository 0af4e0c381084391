// The kernel of grouped_wgmma.h. In the names of a product c = a · b:
//   kind              a [m, k]   b [k, n]    c [m, n]        m                 n    k
//   kForward          x          w[g]ᵀ       y     (=)       rows of group g   out  in
//   kBackwardInput    y          w[g]        x     (=)       rows of group g   in   out
//   kBackwardWeight   yᵀ         x           w[g]  (+=) f32  out               in   rows of group g
// Only sm_90a has code for it.
#pragma once

#include <cuda.h>
#include <cuda_bf16.h>

#include "core/backend/cuda/grouped_tiles.cuh"
#include "core/backend/cuda/hopper.cuh"
#include "core/backend/cuda/wgmma.cuh"
#include "core/backend/cuda/wgmma_results.cuh"

namespace moebius::cuda {

constexpr int kConsumerThreads = 256;
constexpr int kWgmmaThreads = 128 + kConsumerThreads;
constexpr uint32_t kRowBytes = kTileTerms * 2;  // of a box in shared memory
constexpr uint32_t kBoxBytes = 64 * kRowBytes;  // 64 rows
constexpr uint32_t kABytes = kTileRows * kTileTerms * 2;

template <int kTileColumns>
constexpr uint32_t kStageBytes = kABytes + kTileColumns* kTileTerms * 2;
template <int kTileColumns>
constexpr int kStages = 192 * 1024 / kStageBytes<kTileColumns>;
// Stages start at a multiple of 1024, as swizzled boxes must; then two barriers a stage.
template <int kTileColumns>
constexpr uint32_t kSharedBytes = 1024 + kStages<kTileColumns>*(kStageBytes<kTileColumns> + 16);

struct WgmmaArgs {
  const int64_t* offsets;  // [groups + 1]
  void* c;
  int64_t c_stride;
  int groups;
  int out;
  int in;
};

// Where the pipeline is: stage, and how often it has been used, modulo 2.
template <int kCount>
struct Ring {
  uint32_t stage = 0;
  uint32_t parity = 0;
  __device__ __forceinline__ void Step() {
    if (++stage == kCount) stage = 0, parity ^= 1;
  }
};

// Shared memory of a block: stages of a's and b's tiles, a barrier each that says full and empty.
template <int kTileColumns>
struct Stages {
  uint32_t base;
  __device__ __forceinline__ uint32_t A(uint32_t stage) const {
    return base + stage * kStageBytes<kTileColumns>;
  }
  __device__ __forceinline__ uint32_t B(uint32_t stage) const { return A(stage) + kABytes; }
  __device__ __forceinline__ uint32_t Full(uint32_t stage) const {
    return base + kStages<kTileColumns> * kStageBytes<kTileColumns> + stage * 16;
  }
  __device__ __forceinline__ uint32_t Empty(uint32_t stage) const { return Full(stage) + 8; }
};

// Blocks of a cluster take adjacent tiles of rows of the same columns, and each copies a part of b to all.
template <GroupedProductKind kKind, int kTileColumns, int kCluster>
struct GroupedKernel {
  static constexpr bool kForward = kKind == GroupedProductKind::kForward;
  static constexpr bool kWeight = kKind == GroupedProductKind::kBackwardWeight;
  static constexpr Major kA = kWeight ? Major::kMN : Major::kK;
  static constexpr Major kB = kForward ? Major::kK : Major::kMN;
  static constexpr int kCount = kStages<kTileColumns>;
  static constexpr int kBoxes = kTileColumns / 64;  // of b when its rows lie along n
  using Walk = TileWalk<kKind, kTileColumns, kCluster * kTileRows>;
  using Memory = Stages<kTileColumns>;

  static __device__ __forceinline__ int Columns(const WgmmaArgs& args) {
    return kForward ? args.out : args.in;
  }
  static __device__ __forceinline__ Walk NewWalk(const WgmmaArgs& args) {
    return Walk(args.offsets, args.groups, 0, args.out, Columns(args),
                static_cast<int>(blockIdx.x) / kCluster, static_cast<int>(gridDim.x) / kCluster);
  }
  static __device__ __forceinline__ bool Next(Walk& walk, GroupedTile* tile, int rank) {
    const bool more = walk.Next(tile);
    tile->row += rank * kTileRows;
    return more;
  }
  static __device__ __forceinline__ int Blocks(const WgmmaArgs& args, const GroupedTile& tile) {
    const int terms = kForward ? args.in : kWeight ? tile.end - tile.begin : args.out;
    return (terms + kTileTerms - 1) / kTileTerms;
  }

  // One thread: copies the tiles' terms into the stages, as far ahead of the consumers as there is room.
  static __device__ __forceinline__ void Produce(const CUtensorMap* a, const CUtensorMap* b,
                                                 const WgmmaArgs& args, Memory memory, int rank) {
    Walk walk = NewWalk(args);
    Ring<kCount> ring;
    GroupedTile tile;
    while (Next(walk, &tile, rank)) {
      const int blocks = Blocks(args, tile);
      for (int block = 0; block < blocks; ++block, ring.Step()) {
        const uint32_t full = memory.Full(ring.stage), to_a = memory.A(ring.stage),
                       to_b = memory.B(ring.stage);
        WaitBarrier(memory.Empty(ring.stage), ring.parity ^ 1);
        ArriveExpecting(full, kStageBytes<kTileColumns>);
        const int term = block * kTileTerms;
        if constexpr (kWeight) {
          CopyBox(a, tile.row, tile.begin + term, to_a, full);
          CopyBox(a, tile.row + 64, tile.begin + term, to_a + kBoxBytes, full);
        } else {
          CopyBox(a, term, tile.row, to_a, full);
        }
        if constexpr (kForward) {
          constexpr int kLines = kTileColumns / kCluster;
          const int line = tile.group * args.out + tile.column + rank * kLines;
          CopyB(b, term, line, to_b + rank * (kLines * kRowBytes), full);
        } else {
          const int row = kWeight ? tile.begin + term : tile.group * args.out + term;
#pragma unroll
          for (int i = 0; i < kBoxes / kCluster; ++i) {
            const int box = rank * (kBoxes / kCluster) + i;
            CopyB(b, tile.column + box * 64, row, to_b + box * kBoxBytes, full);
          }
        }
        if constexpr (kWeight) PrefetchResult(args, tile, block, blocks);
      }
    }
  }

  static __device__ __forceinline__ void CopyB(const CUtensorMap* b, int column, int row, uint32_t to,
                                               uint32_t full) {
    if constexpr (kCluster == 1) {
      CopyBox(b, column, row, to, full);
    } else {
      CopyBoxToBoth(b, column, row, to, full);
    }
  }

  // Asks for the rows of w that the tile will be added to, some with each of its blocks, so that the
  // consumers find them in the second-level cache.
  static __device__ __forceinline__ void PrefetchResult(const WgmmaArgs& args, const GroupedTile& tile,
                                                        int block, int blocks) {
    const int share = (kTileRows + blocks - 1) / blocks;
    const int from = tile.row + block * share, to = min(min(from + share, tile.row + kTileRows), args.out);
    const uint32_t bytes = min(kTileColumns, args.in - tile.column) * 4;
    const float* w =
        static_cast<const float*>(args.c) + int64_t{tile.group} * args.out * args.c_stride + tile.column;
    for (int row = from; row < to; ++row) PrefetchToL2(w + row * args.c_stride, bytes);
  }

  // Clears rows [rows, 64) of a stage's boxes, which are terms of the next group or of none. All consumers
  // call it, after the stage is full.
  static __device__ __forceinline__ void ClearTerms(uint32_t stage, int rows, int thread) {
    constexpr int kPieces = kStageBytes<kTileColumns> / kBoxBytes * 8;  // of 16 bytes, a row of all boxes
    for (int i = rows * kPieces + thread; i < kTileTerms * kPieces; i += kConsumerThreads) {
      const int row = i / kPieces, piece = i % kPieces;
      const uint32_t at = stage + piece / 8 * kBoxBytes + row * kRowBytes + piece % 8 * 16;
      asm volatile("st.shared.v4.b32 [%0], {%1, %1, %1, %1};" ::"r"(at), "r"(0) : "memory");
    }
    PublishShared();
    SyncThreads(1, kConsumerThreads);
  }

  // A warpgroup: half of a tile's rows, 64 x kTileColumns, in registers.
  static __device__ __forceinline__ void Consume(const WgmmaArgs& args, Memory memory, int rank) {
    const int thread = threadIdx.x - 128, half = thread / 128;
    Walk walk = NewWalk(args);
    Ring<kCount> ring;
    GroupedTile tile;
    float sums[kTileColumns / 2];
    while (Next(walk, &tile, rank)) {
      const int blocks = Blocks(args, tile);
      uint32_t before = 0;
      for (int block = 0; block < blocks; ++block) {
        WaitBarrier(memory.Full(ring.stage), ring.parity);
        if constexpr (kWeight) {
          const int rows = tile.end - tile.begin - block * kTileTerms;
          if (rows < kTileTerms) ClearTerms(memory.A(ring.stage), rows, thread);
        }
        const uint64_t a = TileDescriptor<kA>(memory.A(ring.stage) + half * kBoxBytes, kBoxBytes);
        const uint64_t b = TileDescriptor<kB>(memory.B(ring.stage), kBoxBytes);
        WgmmaFence();
#pragma unroll
        for (int i = 0; i < kTileTerms / 16; ++i) {
          Wgmma<kA, kB>(sums, a + i * kTermsStep<kA>, b + i * kTermsStep<kB>, block > 0 || i > 0);
        }
        WgmmaCommit();
        if (block > 0) {
          WgmmaWait<1>();
          ReleaseStage<kCluster>(memory.Empty(before));
        }
        before = ring.stage;
        ring.Step();
      }
      WgmmaWait<0>();
      Pin(sums);
      ReleaseStage<kCluster>(memory.Empty(before));
      const int row = tile.row + half * 64 + thread % 128 / 32 * 16 + thread % 32 / 4;
      if constexpr (kWeight) {
        AddToFloats(static_cast<float*>(args.c) + int64_t{tile.group} * args.out * args.c_stride,
                    args.c_stride, row, args.out, tile.column, args.in, sums);
      } else {
        StoreBf16(static_cast<__nv_bfloat16*>(args.c), args.c_stride, row, tile.end, tile.column,
                  Columns(args), sums);
      }
    }
  }
};

// A block takes tiles of 128 x kTileColumns of c one after another. Its first warpgroup copies (one thread of
// it), the others multiply, 64 rows of the tile each; stages of 64 terms go round between them.
template <GroupedProductKind kKind, int kTileColumns, int kCluster>
__global__ void __launch_bounds__(kWgmmaThreads, 1)
    GroupedWgmmaKernel(const __grid_constant__ CUtensorMap a, const __grid_constant__ CUtensorMap b,
                       const WgmmaArgs args) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  using Kernel = GroupedKernel<kKind, kTileColumns, kCluster>;
  extern __shared__ uint8_t shared[];
  const Stages<kTileColumns> memory{(SharedAddress(shared) + 1023) / 1024 * 1024};
  const int rank = kCluster == 1 ? 0 : static_cast<int>(ClusterRank());
  if (threadIdx.x == 0) {
    PrefetchMap(&a);
    PrefetchMap(&b);
    for (int i = 0; i < Kernel::kCount; ++i) {
      InitBarrier(memory.Full(i), 1);
      InitBarrier(memory.Empty(i),
                  kCluster * kConsumerThreads / 32);  // one thread of each warp of each block
    }
    PublishBarriers();
  }
  __syncthreads();
  if constexpr (kCluster > 1) SyncCluster();
  if (threadIdx.x < 128) {
    GiveRegistersBack<40>();
    if (threadIdx.x == 0) Kernel::Produce(&a, &b, args, memory, rank);
  } else {
    TakeRegisters<232>();
    Kernel::Consume(args, memory, rank);
  }
  // The other block's copies and arrivals come here until it is done.
  if constexpr (kCluster > 1) SyncCluster();
#endif
}

}  // namespace moebius::cuda
