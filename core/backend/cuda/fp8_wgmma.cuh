// The kernel of fp8_wgmma.h. Only sm_90a has code for it.
#pragma once

#include <cuda.h>
#include <cuda_bf16.h>

#include "core/backend/cuda/grouped_tiles.cuh"
#include "core/backend/cuda/hopper.cuh"
#include "core/backend/cuda/wgmma.cuh"
#include "core/backend/cuda/wgmma_results.cuh"

namespace moebius::cuda {

constexpr int kFp8Consumers = 256;
constexpr int kFp8Threads = 128 + kFp8Consumers;
constexpr int kFp8Terms = 128;                          // a pipeline stage, the terms that share a scale
constexpr uint32_t kFp8OperandBytes = 128 * kFp8Terms;  // of one operand in a stage
constexpr uint32_t kFp8StageBytes = 2 * kFp8OperandBytes;
constexpr int kFp8Stages = 6;
// Scales of a stage (fp8_staged.cuh): of 128 rows; of 128 columns in four pieces, which lie in different
// banks.
constexpr uint32_t kFp8ColumnPiece = 128 + 16;
constexpr uint32_t kFp8ScaleBytes = 128 * 4 + 4 * kFp8ColumnPiece;
// Stages start at a multiple of 1024, as swizzled boxes must; then two barriers a stage; then scales.
constexpr uint32_t kFp8SharedBytes = 1024 + kFp8Stages * (kFp8StageBytes + 16 + kFp8ScaleBytes);

struct Fp8Args {
  const int64_t* offsets;  // [groups + 1], or none
  const float* a_scales;
  const float* b_scales;
  int64_t a_scale_stride;
  int64_t b_scale_stride;
  void* c;
  int64_t c_stride;
  const float* bias;
  int rows;  // without offsets
  int groups;
  int m;
  int n;
  int blocks;  // of 128 terms, when groups do not have their own
  bool accumulate;
  // Tiles in parts, or none: of the tiles that a cluster takes the first whole_tiles are whole, each of the
  // other cut_tiles is cut in tile_parts; the sums of part p of cut tile i, block `rank` of its cluster, are
  // at parts + ((p * cut_tiles + i) * blocks of a cluster + rank) * 128 * 128.
  float* parts;
  int whole_tiles;
  int cut_tiles;
  int tile_parts;
};

// Shared memory of a block: stages of a's and b's tiles, a barrier each that says full and empty.
struct Fp8Memory {
  uint32_t base;
  __device__ __forceinline__ uint32_t A(uint32_t stage) const { return base + stage * kFp8StageBytes; }
  __device__ __forceinline__ uint32_t B(uint32_t stage) const { return A(stage) + kFp8OperandBytes; }
  __device__ __forceinline__ uint32_t Full(uint32_t stage) const {
    return base + kFp8Stages * kFp8StageBytes + stage * 16;
  }
  __device__ __forceinline__ uint32_t Empty(uint32_t stage) const { return Full(stage) + 8; }
  __device__ __forceinline__ uint32_t RowScales(uint32_t stage) const {
    return base + kFp8Stages * (kFp8StageBytes + 16) + stage * kFp8ScaleBytes;
  }
  __device__ __forceinline__ uint32_t ColumnScales(uint32_t stage) const {
    return RowScales(stage) + 128 * 4;
  }
};

struct Fp8Ring {
  uint32_t stage = 0;
  uint32_t parity = 0;
  __device__ __forceinline__ void Step() {
    if (++stage == kFp8Stages) stage = 0, parity ^= 1;
  }
};

// Loads that stay where they are written, ahead of the products that they will scale.
__device__ __forceinline__ float LoadScale(const float* from) {
  float x;
  asm volatile("ld.global.nc.f32 %0, [%1];" : "=f"(x) : "l"(from));
  return x;
}
__device__ __forceinline__ float2 LoadScales(const float* from) {
  float2 x;
  asm volatile("ld.global.nc.v2.f32 {%0, %1}, [%2];" : "=f"(x.x), "=f"(x.y) : "l"(from));
  return x;
}

// The scales that a thread needs for its sums: of the rows `row` and row + 8 of a, and of b's block, or of
// its columns 8 j + 2 (t % 4) and the next. Those past the end are 0.
template <bool kBlocks>
class Fp8Scales {
 public:
  __device__ __forceinline__ Fp8Scales(const Fp8Args& args, const GroupedTile& tile, int row, int row_end)
      : a_(args.a_scales + row),
        b_(args.b_scales),
        first_(kBlocks ? 0 : tile.pieces),
        column_(tile.column + threadIdx.x % 4 * 2),
        inside_{row < row_end, row + 8 < row_end} {
    if constexpr (kBlocks) {
      const int last = (args.n - 1) / 128;  // what lies beyond it is not stored
      b_ += (int64_t{tile.group} * (last + 1) + min(tile.column / 128, last)) * args.b_scale_stride;
    }
  }

