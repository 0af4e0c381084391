// The product of fp8_wgmma.h once more, with the scales in the stages beside the operands that they belong
// to, so that no product waits for a load from global memory; and if kAhead, with the tensor cores
// multiplying a stage while the stage before it is scaled and added, or the tile before it stored. Same sums
// in the same order, tiles in parts aside: the same bits. Only sm_90a has code for it.
//
// What bounds it, for each 128 x 128 x 128 of a tile: 512 cycles of the tensor cores; 48 KB read and 32 KB
// written of shared memory, 640 cycles at 128 bytes; 32 KB from the second-level cache.
#pragma once

#include "core/backend/cuda/fp8_wgmma.cuh"

namespace moebius::cuda {

// Copies of few bytes that do not hold up the thread; `inside` false: zeros, and nothing is read.
template <int kBytes>
__device__ __forceinline__ void CopyFew(uint32_t to, const float* from, bool inside) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(to), "l"(from), "n"(kBytes),
               "r"(inside ? kBytes : 0)
               : "memory");
}
// This thread arrives once its copies of few bytes have landed.
__device__ __forceinline__ void ArriveAfterCopies(uint32_t barrier) {
  asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(barrier) : "memory");
}
__device__ __forceinline__ float SharedFloat(uint32_t at) {
  float x;
  asm volatile("ld.shared.f32 %0, [%1];" : "=f"(x) : "r"(at) : "memory");
  return x;
}
__device__ __forceinline__ float4 SharedFloats(uint32_t at) {
  float4 x;
  asm volatile("ld.shared.v4.f32 {%0, %1, %2, %3}, [%4];"
               : "=f"(x.x), "=f"(x.y), "=f"(x.z), "=f"(x.w)
               : "r"(at)
               : "memory");
  return x;
}

template <bool kBlocks, bool kBf16, bool kAhead, int kCluster>
struct Fp8StagedKernel {
  using Direct = Fp8Kernel<kBlocks, kBf16, kCluster>;

  // One warp: copies the scales of a tile's rows, and of b's block or the tile's columns, into the stages.
  // Columns lie as threads need them: 8 j + 2 t and the next, for all j, in one piece for each t.
  static __device__ __forceinline__ void ProduceScales(const Fp8Args& args, Fp8Memory memory, int rank) {
    const int lane = threadIdx.x % 32;
    auto walk = Direct::NewWalk(args);
    Fp8Ring ring;
    GroupedTile tile;
    while (walk.Next(&tile)) {
      tile.column += rank * 128;
      const int blocks = Direct::Blocks(args, tile), rows = (kBlocks ? tile.end : args.m) - tile.row;
      const float* a = args.a_scales + tile.row;
      const float* b = args.b_scales;
      if constexpr (kBlocks) {
        const int last = (args.n - 1) / 128;  // what lies beyond it is not stored
        b += (int64_t{tile.group} * (last + 1) + min(tile.column / 128, last)) * args.b_scale_stride;
      } else {
        a += tile.pieces * args.a_scale_stride;
        b += tile.pieces * args.b_scale_stride + tile.column;
      }
      for (int block = 0; block < blocks; ++block, ring.Step()) {
        const uint32_t to_rows = memory.RowScales(ring.stage), to_columns = memory.ColumnScales(ring.stage);
        WaitBarrier(memory.Empty(ring.stage), ring.parity ^ 1);
        if constexpr (kBlocks) {
#pragma unroll
          for (int row = lane; row < kTileRows; row += 32) {
            CopyFew<4>(to_rows + row * 4, row < rows ? a + row : a, row < rows);
          }
          if (lane == 0) CopyFew<4>(to_columns, b, true);
          b += 1;
        } else {
          CopyFew<16>(to_rows + lane * 16, lane * 4 < rows ? a + lane * 4 : a, lane * 4 < rows);
#pragma unroll
          for (int pair = lane; pair < 64; pair += 32) {
            const bool inside = tile.column + pair * 2 < args.n;
            CopyFew<8>(to_columns + pair % 4 * kFp8ColumnPiece + pair / 4 * 8, inside ? b + pair * 2 : b,
                       inside);
          }
          b += args.b_scale_stride;
        }
        a += args.a_scale_stride;
        ArriveAfterCopies(memory.Full(ring.stage));
      }
    }
  }

  // Queues the products of a stage, for half of its rows.
  static __device__ __forceinline__ void Multiply(float (&products)[64], Fp8Memory memory,
                                                  const Fp8Ring& ring, int half) {
    WaitBarrier(memory.Full(ring.stage), ring.parity);
    const uint64_t a = TileDescriptor<Major::kK>(memory.A(ring.stage) + half * (kFp8OperandBytes / 2), 0);
    const uint64_t b = TileDescriptor<Major::kK>(memory.B(ring.stage), 0);
    WgmmaFence();
    FirstWgmmaE4M3(products, a, b);
#pragma unroll
    for (int i = 1; i < kFp8Terms / 32; ++i) {
      WgmmaE4M3(products, a + i * kTermsStep<Major::kK>, b + i * kTermsStep<Major::kK>, 1);
    }
    WgmmaCommit();
  }

