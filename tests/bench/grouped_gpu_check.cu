// Checks and times the grouped products of CUDA by themselves, on a machine with nothing but nvcc:
//   nvcc -std=c++20 -O3 -I. -gencode arch=compute_90a,code=sm_90a tests/bench/grouped_gpu_check.cu
//     core/backend/cuda/plain_product.cu core/backend/cuda/grouped_wgmma.cu -lcublas -o grouped_gpu_check
// Parts: swizzle (what a tensor copy leaves in shared memory), descriptors (wgmma on one tile, with the
// settings of wgmma.cuh and others), products (both kernels against sums in fp64), times. Arguments name the
// parts that run; without any, all do.
#include <cublas_v2.h>

#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "tests/bench/grouped_gpu_check.cuh"

namespace moebius::cuda {

// Raw shared memory after a copy of the box at (column, row) = (64, 8) of a map.
__global__ void CopyKernel(const __grid_constant__ CUtensorMap map, Bf16* raw) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  __shared__ __align__(1024) Bf16 box[64 * 64];
  __shared__ uint64_t barrier;
  const uint32_t at = SharedAddress(&barrier);
  if (threadIdx.x == 0) {
    InitBarrier(at, 1);
    PublishBarriers();
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    ArriveExpecting(at, sizeof box);
    CopyBox(&map, 64, 8, SharedAddress(box), at);
  }
  WaitBarrier(at, 0);
  for (int i = threadIdx.x; i < 64 * 64; i += blockDim.x) raw[i] = box[i];
#endif
}

bool CheckSwizzle() {
  const int rows = 100, columns = 192;
  Buffer<Bf16> x(rows * columns), raw(64 * 64);
  FillRandom(x.data, rows * columns, 1);
  void* encode = nullptr;
  cudaDriverEntryPointQueryResult found;
  Check(
      cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &encode, 12000, cudaEnableDefault, &found));
  CUtensorMap map;
  const cuuint64_t sizes[2] = {columns, rows}, strides[1] = {columns * 2};
  const cuuint32_t box[2] = {64, 64}, steps[2] = {1, 1};
  const CUresult made = reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(encode)(
      &map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, x.data, sizes, strides, box, steps,
      CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
      CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (made != CUDA_SUCCESS) {
    std::printf("swizzle: cuTensorMapEncodeTiled gives %d\n", static_cast<int>(made));
    return false;
  }
  CopyKernel<<<1, 128>>>(map, raw.data);
  Check(cudaDeviceSynchronize());
  const std::vector<float> want = x.Floats(), got = raw.Floats();
  int wrong = 0, first = -1;
  for (int row = 0; row < 64; ++row) {
    for (int column = 0; column < 64; ++column) {
      const int at = row * 64 + (column / 8 ^ row % 8) * 8 + column % 8;
      if (got[at] != want[(row + 8) * columns + column + 64] && wrong++ == 0) first = at;
    }
  }
  std::printf("swizzle: %d of 4096 elements elsewhere than expected, first %d\n", wrong, first);
  return wrong == 0;
}

// One warpgroup: d [64, 256] = a [64, 64] · b [64, 256], put into shared memory by hand as wgmma.cuh says.
template <Major kA, Major kB>
__global__ void DescriptorKernel(const Bf16* a, const Bf16* b, float* d, uint32_t a_leading,
                                 uint32_t a_stride, uint32_t b_leading, uint32_t b_stride) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  extern __shared__ uint8_t shared[];
  uint8_t* base = shared + (1024 - SharedAddress(shared) % 1024) % 1024;
  // Element e of row r of the box that begins at `box`.
  const auto put = [](uint8_t* box, int r, int e, Bf16 value) {
    *reinterpret_cast<Bf16*>(box + r * 128 + (e / 8 ^ r % 8) * 16 + e % 8 * 2) = value;
  };
  for (int i = threadIdx.x; i < 64 * 64; i += 128) {
    const int m = i / 64, k = i % 64;
    put(base, kA == Major::kK ? m : k, kA == Major::kK ? k : m, a[i]);
  }
  for (int i = threadIdx.x; i < 64 * 256; i += 128) {
    const int k = i / 256, n = i % 256;
    put(base + 8192 + n / 64 * 8192, kB == Major::kK ? n % 64 : k, kB == Major::kK ? k : n % 64, b[i]);
  }
  PublishShared();
  __syncthreads();
  float sums[128];
  const uint64_t from_a = Descriptor(SharedAddress(base), a_leading, a_stride);
  const uint64_t from_b = Descriptor(SharedAddress(base) + 8192, b_leading, b_stride);
  WgmmaFence();
  for (int i = 0; i < 4; ++i)
    Wgmma<kA, kB>(sums, from_a + i * kTermsStep<kA>, from_b + i * kTermsStep<kB>, i > 0);
  WgmmaCommit();
  WgmmaWait<0>();
  Pin(sums);
  const int row = threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4;
  for (int i = 0; i < 128; ++i) {
    d[(row + i % 4 / 2 * 8) * 256 + i / 4 * 8 + threadIdx.x % 4 * 2 + i % 2] = sums[i];
  }