  __device__ __forceinline__ void Load(const Fp8Args& args, int block) {
    const float* a = a_ + (first_ + block) * args.a_scale_stride;
    rows_[0] = inside_[0] ? LoadScale(a) : 0.0f;
    rows_[1] = inside_[1] ? LoadScale(a + 8) : 0.0f;
    if constexpr (kBlocks) {
      columns_[0].x = LoadScale(b_ + block);
    } else {
      const float* b = b_ + (first_ + block) * args.b_scale_stride + column_;
#pragma unroll
      for (int j = 0; j < 16; ++j) {
        columns_[j] = column_ + j * 8 < args.n ? LoadScales(b + j * 8) : make_float2(0, 0);
      }
    }
  }

  // sums += products times scales.
  __device__ __forceinline__ void Add(const float (&products)[64], float (&sums)[64]) const {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const float block = rows_[h] * columns_[0].x;
#pragma unroll
      for (int j = 0; j < 16; ++j) {
        const int i = 4 * j + 2 * h;
        const float first = kBlocks ? block : rows_[h] * columns_[kBlocks ? 0 : j].x;
        const float second = kBlocks ? block : rows_[h] * columns_[kBlocks ? 0 : j].y;
        sums[i] = fmaf(products[i], first, sums[i]);
        sums[i + 1] = fmaf(products[i + 1], second, sums[i + 1]);
      }
    }
  }

 private:
  const float* a_;
  const float* b_;
  int64_t first_;
  int column_;
  bool inside_[2];
  float rows_[2];
  float2 columns_[kBlocks ? 1 : 16];
};

// A walk over whole tiles, then over parts of tiles: every step-th.
template <typename Walk>
class WalkOfParts {
 public:
  __device__ WalkOfParts(const Fp8Args& args, int first, int step)
      : args_(args),
        walk_(args.offsets, args.groups, args.rows, args.m, args.n, first, step),
        next_(first),
        step_(step) {}

  __device__ bool Next(GroupedTile* tile) {
    if (args_.parts == nullptr) return walk_.Next(tile);
    const int i = next_ - args_.whole_tiles;
    if (i >= args_.cut_tiles * args_.tile_parts) return false;
    walk_.At(i < 0 ? next_ : args_.whole_tiles + i % args_.cut_tiles, tile);
    next_ += step_;
    tile->part = -1;
    if (i >= 0) {
      const int part = i / args_.cut_tiles;
      tile->part = i;
      tile->pieces = args_.blocks * part / args_.tile_parts;
      tile->begin = tile->pieces * kFp8Terms;
      tile->end = args_.blocks * (part + 1) / args_.tile_parts * kFp8Terms;
    }
    return true;
  }

 private:
  const Fp8Args& args_;
  Walk walk_;
  int next_;
  int step_;
};