  // Waits for a stage's products while kLeft later ones may run; sums += products times scales.
  template <int kLeft>
  static __device__ __forceinline__ void Add(float (&products)[64], Fp8Memory memory, uint32_t stage, int row,
                                             float (&sums)[64]) {
    const uint32_t of_rows = memory.RowScales(stage) + row * 4;
    const float rows[2] = {SharedFloat(of_rows), SharedFloat(of_rows + 32)};
    if constexpr (kBlocks) {
      const float block = SharedFloat(memory.ColumnScales(stage));
      WgmmaWait<kLeft>();
      Pin(products);
      __syncwarp();
      ReleaseStage<kCluster>(memory.Empty(stage));
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const float scale = rows[h] * block;
#pragma unroll
        for (int j = 0; j < 16; ++j) {
#pragma unroll
          for (int e = 0; e < 2; ++e) {
            const int i = 4 * j + 2 * h + e;
            sums[i] = fmaf(products[i], scale, sums[i]);
          }
        }
      }
    } else {
      const uint32_t of_columns = memory.ColumnScales(stage) + threadIdx.x % 4 * kFp8ColumnPiece;
      WgmmaWait<kLeft>();
      Pin(products);
#pragma unroll
      for (int j = 0; j < 16; j += 2) {
        const float4 four = SharedFloats(of_columns + j * 8);
        const float columns[2][2] = {{four.x, four.y}, {four.z, four.w}};
#pragma unroll
        for (int k = 0; k < 8; ++k) {
          const int i = 4 * (j + k / 4) + k % 4;
          sums[i] = fmaf(products[i], rows[k % 4 / 2] * columns[k / 4][k % 2], sums[i]);
        }
      }
      __syncwarp();
      ReleaseStage<kCluster>(memory.Empty(stage));
    }
  }

  // Where a thread's fp32 sums of a tile go.
  struct Target {
    float* c;
    int64_t stride;
    int row;
    int row_end;
    int column;
    int columns;
    bool add;
  };
  static __device__ __forceinline__ Target TargetOf(const Fp8Args& args, const GroupedTile& tile, int row) {
    if (tile.part >= 0) {
      const int rank = kCluster == 1 ? 0 : static_cast<int>(ClusterRank());
      float* part = args.parts + (int64_t{tile.part} * kCluster + rank) * (kTileRows * 128);
      return {part, 128, row, kTileRows, 0, 128, false};
    }
    float* c = static_cast<float*>(args.c) + (kBlocks ? 0 : int64_t{tile.group} * args.m * args.c_stride);
    const int row_end = kBlocks ? tile.end : args.m;
    return {c, args.c_stride, tile.row + row, row_end, tile.column, args.n, args.accumulate};
  }

  // The last stage of a tile of fp32, and what becomes of the sums. What they are added to is asked for
  // before the products are waited for.
  static __device__ __forceinline__ void Finish(const Fp8Args& args, const GroupedTile& tile,
                                                float (&products)[64], Fp8Memory memory, uint32_t stage,
                                                int row, float (&sums)[64]) {
    if constexpr (kBf16) {
      Add<0>(products, memory, stage, row, sums);
      Direct::Store(args, tile, tile.row + row, tile.end, sums);
    } else {
      const Target t = TargetOf(args, tile, row);
      float2 old[32];
      LoadFloats(t.c, t.stride, t.row, t.row_end, t.column, t.columns, t.add, old);
      Add<0>(products, memory, stage, row, sums);
      if (args.bias != nullptr) Direct::AddBias(args, tile, sums);
      AddAndStoreFloats(t.c, t.stride, t.row, t.row_end, t.column, t.columns, old, sums);
    }
  }

  // A warpgroup: half of a tile's rows, 64 x 128, in registers: the sums, and one or two stages' products.
  // With kOverStore `first` is being multiplied whenever a tile begins, so that the tensor cores work while
  // the tile before is stored; fp32 has no registers left for that. (The compiler lets products run only
  // where all ways through the code agree that they do.)
  static constexpr bool kOverStore = kAhead && kBf16;
  static __device__ __forceinline__ void Consume(const Fp8Args& args, Fp8Memory memory, int rank) {
    const int thread = threadIdx.x - 128, half = thread / 128;
    const int row = half * 64 + thread % 128 / 32 * 16 + thread % 32 / 4;
    auto walk = Direct::NewWalk(args);
    Fp8Ring ring, ahead;  // of the stage to be added, and to be multiplied
    GroupedTile next;
    const auto advance = [&] {
      const bool more = walk.Next(&next);
      next.column += rank * 128;
      return more;
    };
    const auto multiply = [&](float(&products)[64]) {
      Multiply(products, memory, ahead, half);
      ahead.Step();
    };
    float first[64], second[64];
    if constexpr (kOverStore) {
      if (!advance()) return;
      multiply(first);
    }
    while (kOverStore || advance()) {
      const GroupedTile tile = next;
      int left = Direct::Blocks(args, tile);  // stages not yet added
      float sums[64];
#pragma unroll
      for (int i = 0; i < 64; ++i) sums[i] = 0;
      if constexpr (!kAhead) {
        for (; left > 1; --left) {
          multiply(first);
          Add<0>(first, memory, ring.stage, row, sums);
          ring.Step();
        }
        multiply(first);
        Finish(args, tile, first, memory, ring.stage, row, sums);
        ring.Step();
      } else {
        if constexpr (!kOverStore) multiply(first);
        for (; left > 2; left -= 2) {
          multiply(second);
          Add<1>(first, memory, ring.stage, row, sums);
          ring.Step();
          multiply(first);
          Add<1>(second, memory, ring.stage, row, sums);
          ring.Step();
        }
        if constexpr (kOverStore) {
          const bool more = advance();
          if (left == 2) {
            multiply(second);
            Add<1>(first, memory, ring.stage, row, sums);
            ring.Step();
            Add<0>(second, memory, ring.stage, row, sums);
          } else {
            Add<0>(first, memory, ring.stage, row, sums);
          }
          ring.Step();
          if (!more) {
            Direct::Store(args, tile, tile.row + row, tile.end, sums);
            return;
          }
          multiply(first);
          Direct::Store(args, tile, tile.row + row, tile.end, sums);
        } else if (left == 2) {
          multiply(second);
          Add<1>(first, memory, ring.stage, row, sums);
          ring.Step();
          Finish(args, tile, second, memory, ring.stage, row, sums);
          ring.Step();
        } else {
          Finish(args, tile, first, memory, ring.stage, row, sums);
          ring.Step();
        }
      }
    }
  }
};