#endif
}

template <Major kA, Major kB>
bool CheckDescriptors(const char* name) {
  Buffer<Bf16> a(64 * 64), b(64 * 256);
  Buffer<float> d(64 * 256);
  FillRandom(a.data, 64 * 64, 2);
  FillRandom(b.data, 64 * 256, 3);
  const std::vector<float> x = a.Floats(), y = b.Floats();
  std::vector<double> want(64 * 256);
  for (int i = 0; i < 64 * 256; ++i) {
    for (int k = 0; k < 64; ++k) want[i] += double{x[i / 256 * 64 + k]} * y[k * 256 + i % 256];
  }
  const auto kernel = DescriptorKernel<kA, kB>;
  const int bytes = 96 * 1024;  // other settings read past the tiles
  Check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
  struct Setting {
    uint32_t leading, stride;
  };
  const Setting ours_a{kA == Major::kMN ? 8192u : 16u, 1024}, ours_b{kB == Major::kMN ? 8192u : 16u, 1024};
  bool right = false;
  // Others only where ours fail, and not for kK: they would read past the block's memory.
  std::vector<Setting> settings_a{ours_a}, settings_b{ours_b};
  if (kA == Major::kMN) settings_a.insert(settings_a.end(), {{1024, 8192}, {1024, 1024}});
  if (kB == Major::kMN) settings_b.insert(settings_b.end(), {{1024, 8192}, {8192, 8192}, {1024, 1024}});
  for (const Setting sa : settings_a) {
    for (const Setting sb : settings_b) {
      Check(cudaMemset(d.data, 0xFF, 64 * 256 * 4));
      kernel<<<1, 128, bytes>>>(a.data, b.data, d.data, sa.leading, sa.stride, sb.leading, sb.stride);
      Check(cudaDeviceSynchronize());
      const std::vector<float> got = d.Floats();
      double worst = 0;
      int wrong = 0, first = -1;
      for (int i = 0; i < 64 * 256; ++i) {
        const double error = std::abs(got[i] - want[i]);
        if (!(error < 1e-3) && wrong++ == 0) first = i;
        if (!(error <= worst)) worst = error;
      }
      const bool ours = sa.leading == ours_a.leading && sa.stride == ours_a.stride &&
                        sb.leading == ours_b.leading && sb.stride == ours_b.stride;
      std::printf(
          "descriptors %s: a (LBO %u, SBO %u) b (LBO %u, SBO %u): max error %.3g, wrong %d%s%s\n", name,
          sa.leading, sa.stride, sb.leading, sb.stride, worst, wrong,
          first < 0
              ? ""
              : (" first (" + std::to_string(first / 256) + ", " + std::to_string(first % 256) + ")").c_str(),
          ours ? "  <- in use" : "");
      if (ours) right = wrong == 0;
      if (right) return true;
    }
  }
  return right;
}

// Both kernels against sums in fp64; what belongs to no group is NaN in the inputs and must stay in results.
struct Tiles {
  GroupedTiles tiles;
  const char* name;
};
constexpr Tiles kTiles[] = {{GroupedTiles::kNarrow, "wgmma 128x128"},
                            {GroupedTiles::kWide, "wgmma 128x256"},
                            {GroupedTiles::kWidePairs, "wgmma pairs"}};

