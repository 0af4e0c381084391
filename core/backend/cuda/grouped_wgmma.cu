#include <algorithm>

#include "core/backend/cuda/grouped_wgmma.cuh"
#include "core/backend/cuda/grouped_wgmma.h"

namespace moebius::cuda {

namespace {

using Kernel = void (*)(const CUtensorMap, const CUtensorMap, const WgmmaArgs);
using Encode = decltype(&cuTensorMapEncodeTiled);

int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

template <int kTileColumns, int kCluster>
Kernel KernelOf(GroupedProductKind kind) {
  switch (kind) {
    case GroupedProductKind::kForward:
      return GroupedWgmmaKernel<GroupedProductKind::kForward, kTileColumns, kCluster>;
    case GroupedProductKind::kBackwardInput:
      return GroupedWgmmaKernel<GroupedProductKind::kBackwardInput, kTileColumns, kCluster>;
    case GroupedProductKind::kBackwardWeight:
      break;
  }
  return GroupedWgmmaKernel<GroupedProductKind::kBackwardWeight, kTileColumns, kCluster>;
}

// A row-major bf16 matrix, copied in boxes of 64 columns and `box_rows` rows.
bool MakeMap(Encode encode, CUtensorMap* map, void* data, int64_t rows, int64_t columns, int64_t stride,
             int box_rows) {
  const cuuint64_t sizes[2] = {static_cast<cuuint64_t>(columns), static_cast<cuuint64_t>(rows)};
  // With one row the stride says nothing, and may be anything.
  const cuuint64_t strides[1] = {static_cast<cuuint64_t>(std::max(stride, columns)) * 2};
  const cuuint32_t box[2] = {64, static_cast<cuuint32_t>(box_rows)}, steps[2] = {1, 1};
  return encode(map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, data, sizes, strides, box, steps,
                CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}

// About how many tiles a result has; each group is taken to end in the middle of one.
int64_t Tiles(const GroupedProblem& p, int tile_columns) {
  if (p.kind == GroupedProductKind::kBackwardWeight) {
    return p.groups * CeilDiv(p.out, kTileRows) * CeilDiv(p.in, tile_columns);
  }
  const int64_t columns = p.kind == GroupedProductKind::kForward ? p.out : p.in;
  return (CeilDiv(p.rows, kTileRows) + p.groups / 2) * CeilDiv(columns, tile_columns);
}

bool Aligned(const void* data) { return reinterpret_cast<uintptr_t>(data) % 16 == 0; }

}  // namespace

GroupedWgmma::GroupedWgmma(const cudaDeviceProp& properties) {
  if (properties.major != 9) return;
  cudaDriverEntryPointQueryResult found;
  if (cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &encode_, 12000, cudaEnableDefault,
                                       &found) != cudaSuccess ||
      found != cudaDriverEntryPointSuccess) {
    encode_ = nullptr;  // Run says so
  }
  multiprocessors_ = properties.multiProcessorCount;
}

bool GroupedWgmma::Takes(const GroupedProblem& p) const {
  constexpr int64_t kMost = int64_t{1} << 31;  // coordinates are 32-bit
  return multiprocessors_ > 0 && p.bf16 && p.in % 64 == 0 && p.out % 64 == 0 && p.x_stride % 8 == 0 &&
         p.y_stride % 8 == 0 && p.w_stride % 8 == 0 && Aligned(p.x) && Aligned(p.y) && Aligned(p.w) &&
         p.rows + 256 < kMost && p.groups * p.out + 256 < kMost && Tiles(p, 128) * 2 < kMost;
}

cudaError_t GroupedWgmma::Run(cudaStream_t stream, const GroupedProblem& p) const {
  // In units of 128 x 128; tiles of half the width load more for each product, and run at about 4 / 5 of the
  // speed. Pairs have not been timed yet.
  const double wide = 2.0 * CeilDiv(Tiles(p, 256), multiprocessors_);
  const double narrow = 1.25 * CeilDiv(Tiles(p, 128), multiprocessors_);
  return RunTiled(stream, p, wide <= narrow ? GroupedTiles::kWide : GroupedTiles::kNarrow);
}

cudaError_t GroupedWgmma::RunTiled(cudaStream_t stream, const GroupedProblem& p, GroupedTiles tiles) const {
  const int tile_columns = tiles == GroupedTiles::kNarrow ? 128 : 256;
  const int cluster = tiles == GroupedTiles::kWidePairs ? 2 : 1;
  if (encode_ == nullptr) return cudaErrorSystemDriverMismatch;
  const Encode encode = reinterpret_cast<Encode>(encode_);
  CUtensorMap x = {}, y = {}, w = {};
  const bool forward = p.kind == GroupedProductKind::kForward,
             weight = p.kind == GroupedProductKind::kBackwardWeight;
  bool made = true;
  if (forward || weight) {
    made = made && MakeMap(encode, &x, p.x, p.rows, p.in, p.x_stride, weight ? 64 : kTileRows);
  }
  if (!forward) made = made && MakeMap(encode, &y, p.y, p.rows, p.out, p.y_stride, weight ? 64 : kTileRows);
  if (!weight) {
    made = made && MakeMap(encode, &w, p.w, p.groups * p.out, p.in, p.w_stride,
                           forward ? tile_columns / cluster : 64);
  }
  if (!made) return cudaErrorInvalidValue;

  const Kernel kernel = cluster == 2          ? KernelOf<256, 2>(p.kind)
                        : tile_columns == 256 ? KernelOf<256, 1>(p.kind)
                                              : KernelOf<128, 1>(p.kind);
  const int bytes = static_cast<int>(tile_columns == 256 ? kSharedBytes<256> : kSharedBytes<128>);
  if (const cudaError_t error =
          cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
      error != cudaSuccess) {
    return error;
  }
  const WgmmaArgs args{.offsets = p.offsets,
                       .c = weight    ? p.w
                            : forward ? p.y
                                      : p.x,
                       .c_stride = weight    ? p.w_stride
                                   : forward ? p.y_stride
                                             : p.x_stride,
                       .groups = static_cast<int>(p.groups),
                       .out = static_cast<int>(p.out),
                       .in = static_cast<int>(p.in)};
  return LaunchClusters(kernel, cluster, multiprocessors_, kWgmmaThreads, bytes, stream, forward ? x : y,
                        weight ? x : w, args);
}

}  // namespace moebius::cuda
