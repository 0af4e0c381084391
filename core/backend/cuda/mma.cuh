// Products of 16 x 8 x 16 bf16 tiles by one warp (mma.sync, PTX ISA "Matrix fragments for mma.m16n8k16"),
// their operands loaded from shared memory by ldmatrix, and copies into shared memory by cp.async.
#pragma once

#include "core/backend/cuda/kernel.cuh"

namespace moebius::cuda {

__device__ __forceinline__ unsigned SharedAddress(const void* shared) {
  return static_cast<unsigned>(__cvta_generic_to_shared(shared));
}

// Four 8 x 8 matrices of bf16; lane l gives the address of row l % 8 of matrix l / 8. The thread gets of each
// matrix the pair (row lane / 4, columns lane % 4 * 2 and + 1).
__device__ __forceinline__ void LoadMatrices(const Bf16* row, unsigned (&out)[4]) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(SharedAddress(row))
               : "memory");
}
// The same of the transposed matrices.
__device__ __forceinline__ void LoadMatricesTurned(const Bf16* row, unsigned (&out)[4]) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(SharedAddress(row))
               : "memory");
}

// The left operand, 16 x 16, from rows of `pitch` elements.
__device__ __forceinline__ void LoadLeft(const Bf16* tile, int pitch, unsigned (&out)[4]) {
  const int lane = threadIdx.x % kWarp;
  LoadMatrices(tile + lane % 16 * pitch + lane / 16 * 8, out);
}
// Two right operands, 16 x 8 each, from 16 rows of their columns: out[0, 1] are rows 0..7's, out[2,
// 3] 8..15's.
__device__ __forceinline__ void LoadRight(const Bf16* tile, int pitch, unsigned (&out)[4]) {
  const int lane = threadIdx.x % kWarp;
  LoadMatrices(tile + (lane / 16 * 8 + lane % 8) * pitch + lane / 8 % 2 * 8, out);
}
// The same from 16 rows of the reduction: out[0, 1] are columns 0..7, out[2, 3] columns 8..15.
__device__ __forceinline__ void LoadRightTurned(const Bf16* tile, int pitch, unsigned (&out)[4]) {
  const int lane = threadIdx.x % kWarp;
  LoadMatricesTurned(tile + lane % 16 * pitch + lane / 16 * 8, out);
}

// sum += left right. The thread holds sum (row lane / 4, columns lane % 4 * 2, + 1), then the same of row
// + 8.
__device__ __forceinline__ void MultiplyAdd(const unsigned (&left)[4], unsigned right0, unsigned right1,
                                            float (&sum)[4]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(left[0]), "r"(left[1]), "r"(left[2]), "r"(left[3]), "r"(right0), "r"(right1));
}

// Two values as bf16, `low` at the lower address.
__device__ __forceinline__ unsigned PackPair(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const unsigned*>(&pair);
}

// 16 bytes to shared memory, in the background; zeros unless `valid`.
__device__ __forceinline__ void CopyAsync16(void* shared, const void* global, bool valid) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(SharedAddress(shared)), "l"(global),
               "r"(valid ? 16 : 0)
               : "memory");
}
__device__ __forceinline__ void CommitCopies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Waits until at most kPending of the thread's latest groups are under way.
template <int kPending>
__device__ __forceinline__ void WaitForCopies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

}  // namespace moebius::cuda
