// What grouped_gpu_check.cu runs on: buffers, cases, a reference in fp64, comparison, times.
#pragma once

#include <cublas_v2.h>
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "core/backend/cuda/grouped_wgmma.cuh"
#include "core/backend/cuda/grouped_wgmma.h"
#include "core/backend/cuda/plain_product.h"

namespace moebius::cuda {

using Bf16 = __nv_bfloat16;

inline void Check(cudaError_t error) {
  if (error == cudaSuccess) return;
  std::printf("CUDA: %s\n", cudaGetErrorString(error));
  std::fflush(stdout);
  std::exit(1);
}

inline float ToFloat(float x) { return x; }
inline float ToFloat(Bf16 x) { return __bfloat162float(x); }

template <typename T>
struct Buffer {
  explicit Buffer(int64_t n) : count(n) { Check(cudaMalloc(&data, std::max<int64_t>(n, 1) * sizeof(T))); }
  ~Buffer() { cudaFree(data); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  std::vector<T> Host() const {
    std::vector<T> host(count);
    Check(cudaMemcpy(host.data(), data, count * sizeof(T), cudaMemcpyDeviceToHost));
    return host;
  }
  std::vector<float> Floats() const {
    std::vector<float> out;
    out.reserve(count);
    for (const T x : Host()) out.push_back(ToFloat(x));
    return out;
  }
  T* data = nullptr;
  int64_t count;
};

__device__ inline float RandomAt(int64_t i, uint32_t seed) {  // in [-1, 1)
  uint64_t x = (static_cast<uint64_t>(i) + 1) * 0x9E3779B97F4A7C15u + seed * 0xD1B54A32D192ED03u;
  x = (x ^ x >> 32) * 0xD6E8FEB86659FD93u;
  x = (x ^ x >> 32) * 0xD6E8FEB86659FD93u;
  return static_cast<float>(static_cast<int32_t>(x >> 32)) * 4.656612873e-10f;
}

// Rows [begin, end) of columns [0, columns) are random, the rest NaN.
template <typename T>
__global__ void FillKernel(T* x, int64_t count, int64_t stride, int64_t columns, int64_t begin, int64_t end,
                           uint32_t seed) {
  const int64_t step = int64_t{gridDim.x} * blockDim.x;
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count; i += step) {
    const int64_t row = i / stride, column = i % stride;
    const bool in = row >= begin && row < end && column < columns;
    x[i] = T(in ? RandomAt(i, seed) : NAN);
  }
}
template <typename T>
void FillRandom(T* x, int64_t count, uint32_t seed) {
  FillKernel<<<1024, 256>>>(x, count, count, count, 0, 1, seed);
  Check(cudaGetLastError());
}

constexpr GroupedProductKind kKinds[] = {GroupedProductKind::kForward, GroupedProductKind::kBackwardInput,
                                         GroupedProductKind::kBackwardWeight};
inline const char* Name(GroupedProductKind kind) {
  return kind == GroupedProductKind::kForward         ? "forward"
         : kind == GroupedProductKind::kBackwardInput ? "backward input"
                                                      : "backward weight";
}

struct Case {
  std::string name;
  std::vector<int64_t> offsets;
  int64_t rows;  // of x and y
  int64_t in;
  int64_t out;
  int64_t gap;  // elements between rows of x and y
};

// Rows a group, the first of which begins at row `first`; `beyond` more rows than the groups own.
inline Case MakeCase(const std::string& name, const std::vector<int64_t>& sizes, int64_t in, int64_t out,
                     int64_t gap = 0, int64_t first = 0, int64_t beyond = 0) {
  Case c{.name = name, .offsets = {first}, .rows = 0, .in = in, .out = out, .gap = gap};
  for (const int64_t size : sizes) c.offsets.push_back(c.offsets.back() + size);
  c.rows = c.offsets.back() + beyond;
  c.name += " (" + std::to_string(in) + " -> " + std::to_string(out) + ")";
  return c;
}

inline std::vector<Case> CheckedCases() {
  std::vector<int64_t> many(150);
  for (int i = 0; i < 150; ++i) many[i] = i * 37 % 61;
  return {MakeCase("one tile", {128}, 64, 256),
          MakeCase("one tile, K of 5 blocks", {128}, 320, 256),
          MakeCase("rows of whole blocks", {256, 128, 384}, 256, 512),
          MakeCase("ragged", {0, 1, 127, 0, 129, 64, 1000, 0}, 192, 320, 8, 5, 40),
          MakeCase("ragged, narrow", {3, 700, 0, 65, 1, 63}, 64, 64, 0, 0, 1),
          MakeCase("ragged, long", {2500, 0, 77, 4100}, 448, 832, 64, 130, 300),
          MakeCase("150 groups", many, 128, 192, 0, 0, 9),
          MakeCase("unaligned", {0, 1, 5, 0, 25, 729, 11, 0}, 70, 53, 3, 0, 9),
          MakeCase("one row", {1}, 128, 128),
          MakeCase("no rows in any group", {0, 0, 0}, 128, 128, 0, 2, 7)};
}

inline std::vector<Case> TimedCases() {
  const auto spread = [](int64_t groups, int64_t rows) {  // around `rows` each
    std::vector<int64_t> sizes(groups);
    for (int64_t i = 0; i < groups; ++i)
      sizes[i] = std::max<int64_t>(rows + (i * 29 % 41 - 20) * rows / 100, 1);
    return sizes;
  };
  return {
      MakeCase("64 x ~3072", spread(64, 3072), 1536, 1536),
      MakeCase("64 x ~3072", spread(64, 3072), 768, 1536), MakeCase("8 x ~4096", spread(8, 4096), 7168, 4096),
      MakeCase("64 x ~256", spread(64, 256), 2048, 2816), MakeCase("64 x ~32", spread(64, 32), 1536, 1536)};
}

// Element (row, column) of a result in fp64: row of x or y, or row of w.
template <typename T, typename W>
__global__ void ReferenceKernel(GroupedProblem p, double* want, int64_t rows, int64_t columns) {
  const T* x = static_cast<const T*>(p.x);
  const T* y = static_cast<const T*>(p.y);
  const W* w = static_cast<const W*>(p.w);
  const int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= rows * columns) return;
  const int64_t row = i / columns, column = i % columns;
  double sum = 0;
  if (p.kind == GroupedProductKind::kBackwardWeight) {
    const int64_t g = row / p.out, o = row % p.out;
    for (int64_t r = p.offsets[g]; r < p.offsets[g + 1]; ++r) {
      sum += double{float(y[r * p.y_stride + o])} * double{float(x[r * p.x_stride + column])};
    }
  } else {
    int64_t g = 0;
    while (g < p.groups && !(row >= p.offsets[g] && row < p.offsets[g + 1])) ++g;
    if (g == p.groups) return;  // of no group
    const bool forward = p.kind == GroupedProductKind::kForward;
    for (int64_t k = 0; k < (forward ? p.in : p.out); ++k) {
      const T a = forward ? x[row * p.x_stride + k] : y[row * p.y_stride + k];
      const W b = w[(g * p.out + (forward ? column : k)) * p.w_stride + (forward ? k : column)];
      sum += double{float(a)} * double{float(b)};
    }
  }
  want[i] = sum;
}