// c (= or +=) the parts of the tiles that were cut, in order. A block adds 32 rows of a tile of 128 x 128, a
// thread four columns at a time.
template <int kCluster>
__global__ void __launch_bounds__(256) AddPartsKernel(const Fp8Args args) {
  using Walk = TileWalk<GroupedProductKind::kBackwardWeight, kCluster * 128>;
  const int cut = static_cast<int>(blockIdx.x) / 4, quarter = blockIdx.x % 4, column = threadIdx.x % 32 * 4;
  GroupedTile tile;
  Walk(nullptr, 1, args.rows, args.m, args.n, 0, 1).At(args.whole_tiles + cut / kCluster, &tile);
  tile.column += cut % kCluster * 128;
  if (tile.column + column >= args.n) return;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int row = quarter * 32 + i * 8 + static_cast<int>(threadIdx.x) / 32;
    if (tile.row + row >= args.m) break;
    const float* part = args.parts + (int64_t{cut} * kTileRows + row) * 128 + column;
    float4 sum = *reinterpret_cast<const float4*>(part);
    for (int p = 1; p < args.tile_parts; ++p) {
      const float4 next =
          *reinterpret_cast<const float4*>(part + int64_t{p} * args.cut_tiles * (kCluster * kTileRows * 128));
      sum.x += next.x, sum.y += next.y, sum.z += next.z, sum.w += next.w;
    }
    float* c = static_cast<float*>(args.c) + (tile.row + row) * args.c_stride + tile.column + column;
    float4* to = reinterpret_cast<float4*>(c);
    const float4 old = args.accumulate ? *to : make_float4(0, 0, 0, 0);
    *to = make_float4(old.x + sum.x, old.y + sum.y, old.z + sum.z, old.w + sum.w);
  }
}

// As Fp8WgmmaKernel; the second warp of the first warpgroup copies the scales.
template <bool kBlocks, bool kBf16, bool kAhead, int kCluster>
__global__ void __launch_bounds__(kFp8Threads, 1)
    Fp8StagedWgmmaKernel(const __grid_constant__ CUtensorMap a, const __grid_constant__ CUtensorMap b,
                         const Fp8Args args) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  using Kernel = Fp8StagedKernel<kBlocks, kBf16, kAhead, kCluster>;
  extern __shared__ uint8_t shared[];
  const Fp8Memory memory{(SharedAddress(shared) + 1023) / 1024 * 1024};
  const int rank = kCluster == 1 ? 0 : static_cast<int>(ClusterRank());
  if (threadIdx.x == 0) {
    PrefetchMap(&a);
    PrefetchMap(&b);
    for (int i = 0; i < kFp8Stages; ++i) {
      InitBarrier(memory.Full(i), 1 + 32);  // who copies operands, and the warp that copies scales
      InitBarrier(memory.Empty(i), kCluster * kFp8Consumers / 32);  // one thread of each warp of each block
    }
    PublishBarriers();
  }
  __syncthreads();
  if constexpr (kCluster > 1) SyncCluster();
  if (threadIdx.x < 128) {
    GiveRegistersBack<40>();
    if (threadIdx.x == 0) Kernel::Direct::Produce(&a, &b, args, memory, rank);
    if (threadIdx.x / 32 == 1) Kernel::ProduceScales(args, memory, rank);
  } else {
    TakeRegisters<232>();
    Kernel::Consume(args, memory, rank);
  }
  // The other block's copies and arrivals come here until it is done.
  if constexpr (kCluster > 1) SyncCluster();
#endif
}

}  // namespace moebius::cuda