bool CheckCase(const GroupedWgmma& wgmma, const Case& c) {
  bool right = true;
  for (const GroupedProductKind kind : kKinds) {
    for (const bool bf16 : {false, true}) {
      for (const Tiles* kernel : {static_cast<const Tiles*>(nullptr), &kTiles[0], &kTiles[1], &kTiles[2]}) {
        if (kernel != nullptr && !bf16) continue;  // null: plain
        Operands operands(c, kind, bf16);
        if (kernel != nullptr && !wgmma.Takes(operands.problem)) continue;
        const auto run = [&] {
          operands.Reset();
          if (kernel == nullptr) {
            RunPlain(nullptr, PlainOf(operands.problem));
            Check(cudaGetLastError());
          } else {
            Check(wgmma.RunTiled(nullptr, operands.problem, kernel->tiles));
          }
          Check(cudaDeviceSynchronize());
        };
        run();
        const std::string what = std::string(Name(kind)) + (bf16 ? " bf16 " : " f32 ") +
                                 (kernel == nullptr ? "plain" : kernel->name) + ", " + c.name;
        const std::vector<uint8_t> once = operands.ResultBits();
        const bool near = operands.Compare(what);
        run();
        const bool same = once == operands.ResultBits();
        if (!same) std::printf("  %s: the second run gave other bits\n", what.c_str());
        right = right && near && same;
      }
    }
  }
  return right;
}

void TimeCase(const GroupedWgmma& wgmma, cublasHandle_t cublas, const Case& c) {
  for (const GroupedProductKind kind : kKinds) {
    Operands operands(c, kind, true);
    operands.Reset();
    const double flops = 2.0 * (c.offsets.back() - c.offsets.front()) * c.in * c.out;
    const auto report = [&](const char* kernel, double seconds) {
      std::printf("time %-15s %-13s %s: %8.3f ms %7.1f TFLOP/s\n", Name(kind), kernel, c.name.c_str(),
                  seconds * 1e3, flops / seconds / 1e12);
    };
    for (const Tiles& t : kTiles) {
      report(t.name, Median([&] { Check(wgmma.RunTiled(nullptr, operands.problem, t.tiles)); }));
    }
    report("chosen", Median([&] { Check(wgmma.Run(nullptr, operands.problem)); }));
    CublasGrouped grouped(operands);
    report("cublas grouped", Median([&] { grouped.Run(cublas); }));
  }
}

// One product of the same size without groups: what the card can do.
void TimeDense(cublasHandle_t cublas, int rows, int in, int out) {
  Buffer<Bf16> x(int64_t{rows} * in), w(int64_t{out} * in), y(int64_t{rows} * out);
  FillRandom(x.data, x.count, 1);
  FillRandom(w.data, w.count, 2);
  const float one = 1, zero = 0;
  const double seconds = Median([&] {
    const cublasStatus_t status = cublasGemmEx(cublas, CUBLAS_OP_T, CUBLAS_OP_N, out, rows, in, &one, w.data,
                                               CUDA_R_16BF, in, x.data, CUDA_R_16BF, in, &zero, y.data,
                                               CUDA_R_16BF, out, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT);
    if (status != CUBLAS_STATUS_SUCCESS) std::printf("cublasGemmEx: status %d\n", status);
  });
  std::printf("time dense cuBLAS %d x %d x %d: %.3f ms %.1f TFLOP/s\n", rows, out, in, seconds * 1e3,
              2.0 * rows * in * out / seconds / 1e12);
}

}  // namespace moebius::cuda

int main(int argc, char** argv) {
  using namespace moebius::cuda;
  const auto wanted = [&](const std::string& part) {
    for (int i = 1; i < argc; ++i) {
      if (argv[i] == part) return true;
    }
    return argc == 1;
  };
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  cudaDeviceProp properties;
  Check(cudaGetDeviceProperties(&properties, 0));
  std::printf("%s, %d multiprocessors\n", properties.name, properties.multiProcessorCount);
  const GroupedWgmma wgmma(properties);
  bool right = true;
  if (wanted("swizzle")) right = CheckSwizzle() && right;
  if (wanted("descriptors")) {
    right = CheckDescriptors<Major::kK, Major::kK>("a K, b K (forward)") && right;
    right = CheckDescriptors<Major::kK, Major::kMN>("a K, b MN (backward input)") && right;
    right = CheckDescriptors<Major::kMN, Major::kMN>("a MN, b MN (backward weight)") && right;
  }
  if (wanted("products")) {
    for (const Case& c : CheckedCases()) right = CheckCase(wgmma, c) && right;
  }
  if (wanted("times")) {
    cublasHandle_t cublas = nullptr;
    if (cublasCreate(&cublas) != CUBLAS_STATUS_SUCCESS) std::printf("no cuBLAS\n");
    TimeDense(cublas, 65536, 1536, 1536);
    TimeDense(cublas, 8192, 8192, 8192);
    for (const Case& c : TimedCases()) TimeCase(wgmma, cublas, c);
  }
  std::printf(right ? "all right\n" : "WRONG\n");
  return right ? 0 : 1;
}
