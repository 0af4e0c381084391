// Products of FP8 operands (fp8_quantize.h) by Hopper's tensor cores, one or one a group, in one launch that
// reads the offsets on the device. A tensor core's sums of 128 terms are multiplied by their scales and added
// in fp32.
#pragma once

#include <cuda_runtime.h>

#include "core/backend/cuda/fp8_quantize.h"

namespace moebius::cuda {

// c [m, n] (= or +=) a · bᵀ (+ bias [n] f32), lines of a and b being rows and columns of c.
//   b.blocks:  group g owns rows [offsets[g], offsets[g + 1]) of a and c and lines [g n, (g + 1) n) of b,
//   which are
//              a weight's. m is the number of all rows.
//   otherwise: a and b hold every group's terms as kAlongColumn lays them out, and group g has its own c, m
//   rows
//              after that of the group before; the c of a group without rows stays.
struct Fp8Product {
  Fp8Matrix a;
  Fp8Matrix b;
  void* c = nullptr;
  int64_t c_stride = 0;
  bool c_bf16 = false;          // fp32 otherwise
  bool accumulate = false;      // fp32 only
  const float* bias = nullptr;  // [n]
  int64_t m = 0;
  int64_t n = 0;
  int64_t groups = 1;
  const int64_t* offsets = nullptr;  // [groups + 1] in device memory; without them one group has all rows
  int64_t rows = 0;                  // of that group
  // Without offsets and blocks: memory of PartBytes(), if there is any. The tiles of c that would leave
  // processors idle in the end are then cut along their terms, the parts' sums kept there and added in order.
  void* parts = nullptr;
};

// How the kernel goes about it. All make the same bits of the same operands, but for tiles in parts.
//   kDirect: scales are loaded from global memory, a stage at a time.
//   kStaged: scales are copied into the stages, beside the operands.
//   kAhead:  that, and a stage is multiplied while the stage before it is scaled and added.
//   ...Pairs: in clusters of two blocks, which share the lines of a that they both need.
enum class Fp8Schedule { kDirect, kStaged, kAhead, kStagedPairs, kAheadPairs };

class Fp8Wgmma {
 public:
  // The device is current.
  explicit Fp8Wgmma(const cudaDeviceProp& properties);

  // Whether the device can multiply so at all: compute capability 9.0.
  bool there() const { return multiprocessors_ > 0; }

  // On such a device; n a multiple of 8, rows of c at multiples of 16 bytes; bf16 with b.blocks only.
  bool Takes(const Fp8Product& product) const;

  // Queues a product that it takes. Every element of c is summed in a fixed order, and written by one thread.
  cudaError_t Run(cudaStream_t stream, const Fp8Product& product) const;

  // What `parts` needs, whatever the schedule; 0 where nothing would be cut.
  int64_t PartBytes(const Fp8Product& product) const;

  // As Run, which chooses the schedule itself. kDirect does not cut tiles.
  cudaError_t RunAs(cudaStream_t stream, const Fp8Product& product, Fp8Schedule schedule) const;

 private:
  int multiprocessors_ = 0;  // 0: not Hopper
  void* encode_ = nullptr;   // the driver's cuTensorMapEncodeTiled
};

}  // namespace moebius::cuda