// A case's operands in device memory.
class Operands {
 public:
  Operands(const Case& c, GroupedProductKind kind, bool bf16)
      : weight_(kind == GroupedProductKind::kBackwardWeight),
        size_(bf16 ? 2 : 4),
        w_size_(weight_ ? 4 : size_),
        x_(c.rows * (c.in + c.gap) * size_),
        y_(c.rows * (c.out + c.gap) * size_),
        w_((static_cast<int64_t>(c.offsets.size()) - 1) * c.out * c.in * w_size_),
        offsets_(static_cast<int64_t>(c.offsets.size())),
        host_offsets(c.offsets) {
    Check(cudaMemcpy(offsets_.data, c.offsets.data(), c.offsets.size() * 8, cudaMemcpyHostToDevice));
    problem = {.kind = kind,
               .bf16 = bf16,
               .x = x_.data,
               .w = w_.data,
               .y = y_.data,
               .x_stride = c.in + c.gap,
               .y_stride = c.out + c.gap,
               .w_stride = c.in,
               .rows = c.rows,
               .groups = static_cast<int64_t>(c.offsets.size()) - 1,
               .out = c.out,
               .in = c.in,
               .offsets = offsets_.data};
  }

  // Inputs random in the groups' rows and NaN elsewhere; the result a byte pattern, w's gradient random.
  void Reset() {
    const auto fill = [&](Buffer<uint8_t>& buffer, int64_t size, int64_t stride, int64_t columns,
                          int64_t begin, int64_t end, uint32_t seed) {
      if (size == 2) {
        FillKernel<<<1024, 256>>>(reinterpret_cast<Bf16*>(buffer.data), buffer.count / 2, stride, columns,
                                  begin, end, seed);
      } else {
        FillKernel<<<1024, 256>>>(reinterpret_cast<float*>(buffer.data), buffer.count / 4, stride, columns,
                                  begin, end, seed);
      }
      Check(cudaGetLastError());
    };
    const int64_t begin = host_offsets.front(), end = host_offsets.back();
    fill(x_, size_, problem.x_stride, problem.in, begin, end, 1);
    fill(y_, size_, problem.y_stride, problem.out, begin, end, 2);
    fill(w_, w_size_, problem.in, problem.in, 0, problem.groups * problem.out, 3);
    if (!weight_) Check(cudaMemset(Result().data, 0x3D, Result().count));
  }