template <bool kBlocks, bool kBf16, int kCluster>
struct Fp8Kernel {
  static constexpr GroupedProductKind kKind =
      kBlocks ? GroupedProductKind::kForward : GroupedProductKind::kBackwardWeight;
  using Walk = TileWalk<kKind, kCluster * 128>;

  static __device__ __forceinline__ auto NewWalk(const Fp8Args& args) {
    const int first = static_cast<int>(blockIdx.x) / kCluster, step = static_cast<int>(gridDim.x) / kCluster;
    if constexpr (kBlocks) {
      return Walk(args.offsets, args.groups, args.rows, args.m, args.n, first, step);
    } else {
      return WalkOfParts<Walk>(args, first, step);
    }
  }
  static __device__ __forceinline__ int Blocks(const Fp8Args& args, const GroupedTile& tile) {
    return kBlocks ? args.blocks : (tile.end - tile.begin + kFp8Terms - 1) / kFp8Terms;
  }

  // One thread: copies the tiles' terms into the stages, as far ahead of the consumers as there is room.
  // Blocks of a cluster have the same rows and adjacent columns: each copies half of the rows of a, to both.
  static __device__ __forceinline__ void Produce(const CUtensorMap* a, const CUtensorMap* b,
                                                 const Fp8Args& args, Fp8Memory memory, int rank) {
    auto walk = NewWalk(args);
    Fp8Ring ring;
    GroupedTile tile;
    while (walk.Next(&tile)) {
      const int column = tile.column + rank * 128, blocks = Blocks(args, tile);
      const int line = kBlocks ? tile.group * args.n + column : column;
      for (int block = 0; block < blocks; ++block, ring.Step()) {
        const uint32_t full = memory.Full(ring.stage);
        WaitBarrier(memory.Empty(ring.stage), ring.parity ^ 1);
        ArriveExpecting(full, kFp8StageBytes);
        const int term = ((kBlocks ? 0 : tile.pieces) + block) * kFp8Terms;
        if constexpr (kCluster == 1) {
          CopyBox(a, term, tile.row, memory.A(ring.stage), full);
        } else {
          CopyBoxToBoth(a, term, tile.row + rank * 64, memory.A(ring.stage) + rank * (kFp8OperandBytes / 2),
                        full);
        }
        CopyBox(b, term, line, memory.B(ring.stage), full);
        if constexpr (!kBlocks) PrefetchResult(args, tile, column, block, blocks);
      }
    }
  }

  // Asks for the rows of c that the tile will be added to, some with each of its blocks, so that the
  // consumers find them in the second-level cache.
  static __device__ __forceinline__ void PrefetchResult(const Fp8Args& args, const GroupedTile& tile,
                                                        int column, int block, int blocks) {
    if (!args.accumulate || column >= args.n || tile.part >= 0) return;
    const int share = (kTileRows + blocks - 1) / blocks;
    const int from = tile.row + block * share, to = min(min(from + share, tile.row + kTileRows), args.m);
    const uint32_t bytes = min(128, args.n - column) * 4;
    const float* c =
        static_cast<const float*>(args.c) + int64_t{tile.group} * args.m * args.c_stride + column;
    for (int row = from; row < to; ++row) PrefetchToL2(c + row * args.c_stride, bytes);
  }

