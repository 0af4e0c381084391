#include "parallel/comm/reduce.h"

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "core/base/check.h"

namespace moebius {

namespace {

// Elements at a time: the running result stays in the first-level cache.
constexpr int64_t kBlock = 1024;

float Widen(BF16 value) { return value.ToFloat(); }
template <typename T>
T Widen(T value) {
  return value;
}
void Narrow(float value, BF16& out) { out = BF16::FromFloat(value); }
template <typename T>
void Narrow(T value, T& out) {
  out = value;
}

struct Sum {
  template <typename A>
  A operator()(A a, A b) const {
    return a + b;
  }
};
struct Max {
  template <typename A>
  A operator()(A a, A b) const {
    if constexpr (std::is_floating_point_v<A>) {
      if (std::isnan(a)) return a;  // stays, from whichever rank
    }
    return a > b ? a : b;
  }
};

// T: as stored, A: as accumulated.
template <typename T, typename A, typename Op>
void Reduce(const std::vector<const void*>& contributions, int64_t count, void* out, Op op) {
  A running[kBlock];
  for (int64_t begin = 0; begin < count; begin += kBlock) {
    const int64_t n = std::min(kBlock, count - begin);
    const T* first = static_cast<const T*>(contributions[0]) + begin;
    for (int64_t i = 0; i < n; ++i) running[i] = Widen(first[i]);
    for (size_t rank = 1; rank < contributions.size(); ++rank) {
      const T* next = static_cast<const T*>(contributions[rank]) + begin;
      for (int64_t i = 0; i < n; ++i) running[i] = op(running[i], A{Widen(next[i])});
    }
    T* result = static_cast<T*>(out) + begin;
    for (int64_t i = 0; i < n; ++i) Narrow(running[i], result[i]);
  }
}

template <typename T, typename A>
void Reduce(ReduceOp op, const std::vector<const void*>& contributions, int64_t count, void* out) {
  if (op == ReduceOp::kSum) {
    Reduce<T, A>(contributions, count, out, Sum());
  } else {
    Reduce<T, A>(contributions, count, out, Max());
  }
}

}  // namespace

bool CanReduce(DType dtype) {
  return dtype == DType::kF32 || dtype == DType::kF64 || dtype == DType::kI64 || dtype == DType::kBF16;
}

void ReduceInRankOrder(DType dtype, ReduceOp op, const std::vector<const void*>& contributions, int64_t count,
                       void* out) {
  CHECK(CanReduce(dtype)) << dtype;
  if (dtype == DType::kF32) Reduce<float, float>(op, contributions, count, out);
  if (dtype == DType::kF64) Reduce<double, double>(op, contributions, count, out);
  if (dtype == DType::kI64) Reduce<int64_t, int64_t>(op, contributions, count, out);
  if (dtype == DType::kBF16) Reduce<BF16, float>(op, contributions, count, out);
}

}  // namespace moebius