  std::vector<uint8_t> ResultBits() const { return const_cast<Operands*>(this)->Result().Host(); }

  // Prints the greatest error and, when something is wrong, where.
  bool Compare(const std::string& what) { return Compare(what, problem, 1e-4); }

  // As the other, against the product that `wanted_problem` describes; errors of `share` of its root mean
  // square may be. Of a weight's gradient also errors of `cut` of what the group's sums of 128 terms come to:
  // sqrt(their squares' sum), which is the root mean square of the group's elements, more where a product is
  // large in all of them.
  bool Compare(const std::string& what, const GroupedProblem& wanted_problem, double share, double cut = 0) {
    const int64_t columns = problem.kind == GroupedProductKind::kForward ? problem.out : problem.in;
    const int64_t rows = weight_ ? problem.groups * problem.out : problem.rows;
    const int64_t stride = weight_                                        ? problem.w_stride
                           : problem.kind == GroupedProductKind::kForward ? problem.y_stride
                                                                          : problem.x_stride;
    const int64_t size = weight_ ? 4 : size_;
    const std::vector<uint8_t> got = ResultBits();
    const std::vector<double> want = Reference(wanted_problem, rows, columns);
    std::vector<uint8_t> before(got.size(), 0x3D);
    if (weight_) {
      Reset();
      before = ResultBits();
    }
    const auto value = [&](const std::vector<uint8_t>& bytes, int64_t i) {
      return size == 2 ? ToFloat(reinterpret_cast<const Bf16*>(bytes.data())[i])
                       : reinterpret_cast<const float*>(bytes.data())[i];
    };
    double worst = 0, squares = 0;
    int64_t checked = 0, wrong = 0, touched = 0, first = -1, group = 0;
    int tiles[8][8] = {};  // wrong elements by position in a tile of 128 x 256, in pieces of 16 x 32
    for (const double x : want) squares += x * x;
    const double scale = std::sqrt(squares / std::max<size_t>(want.size(), 1)) + 1e-30;
    std::vector<double> group_squares(problem.groups, 0.0);  // mean squares
    if (weight_) {
      const double share_of_one = 1.0 / (problem.out * columns);
      for (size_t i = 0; i < want.size(); ++i)
        group_squares[i / (problem.out * columns)] += want[i] * want[i] * share_of_one;
    }
    for (int64_t row = 0; row < rows; ++row) {
      const bool owned = weight_ || (row >= host_offsets.front() && row < host_offsets.back());
      if (weight_) {
        group = row / problem.out;
      } else {
        while (group + 1 < problem.groups && row >= host_offsets[group + 1]) ++group;
      }
      const int64_t row_in_group = row - (weight_ ? group * problem.out : host_offsets[group]);
      const bool stays = !owned || (weight_ && host_offsets[group] == host_offsets[group + 1]);
      for (int64_t column = 0; column < stride; ++column) {
        const int64_t i = row * stride + column;
        if (stays || column >= columns) {
          touched += !std::equal(&got[i * size], &got[i * size] + size, &before[i * size]);
          continue;
        }
        const double wanted = want[row * columns + column] + (weight_ ? value(before, i) : 0.0);
        const double error = std::abs(value(got, i) - wanted);
        double bound = (size == 2 ? 0.004 : 2e-6) * std::abs(wanted) + share * scale;
        if (weight_) {
          const double product = want[row * columns + column];
          const double tiles = (host_offsets[group + 1] - host_offsets[group] + 127) / 128;
          bound += cut * std::sqrt(group_squares[group] + product * product / tiles);
        }
        ++checked;
        if (!(error <= worst)) worst = error;
        if (error <= bound) continue;
        if (wrong++ == 0) first = i;
        ++tiles[row_in_group % 128 / 16][column % 256 / 32];
      }
    }
    std::printf("%s %s: max error %.2e of rms, %lld of %lld wrong, %lld touched\n",
                wrong == 0 && touched == 0 ? "ok   " : "WRONG", what.c_str(), worst / scale,
                static_cast<long long>(wrong), static_cast<long long>(checked),
                static_cast<long long>(touched));
    if (wrong == 0) return touched == 0;
    const int64_t row = first / stride, column = first % stride;
    std::printf("  first (%lld, %lld): %g, want %g; by 16 rows x 32 columns of a tile:\n",
                static_cast<long long>(row), static_cast<long long>(column), value(got, first),
                want[row * columns + column] + (weight_ ? value(before, first) : 0.0));
    for (const auto& line : tiles) {
      std::printf("   ");
      for (const int count : line) std::printf(" %7d", count);
      std::printf("\n");
    }
    return false;
  }