  // A warpgroup: half of a tile's rows, 64 x 128, twice in registers: a stage's products and the sums.
  static __device__ __forceinline__ void Consume(const Fp8Args& args, Fp8Memory memory, int rank) {
    const int thread = threadIdx.x - 128, half = thread / 128;
    auto walk = NewWalk(args);
    Fp8Ring ring;
    GroupedTile tile;
    float products[64];
    while (walk.Next(&tile)) {
      tile.column += rank * 128;
      const int row = tile.row + half * 64 + thread % 128 / 32 * 16 + thread % 32 / 4;
      const int row_end = kBlocks ? tile.end : args.m, blocks = Blocks(args, tile);
      Fp8Scales<kBlocks> scales(args, tile, row, row_end);
      float sums[64];
#pragma unroll
      for (int i = 0; i < 64; ++i) sums[i] = 0;
      for (int block = 0; block < blocks; ++block, ring.Step()) {
        scales.Load(args, block);
        WaitBarrier(memory.Full(ring.stage), ring.parity);
        const uint64_t a = TileDescriptor<Major::kK>(memory.A(ring.stage) + half * (kFp8OperandBytes / 2), 0);
        const uint64_t b = TileDescriptor<Major::kK>(memory.B(ring.stage), 0);
        WgmmaFence();
#pragma unroll
        for (int i = 0; i < kFp8Terms / 32; ++i) {
          WgmmaE4M3(products, a + i * kTermsStep<Major::kK>, b + i * kTermsStep<Major::kK>, i > 0);
        }
        WgmmaCommit();
        WgmmaWait<0>();
        Pin(products);
        ReleaseStage<kCluster>(memory.Empty(ring.stage));
        scales.Add(products, sums);
      }
      Store(args, tile, row, row_end, sums);
    }
  }

  static __device__ __forceinline__ void AddBias(const Fp8Args& args, const GroupedTile& tile,
                                                 float (&sums)[64]) {
#pragma unroll
    for (int j = 0; j < 16; ++j) {
      const int column = tile.column + j * 8 + threadIdx.x % 4 * 2;
      if (column >= args.n) continue;
      const float first = args.bias[column], second = args.bias[column + 1];
      sums[4 * j] += first, sums[4 * j + 1] += second;
      sums[4 * j + 2] += first, sums[4 * j + 3] += second;
    }
  }

  static __device__ __forceinline__ void Store(const Fp8Args& args, const GroupedTile& tile, int row,
                                               int row_end, float (&sums)[64]) {
    if (args.bias != nullptr) AddBias(args, tile, sums);
    if constexpr (kBf16) {
      StoreBf16(static_cast<__nv_bfloat16*>(args.c), args.c_stride, row, row_end, tile.column, args.n, sums);
    } else {
      float* c = static_cast<float*>(args.c) + (kBlocks ? 0 : int64_t{tile.group} * args.m * args.c_stride);
      StoreFloats(c, args.c_stride, row, row_end, tile.column, args.n, args.accumulate, sums);
    }
  }
};

// A block takes tiles of 128 x 128 of c one after another. Its first warpgroup copies (one thread of it), the
// others multiply, 64 rows of the tile each; stages of 128 terms go round between them.
template <bool kBlocks, bool kBf16, int kCluster>
__global__ void __launch_bounds__(kFp8Threads, 1)
    Fp8WgmmaKernel(const __grid_constant__ CUtensorMap a, const __grid_constant__ CUtensorMap b,
                   const Fp8Args args) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  using Kernel = Fp8Kernel<kBlocks, kBf16, kCluster>;
  extern __shared__ uint8_t shared[];
  const Fp8Memory memory{(SharedAddress(shared) + 1023) / 1024 * 1024};
  const int rank = kCluster == 1 ? 0 : static_cast<int>(ClusterRank());
  if (threadIdx.x == 0) {
    PrefetchMap(&a);
    PrefetchMap(&b);
    for (int i = 0; i < kFp8Stages; ++i) {
      InitBarrier(memory.Full(i), 1);
      InitBarrier(memory.Empty(i), kCluster * kFp8Consumers / 32);  // one thread of each warp of each block
    }
    PublishBarriers();
  }
  __syncthreads();
  if constexpr (kCluster > 1) SyncCluster();
  if (threadIdx.x < 128) {
    GiveRegistersBack<56>();
    if (threadIdx.x == 0) Kernel::Produce(&a, &b, args, memory, rank);
  } else {
    TakeRegisters<224>();
    Kernel::Consume(args, memory, rank);
  }
  // The other block's copies and arrivals come here until it is done.
  if constexpr (kCluster > 1) SyncCluster();
#endif
}

}  // namespace moebius::cuda
