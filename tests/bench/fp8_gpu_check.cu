// Checks and times the FP8 products of CUDA by themselves, on a machine with nothing but nvcc:
//   nvcc -std=c++20 -O3 -I. -gencode arch=compute_90a,code=sm_90a tests/bench/fp8_gpu_check.cu
//     core/backend/cuda/{fp8_quantize,fp8_round,fp8_wgmma,plain_product,grouped_wgmma}.cu -lcublasLt -lcublas
//     -o fp8_gpu_check
// Parts: round (the fast rounding against the plain one), products (our kernel against sums in fp64 of
// operands that the plain rounding has rounded), cublas (cuBLASLt likewise), times. Arguments name the parts
// that run; without any, all run. Schedules promise the bits of the direct one, and are held to it.
#include <cstdio>
#include <string>
#include <vector>

#include "tests/bench/fp8_gpu_check.cuh"

namespace moebius::cuda {

bool CheckRounding(const std::string& what, const Fp8Source& source, const std::vector<int64_t>& offsets) {
  Fp8Matrix matrix = MatrixOf(source);
  Buffer<uint8_t> memory(matrix.Bytes());
  Check(cudaMemset(memory.data, 0x7F, memory.count));  // NaN, in values and in scales
  matrix.Place(memory.data);
  const int64_t count = source.rows * source.cols;
  Buffer<float> fast(count), plain(count);
  Check(cudaMemset(fast.data, 0, count * 4));
  Check(cudaMemset(plain.data, 0, count * 4));
  Quantize(nullptr, source, matrix);
  Check(cudaGetLastError());
  RoundToFp8(nullptr, source, plain.data);
  Check(cudaGetLastError());
  Restore(source, matrix, offsets, fast.data);
  Check(cudaDeviceSynchronize());
  const std::vector<float> got = fast.Host(), want = plain.Host();
  int64_t wrong = 0, first = -1;
  for (int64_t i = 0; i < count; ++i) {
    const bool same = got[i] == want[i] || (std::isnan(got[i]) && std::isnan(want[i]));
    if (!same && wrong++ == 0) first = i;
  }
  std::printf("%s round %s: %lld of %lld differ\n", wrong == 0 ? "ok   " : "WRONG", what.c_str(),
              static_cast<long long>(wrong), static_cast<long long>(count));
  if (wrong != 0) {
    std::printf("  first (%lld, %lld): %g, want %g\n", static_cast<long long>(first / source.cols),
                static_cast<long long>(first % source.cols), got[first], want[first]);
  }
  return wrong == 0;
}

bool CheckCaseRounding(const Case& c) {
  bool right = true;
  for (const GroupedProductKind kind : kKinds) {
    Fp8Operands operands(c, kind);
    operands.Reset();
    const std::string what = std::string(Name(kind)) + ", " + c.name;
    for (const bool first : {true, false}) {
      const Fp8Source& source = first ? operands.a : operands.b;
      if (!CanQuantize(source)) continue;
      right = CheckRounding(what + (first ? ", a" : ", b"), source, c.offsets) && right;
    }
  }
  return right;
}

// Magnitudes from subnormal to the largest, zeros and NaN: scales that fp32 hardly holds.
bool CheckExtremes() {
  const int64_t rows = 300, cols = 520;
  Buffer<Bf16> x(rows * cols);
  FillExtremes<<<256, 256>>>(x.data, rows, cols);
  Check(cudaGetLastError());
  Fp8Source s{.x = x.data, .stride = cols, .rows = rows, .cols = cols};
  bool right = CheckRounding("extremes, rows", s, {});
  s.tiles = Fp8Tiles::kAlongColumn;
  right = CheckRounding("extremes, columns", s, {}) && right;
  s.tiles = Fp8Tiles::kBlocks;
  right = CheckRounding("extremes, blocks", s, {}) && right;
  s.transposed = true;
  return CheckRounding("extremes, blocks transposed", s, {}) && right;
}

struct Schedule {
  Fp8Schedule schedule;
  const char* name;
};
constexpr Schedule kDirect = {Fp8Schedule::kDirect, "fp8 direct"};
constexpr Schedule kOthers[] = {{Fp8Schedule::kStaged, "fp8 staged"},
                                {Fp8Schedule::kAhead, "fp8 ahead"},
                                {Fp8Schedule::kStagedPairs, "fp8 staged pairs"},
                                {Fp8Schedule::kAheadPairs, "fp8 ahead pairs"}};

std::vector<uint8_t> BitsOf(const Fp8Wgmma& wgmma, Fp8Operands& operands, Fp8Schedule schedule) {
  operands.Reset();
  operands.Round();
  Check(wgmma.RunAs(nullptr, operands.product, schedule));
  Check(cudaDeviceSynchronize());
  return operands.ResultBits();
}

// Against the direct schedule's, several times.
bool CheckSameBits(const Fp8Wgmma& wgmma, Fp8Operands& operands, const std::string& case_name, int times) {
  const std::vector<uint8_t> want = BitsOf(wgmma, operands, Fp8Schedule::kDirect);
  bool right = true;
  for (const Schedule& s : kOthers) {
    int64_t differ = 0;
    for (int i = 0; i < times; ++i) {
      const std::vector<uint8_t> got = BitsOf(wgmma, operands, s.schedule);
      for (size_t b = 0; b < got.size(); ++b) differ += got[b] != want[b];
    }
    std::printf("%s %s %s, %s: %lld bytes differ from the direct schedule's\n",
                differ == 0 ? "ok   " : "WRONG", Name(operands.problem.kind), s.name, case_name.c_str(),
                static_cast<long long>(differ));
    right = right && differ == 0;
  }
  return right;
}

bool CheckCase(const Fp8Wgmma& wgmma, const Case& c) {
  bool right = true;
  for (const GroupedProductKind kind : kKinds) {
    Fp8Operands operands(c, kind);
    const std::string what = std::string(Name(kind)) + " " + kDirect.name + ", " + c.name;
    if (!CanQuantize(operands.a) || !CanQuantize(operands.b) || !wgmma.Takes(operands.product)) {
      std::printf("      %s: not taken\n", what.c_str());
      continue;
    }
    const std::vector<uint8_t> once = BitsOf(wgmma, operands, kDirect.schedule);
    const bool near = operands.Compare(what);
    const bool same = once == BitsOf(wgmma, operands, kDirect.schedule);
    if (!same) std::printf("  %s: the second run gave other bits\n", what.c_str());
    right = right && near && same;
    right = CheckSameBits(wgmma, operands, c.name, 3) && right;
    if (wgmma.PartBytes(operands.product) == 0) continue;
    Buffer<uint8_t> parts(wgmma.PartBytes(operands.product));
    operands.product.parts = parts.data;
    for (const Schedule& s : kOthers) {
      Check(cudaMemset(parts.data, 0x7F, parts.count));
      const std::vector<uint8_t> first = BitsOf(wgmma, operands, s.schedule);
      right = operands.Compare(what + ", " + s.name + " in parts") && right;
      if (first != BitsOf(wgmma, operands, s.schedule)) {
        std::printf("WRONG %s in parts: the second run gave other bits\n", s.name);
        right = false;
      }
    }
    operands.product.parts = nullptr;
  }
  return right;
}

// One group of all rows: what cuBLASLt makes of the same operands.
bool CheckCublas(const Case& c) {
  bool right = true;
  for (const GroupedProductKind kind : kKinds) {
    Fp8Operands operands(c, kind);
    operands.Reset();
    operands.Round();
    CublasFp8 cublas(operands);
    const std::string what = std::string(Name(kind)) + " cuBLASLt, " + c.name;
    if (!cublas.Run()) {
      std::printf("      %s: not taken\n", what.c_str());
      continue;
    }
    Check(cudaDeviceSynchronize());
    right = operands.Compare(what) && right;
  }
  return right;
}

// Times, and that schedules agree on this many tiles.
bool TimeCase(const GroupedWgmma& bf16, const Fp8Wgmma& wgmma, const Case& c, bool dense) {
  bool right = true;
  for (const GroupedProductKind kind : kKinds) {
    Fp8Operands operands(c, kind);
    operands.Reset();
    const double flops = 2.0 * (c.offsets.back() - c.offsets.front()) * c.in * c.out;
    const auto report = [&](const char* kernel, double seconds) {
      std::printf("time %-15s %-16s %s: %8.3f ms %7.1f TFLOP/s\n", Name(kind), kernel, c.name.c_str(),
                  seconds * 1e3, flops / seconds / 1e12);
      return seconds;
    };
    double best = report("bf16", Median([&] { Check(bf16.Run(nullptr, operands.problem)); }));
    if (dense) best = std::min(best, report("bf16 cublas", Median([&] { operands.RunCublasBf16(); })));
    double rounding = 0;
    for (const bool first : {true, false}) {
      const Fp8Source& s = first ? operands.a : operands.b;
      const double seconds =
          Median([&] { Quantize(nullptr, s, first ? operands.product.a : operands.product.b); });
      std::printf("time %-15s round %s        %s: %8.3f ms %7.1f GB/s\n", Name(kind), first ? "a" : "b",
                  c.name.c_str(), seconds * 1e3, 3.0 * s.rows * s.cols / seconds / 1e9);
      rounding += seconds;
    }
    Check(cudaGetLastError());
    double product = 1e30;
    for (const Schedule& schedule : kOthers) {
      const double seconds =
          Median([&] { Check(wgmma.RunAs(nullptr, operands.product, schedule.schedule)); });
      product = std::min(product, report(schedule.name, seconds));
    }
    if (const int64_t bytes = wgmma.PartBytes(operands.product); bytes > 0) {
      Buffer<uint8_t> parts(bytes);
      operands.product.parts = parts.data;
      for (const Schedule& s : kOthers) {
        const double seconds = Median([&] { Check(wgmma.RunAs(nullptr, operands.product, s.schedule)); });
        product = std::min(product, report((s.name + std::string(" parts")).c_str(), seconds));
      }
      operands.product.parts = nullptr;
    }
    if (dense) {
      CublasFp8 cublas(operands);
      if (cublas.Run()) product = std::min(product, report("fp8 cublas", Median([&] { cublas.Run(); })));
    }
    std::printf("     %-15s best of all: product alone %.2f x, with rounding %.2f x the speed of bf16\n",
                Name(kind), best / product, best / (product + rounding));
    right = CheckSameBits(wgmma, operands, c.name, 1) && right;
  }
  return right;
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
  std::printf("%s, %d multiprocessors, cuBLASLt %zu\n", properties.name, properties.multiProcessorCount,
              cublasLtGetVersion());
  const GroupedWgmma bf16(properties);
  const Fp8Wgmma wgmma(properties);
  std::vector<Case> cases = CheckedCases();
  cases.push_back(MakeCase("deep", {300, 0, 1029, 640}, 1536, 776, 8, 0, 3));
  cases.push_back(MakeCase("ragged, multiples of 8", {65, 0, 200, 7}, 136, 200, 0, 0, 1));
  cases.push_back(MakeCase("tiles in parts", {3001}, 840, 1000));
  cases.push_back(MakeCase("tiles in parts", {5120}, 1544, 1536));
  bool right = true;
  if (wanted("round")) {
    right = CheckExtremes() && right;
    for (const Case& c : cases) right = CheckCaseRounding(c) && right;
  }
  if (wanted("products")) {
    for (const Case& c : cases) right = CheckCase(wgmma, c) && right;
  }
  if (wanted("cublas")) {
    for (const int rows : {256, 1000}) {
      right = CheckCublas(MakeCase("dense", {rows}, 512, 384)) && right;
      right = CheckCublas(MakeCase("dense", {rows}, 1536, 640)) && right;
      right = CheckCublas(MakeCase("dense, short tiles", {rows}, 192, 576)) && right;
    }
  }
  if (wanted("times")) {
    for (const Case& c : TimedCases()) right = TimeCase(bf16, wgmma, c, false) && right;
    for (const auto& [in, out] : {std::pair{1536, 6144}, {1536, 3072}, {6144, 1536}, {3072, 1536}}) {
      right = TimeCase(bf16, wgmma, MakeCase("dense 32768", {32768}, in, out), true) && right;
    }
  }
  std::printf(right ? "all right\n" : "WRONG\n");
  return right ? 0 : 1;
}