  GroupedProblem problem;

 private:
  Buffer<uint8_t>& Result() { return weight_ ? w_ : problem.kind == GroupedProductKind::kForward ? y_ : x_; }

  // 0 for rows of no group.
  std::vector<double> Reference(const GroupedProblem& p, int64_t rows, int64_t columns) {
    Buffer<double> want(rows * columns);
    Check(cudaMemset(want.data, 0, want.count * sizeof(double)));
    const int blocks = static_cast<int>((rows * columns + 255) / 256);
    if (!p.bf16) {
      ReferenceKernel<float, float><<<blocks, 256>>>(p, want.data, rows, columns);
    } else if (weight_) {
      ReferenceKernel<Bf16, float><<<blocks, 256>>>(p, want.data, rows, columns);
    } else {
      ReferenceKernel<Bf16, Bf16><<<blocks, 256>>>(p, want.data, rows, columns);
    }
    Check(cudaGetLastError());
    return want.Host();
  }

  bool weight_;
  int64_t size_;
  int64_t w_size_;
  Buffer<uint8_t> x_;
  Buffer<uint8_t> y_;
  Buffer<uint8_t> w_;
  Buffer<int64_t> offsets_;

 public:
  std::vector<int64_t> host_offsets;
};

// The same product by cuBLAS, with offsets that the host knows.
class CublasGrouped {
 public:
  explicit CublasGrouped(const Operands& operands) : p_(operands.problem), pointers_(3 * p_.groups) {
    const bool forward = p_.kind == GroupedProductKind::kForward,
               weight = p_.kind == GroupedProductKind::kBackwardWeight;
    std::vector<void*> a, b, c;
    for (int64_t g = 0; g < p_.groups; ++g) {
      const int64_t begin = operands.host_offsets[g];
      const int rows = static_cast<int>(operands.host_offsets[g + 1] - begin);
      void* x = static_cast<Bf16*>(p_.x) + begin * p_.x_stride;
      void* y = static_cast<Bf16*>(p_.y) + begin * p_.y_stride;
      void* w = static_cast<char*>(p_.w) + g * p_.out * p_.w_stride * (weight ? 4 : 2);
      a.push_back(weight ? x : w);  // cuBLAS's a and b are our b and a
      b.push_back(forward ? x : y);
      c.push_back(weight ? w : forward ? y : x);
      m_.push_back(static_cast<int>(forward ? p_.out : p_.in));
      n_.push_back(weight ? static_cast<int>(p_.out) : rows);
      k_.push_back(forward ? static_cast<int>(p_.in) : weight ? rows : static_cast<int>(p_.out));
    }
    lda_.assign(p_.groups, static_cast<int>(weight ? p_.x_stride : p_.w_stride));
    ldb_.assign(p_.groups, static_cast<int>(forward ? p_.x_stride : p_.y_stride));
    ldc_.assign(p_.groups, static_cast<int>(weight ? p_.w_stride : forward ? p_.y_stride : p_.x_stride));
    ta_.assign(p_.groups, forward ? CUBLAS_OP_T : CUBLAS_OP_N);
    tb_.assign(p_.groups, weight ? CUBLAS_OP_T : CUBLAS_OP_N);
    one_.assign(p_.groups, 1);
    beta_.assign(p_.groups, weight ? 1.0f : 0.0f);
    sizes_.assign(p_.groups, 1);
    a.insert(a.end(), b.begin(), b.end());
    a.insert(a.end(), c.begin(), c.end());
    Check(cudaMemcpy(pointers_.data, a.data(), a.size() * sizeof(void*), cudaMemcpyHostToDevice));
  }

