#include <algorithm>

#include "core/backend/cuda/fp8_staged.cuh"
#include "core/backend/cuda/fp8_wgmma.cuh"
#include "core/backend/cuda/fp8_wgmma.h"

namespace moebius::cuda {

namespace {

using Kernel = void (*)(const CUtensorMap, const CUtensorMap, const Fp8Args);
using Encode = decltype(&cuTensorMapEncodeTiled);

// Of Run (pairs have not been timed yet): with scales of blocks, which forward products and input gradients
// have, and of tiles only, which weight gradients have.
constexpr Fp8Schedule kWithBlocks = Fp8Schedule::kAhead, kWithTiles = Fp8Schedule::kStaged;

int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

int ClusterOf(Fp8Schedule schedule) {
  return schedule == Fp8Schedule::kStagedPairs || schedule == Fp8Schedule::kAheadPairs ? 2 : 1;
}

template <bool kBlocks, bool kBf16>
Kernel KernelOf(Fp8Schedule schedule) {
  switch (schedule) {
    case Fp8Schedule::kDirect:
      break;
    case Fp8Schedule::kStaged:
      return Fp8StagedWgmmaKernel<kBlocks, kBf16, false, 1>;
    case Fp8Schedule::kAhead:
      return Fp8StagedWgmmaKernel<kBlocks, kBf16, true, 1>;
    case Fp8Schedule::kStagedPairs:
      return Fp8StagedWgmmaKernel<kBlocks, kBf16, false, 2>;
    case Fp8Schedule::kAheadPairs:
      return Fp8StagedWgmmaKernel<kBlocks, kBf16, true, 2>;
  }
  return Fp8WgmmaKernel<kBlocks, kBf16, 1>;
}
Kernel KernelOf(const Fp8Product& p, Fp8Schedule schedule) {
  if (!p.b.blocks) return KernelOf<false, false>(schedule);
  return p.c_bf16 ? KernelOf<true, true>(schedule) : KernelOf<true, false>(schedule);
}

// How many of a dense weight gradient's tiles stay whole, and into how many parts the others are cut. A tile
// is what a cluster takes at a time, 128 rows and 128 columns a block.
struct Cut {
  int64_t whole = 0;
  int64_t tiles = 0;
  int64_t parts = 1;
};
Cut CutOf(const Fp8Product& p, int cluster, int multiprocessors) {
  if (p.b.blocks || p.offsets != nullptr || p.groups != 1 || p.bias != nullptr) return {};
  const int64_t grid = multiprocessors / cluster, blocks = p.a.terms / kFp8Terms;
  const int64_t tiles = CeilDiv(p.m, 128) * CeilDiv(p.n, cluster * 128);
  Cut cut{.whole = tiles / grid * grid, .tiles = tiles % grid};
  // Rounds of a whole tile's time that the rest takes; what a part costs beside its terms is put at 1 %.
  double least = 1;
  for (int64_t parts = 2; parts <= std::min<int64_t>(blocks / 8, 8); ++parts) {
    const double rounds = static_cast<double>(CeilDiv(cut.tiles * parts, grid)) / parts + 0.01 * parts;
    if (rounds < least) least = rounds, cut.parts = parts;
  }
  return cut.tiles > 0 && cut.parts > 1 ? cut : Cut{};
}

// A matrix of E4M3, copied in boxes of 128 terms and `box_lines` lines.
bool MakeMap(Encode encode, CUtensorMap* map, const Fp8Matrix& x, int box_lines) {
  const cuuint64_t sizes[2] = {static_cast<cuuint64_t>(x.terms), static_cast<cuuint64_t>(x.lines)};
  const cuuint64_t strides[1] = {static_cast<cuuint64_t>(x.terms)};
  const cuuint32_t box[2] = {kFp8Terms, static_cast<cuuint32_t>(box_lines)}, steps[2] = {1, 1};
  return encode(map, CU_TENSOR_MAP_DATA_TYPE_UINT8, 2, x.values, sizes, strides, box, steps,
                CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}

// At most so many tiles a result has.
int64_t Tiles(const Fp8Product& p) {
  const int64_t down = p.b.blocks ? CeilDiv(p.m, 128) + p.groups : p.groups * CeilDiv(p.m, 128);
  return down * CeilDiv(p.n, 128);
}

}  // namespace

Fp8Wgmma::Fp8Wgmma(const cudaDeviceProp& properties) {
  if (properties.major != 9) return;
  cudaDriverEntryPointQueryResult found;
  if (cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &encode_, 12000, cudaEnableDefault,
                                       &found) != cudaSuccess ||
      found != cudaDriverEntryPointSuccess) {
    encode_ = nullptr;  // RunAs says so
  }
  multiprocessors_ = properties.multiProcessorCount;
}

bool Fp8Wgmma::Takes(const Fp8Product& p) const {
  constexpr int64_t kMost = int64_t{1} << 31;  // coordinates are 32-bit
  return multiprocessors_ > 0 && p.n % 8 == 0 && reinterpret_cast<uintptr_t>(p.c) % 16 == 0 &&
         p.c_stride % (p.c_bf16 ? 8 : 4) == 0 && !(p.c_bf16 && (p.accumulate || !p.b.blocks)) &&
         p.a.lines + 256 < kMost && p.b.lines + 256 < kMost && p.a.terms + 256 < kMost &&
         Tiles(p) * 2 < kMost;
}

int64_t Fp8Wgmma::PartBytes(const Fp8Product& p) const {
  int64_t most = 0;
  for (const int cluster : {1, 2}) {
    const Cut cut = CutOf(p, cluster, multiprocessors_);
    most = std::max(most, cut.tiles * cut.parts * cluster * (128 * 128 * 4));
  }
  return most;
}

cudaError_t Fp8Wgmma::Run(cudaStream_t stream, const Fp8Product& p) const {
  return RunAs(stream, p, p.b.blocks ? kWithBlocks : kWithTiles);
}

cudaError_t Fp8Wgmma::RunAs(cudaStream_t stream, const Fp8Product& p, Fp8Schedule schedule) const {
  const int cluster = ClusterOf(schedule);
  if (encode_ == nullptr) return cudaErrorSystemDriverMismatch;
  const Encode encode = reinterpret_cast<Encode>(encode_);
  CUtensorMap a = {}, b = {};
  if (!MakeMap(encode, &a, p.a, 128 / cluster) || !MakeMap(encode, &b, p.b, 128))
    return cudaErrorInvalidValue;
  const Kernel kernel = KernelOf(p, schedule);
  if (const cudaError_t error =
          cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kFp8SharedBytes);
      error != cudaSuccess) {
    return error;
  }
  const bool cuts = schedule != Fp8Schedule::kDirect && p.parts != nullptr;
  const Cut cut = cuts ? CutOf(p, cluster, multiprocessors_) : Cut{};
  const Fp8Args args{.offsets = p.offsets,
                     .a_scales = p.a.scales,
                     .b_scales = p.b.scales,
                     .a_scale_stride = p.a.scale_stride,
                     .b_scale_stride = p.b.scale_stride,
                     .c = p.c,
                     .c_stride = p.c_stride,
                     .bias = p.bias,
                     .rows = static_cast<int>(p.rows),
                     .groups = static_cast<int>(p.groups),
                     .m = static_cast<int>(p.m),
                     .n = static_cast<int>(p.n),
                     .blocks = static_cast<int>(p.a.terms / kFp8Terms),
                     .accumulate = p.accumulate,
                     .parts = cut.tiles > 0 ? static_cast<float*>(p.parts) : nullptr,
                     .whole_tiles = static_cast<int>(cut.whole),
                     .cut_tiles = static_cast<int>(cut.tiles),
                     .tile_parts = static_cast<int>(cut.parts)};
  const cudaError_t error =
      LaunchClusters(kernel, cluster, multiprocessors_, kFp8Threads, kFp8SharedBytes, stream, a, b, args);
  if (error != cudaSuccess || args.parts == nullptr) return error;
  const auto add = cluster == 1 ? AddPartsKernel<1> : AddPartsKernel<2>;
  add<<<static_cast<unsigned>(cut.tiles * cluster * 4), 256, 0, stream>>>(args);
  return cudaGetLastError();
}

}  // namespace moebius::cuda
