#include "parallel/exchange/row_sums.h"

#include <algorithm>

#include "parallel/exchange/row_values.h"

namespace moebius {
namespace {

// Columns in pieces whose sums stay in the first cache.
template <typename T>
void Sum(const RowGroups& groups, int64_t hidden, TensorView wire) {
  constexpr int64_t kPiece = 512;
  float sum[kPiece];
  const auto row = [&](int64_t r) { return reinterpret_cast<T*>(wire.as<uint8_t>() + r * wire.stride); };
  for (int64_t g = 0; g < groups.size(); ++g) {
    if (groups.begin[g + 1] - groups.begin[g] < 2) continue;
    for (int64_t begin = 0; begin < hidden; begin += kPiece) {
      const int64_t n = std::min(kPiece, hidden - begin);
      T* to = row(groups.first(g)) + begin;
      for (int64_t i = 0; i < n; ++i) sum[i] = ToFloat(to[i]);
      for (int32_t j = groups.begin[g] + 1; j < groups.begin[g + 1]; ++j) {
        const T* x = row(groups.rows[j]) + begin;
        for (int64_t i = 0; i < n; ++i) sum[i] += ToFloat(x[i]);
      }
      for (int64_t i = 0; i < n; ++i) Set(sum[i], to[i]);
    }
  }
}

}  // namespace

void SumInPlace(RowFormat format, int64_t hidden, const RowGroups& groups, TensorView wire) {
  CHECK(format != RowFormat::kF8);
  CHECK_EQ(wire.cols(), RowBytes(format, hidden));
  format == RowFormat::kF32 ? Sum<float>(groups, hidden, wire) : Sum<BF16>(groups, hidden, wire);
}

}  // namespace moebius
