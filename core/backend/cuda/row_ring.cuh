// Rows on their way into a block. Each thread copies its own pieces of the rows to come into shared memory,
// asynchronously, and reads them there itself: no barrier is needed, and rows in flight cost no registers.
#pragma once

#include "core/backend/cuda/pieces.cuh"

namespace moebius::cuda {

// kPieces 16-byte pieces a thread of each of `tensors` rows, in kStages stages. `memory` holds Bytes().
template <typename T, int kPieces, bool kWhole>
class RowRing {
 public:
  static constexpr int kStages = 3;
  static constexpr int N = kVector<T>;
  static int64_t Bytes(dim3 block, int tensors) {
    return int64_t{kStages} * tensors * kPieces * block.x * block.y * 16;
  }

  __device__ __forceinline__ RowRing(uint4* memory, int tensors)
      : threads_(static_cast<int>(blockDim.x * blockDim.y)),
        stage_slots_(tensors * kPieces * threads_),
        slots_(memory + threadIdx.y * blockDim.x + threadIdx.x) {}

  // Starts the copy of piece k of a row, `left` as for LoadPiece.
  __device__ __forceinline__ void Start(int stage, int tensor, int k, const T* from, int left) {
    uint4* slot = Slot(stage, tensor, k);
    if constexpr (kWhole) {
      if (left > 0) {
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(
                         static_cast<uint32_t>(__cvta_generic_to_shared(slot))),
                     "l"(from)
                     : "memory");
        return;
      }
    }
    const Piece<T, N> piece = LoadPiece<false, N>(from, left);
    *slot = make_uint4(piece.words[0], piece.words[1], piece.words[2], piece.words[3]);
  }
  // Ends a stage's list of copies.
  __device__ __forceinline__ void Commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
  // This thread's pieces of all but the latest kStages - 1 stages have arrived.
  __device__ __forceinline__ void Wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(kStages - 1) : "memory");
  }
  __device__ __forceinline__ Piece<T, N> Get(int stage, int tensor, int k) const {
    return LoadPiece<true, N>(reinterpret_cast<const T*>(Slot(stage, tensor, k)), N);
  }

 private:
  __device__ __forceinline__ uint4* Slot(int stage, int tensor, int k) const {
    return slots_ + stage * stage_slots_ + (tensor * kPieces + k) * threads_;
  }
  int threads_, stage_slots_;
  uint4* slots_;
};

// The sums over the teams of a block (TeamBlock), one barrier each.
struct TeamSums {
  static constexpr int kMostWarps = 16;
  __align__(16) float of_warps[2][kMostWarps];

  // Every thread, before the first Sum.
  __device__ __forceinline__ void Clear() {
    const int thread = static_cast<int>(threadIdx.y * blockDim.x + threadIdx.x);
    if (thread < 2 * kMostWarps) of_warps[thread / kMostWarps][thread % kMostWarps] = 0;
    __syncthreads();
  }
  // The sum over the threads of a row: every thread calls it, with `turn` 0 and 1 by turns. A turn's floats
  // are written again only after the other turn's barrier, when all have read them.
  __device__ __forceinline__ float Sum(float x, int turn) {
    const int team = static_cast<int>(blockDim.x);
    for (int step = min(team, kWarp) / 2; step > 0; step /= 2) x += __shfl_xor_sync(kAllLanes, x, step);
    if (team <= kWarp) return x;
    if (threadIdx.x % kWarp == 0) of_warps[turn][threadIdx.x / kWarp] = x;
    __syncthreads();
    float sum = 0;
#pragma unroll
    for (int w = 0; w < kMostWarps; w += 4) {
      const float4 four = *reinterpret_cast<const float4*>(&of_warps[turn][w]);
      sum += (four.x + four.y) + (four.z + four.w);
    }
    return sum;
  }
};

}  // namespace moebius::cuda