  void Run(cublasHandle_t cublas) {
    void** at = pointers_.data;
    const cublasStatus_t status = cublasGemmGroupedBatchedEx(
        cublas, ta_.data(), tb_.data(), m_.data(), n_.data(), k_.data(), one_.data(), at, CUDA_R_16BF,
        lda_.data(), at + p_.groups, CUDA_R_16BF, ldb_.data(), beta_.data(), at + 2 * p_.groups,
        p_.kind == GroupedProductKind::kBackwardWeight ? CUDA_R_32F : CUDA_R_16BF, ldc_.data(),
        static_cast<int>(p_.groups), sizes_.data(), CUBLAS_COMPUTE_32F);
    if (status != CUBLAS_STATUS_SUCCESS && !failed_) {
      std::printf("cublasGemmGroupedBatchedEx: status %d; its time below says nothing\n", status);
      failed_ = true;
    }
  }

 private:
  GroupedProblem p_;
  Buffer<void*> pointers_;
  std::vector<int> m_, n_, k_, lda_, ldb_, ldc_, sizes_;
  std::vector<cublasOperation_t> ta_, tb_;
  std::vector<float> one_, beta_;
  bool failed_ = false;
};

// Median seconds of a call, of 15 after 3 that are not counted.
template <typename F>
double Median(const F& call) {
  cudaEvent_t begin, end;
  Check(cudaEventCreate(&begin));
  Check(cudaEventCreate(&end));
  std::vector<double> seconds;
  for (int i = 0; i < 18; ++i) {
    Check(cudaEventRecord(begin));
    call();
    Check(cudaEventRecord(end));
    Check(cudaEventSynchronize(end));
    float ms = 0;
    Check(cudaEventElapsedTime(&ms, begin, end));
    if (i >= 3) seconds.push_back(ms / 1e3);
  }
  Check(cudaEventDestroy(begin));
  Check(cudaEventDestroy(end));
  std::nth_element(seconds.begin(), seconds.begin() + 7, seconds.end());
  return seconds[7];
}

}  // namespace moebius::cuda
