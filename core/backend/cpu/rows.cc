// Rows on their way to experts and back: sorted by expert, gathered, summed. All bound by memory.
#include <algorithm>
#include <cstring>
#include <vector>

#include "core/backend/cpu/cpu_backend.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/backend/cpu/rows.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
//
#include "core/backend/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace moebius {
namespace HWY_NAMESPACE {

// out = add (or 0) + rows in order, summed in fp32. Columns in pieces, so that a piece's sums stay in
// registers.
template <typename T>
HWY_INLINE void CombineRow(const T* const* rows, int64_t count, const T* add, int64_t n, T* out) {
  const int64_t step = 4 * Lanes();
  int64_t i = 0;
  for (; i + step <= n; i += step) {
    const int64_t l = Lanes();
    VF a = Set(0), b = a, c = a, d = a;
    if (add != nullptr)
      a = Load(add + i), b = Load(add + i + l), c = Load(add + i + 2 * l), d = Load(add + i + 3 * l);
    for (int64_t k = 0; k < count; ++k) {
      const T* row = rows[k] + i;
      a = hn::Add(a, Load(row));
      b = hn::Add(b, Load(row + l));
      c = hn::Add(c, Load(row + 2 * l));
      d = hn::Add(d, Load(row + 3 * l));
    }
    Store(a, out + i);
    Store(b, out + i + l);
    Store(c, out + i + 2 * l);
    Store(d, out + i + 3 * l);
  }
  Sweep(n - i, [&](int64_t j, auto part) HWY_ATTR {
    VF sum = add != nullptr ? Load(add + i + j, part) : Set(0);
    for (int64_t k = 0; k < count; ++k) sum = hn::Add(sum, Load(rows[k] + i + j, part));
    Store(sum, out + i + j, part);
  });
}

template <typename T>
void CombineTokens(const CombineRowsArgs& args, int64_t begin, int64_t end) {
  const int64_t k = args.row_of.cols(), n = args.out.cols();
  std::vector<const T*> rows(k);
  for (int64_t t = begin; t < end; ++t) {
    const int32_t* row_of = static_cast<const int32_t*>(args.row_of.data) + t * args.row_of.stride;
    int64_t count = 0;
    for (int64_t i = 0; i < k; ++i) {
      if (row_of[i] >= 0)
        rows[count++] = static_cast<const T*>(args.rows.data) + row_of[i] * args.rows.stride;
    }
    const T* add = args.add ? static_cast<const T*>(args.add.data) + t * args.add.stride : nullptr;
    CombineRow(rows.data(), count, add, n, static_cast<T*>(args.out.data) + t * args.out.stride);
  }
}

void Combine(const CombineRowsArgs& args, int64_t begin, int64_t end) {
  if (args.out.dtype == DType::kF32) {
    CombineTokens<float>(args, begin, end);
  } else {
    CombineTokens<BF16>(args, begin, end);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace moebius
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace moebius {

HWY_EXPORT(Combine);

namespace {

// Rows of a task: enough bytes that handing it out costs nothing beside moving them.
int64_t RowsATask(int64_t row_bytes) {
  return std::max<int64_t>(1, (int64_t{64} << 10) / std::max<int64_t>(row_bytes, 1));
}

}  // namespace

// A counting sort in fixed pieces of choices: counts, then where each piece's rows of each expert begin, then
// places.
void CpuBackend::RouteSort(Stream&, const RouteSortArgs& args) {
  constexpr int64_t kPiece = 4096;
  const int64_t k = args.experts.cols();
  const int64_t choices = args.experts.rows() * k;
  const int64_t num_experts = args.offsets.elements() - 1;
  const int64_t pieces = (choices + kPiece - 1) / kPiece;
  // Among those sorted; -1: another.
  const auto expert_of = [&](int64_t choice) {
    const int32_t expert =
        static_cast<const int32_t*>(args.experts.data)[choice / k * args.experts.stride + choice % k];
    const bool sorted = expert >= args.first && expert < args.first + num_experts;
    CHECK(sorted || args.others) << "choice " << choice << " is expert " << expert << " of " << num_experts;
    return sorted ? expert - args.first : -1;
  };
  std::vector<int64_t> next(pieces * num_experts, 0);
  pool_.Run(pieces, [&](int64_t piece, int) {
    for (int64_t i = piece * kPiece; i < std::min(choices, (piece + 1) * kPiece); ++i) {
      if (const int32_t expert = expert_of(i); expert >= 0) ++next[piece * num_experts + expert];
    }
  });
  int64_t* offsets = args.offsets.as<int64_t>();
  int64_t row = 0;
  for (int64_t expert = 0; expert < num_experts; ++expert) {
    offsets[expert] = row;
    for (int64_t piece = 0; piece < pieces; ++piece) {
      const int64_t count = next[piece * num_experts + expert];
      next[piece * num_experts + expert] = row;
      row += count;
    }
  }
  offsets[num_experts] = row;
  CHECK_LE(row, args.choice_of.elements()) << "rows, and the room for them";
  int32_t* choice_of = args.choice_of.as<int32_t>();
  std::fill(choice_of + row, choice_of + args.choice_of.elements(), 0);
  pool_.Run(pieces, [&](int64_t piece, int) {
    int32_t* row_of = args.row_of.as<int32_t>();
    for (int64_t i = piece * kPiece; i < std::min(choices, (piece + 1) * kPiece); ++i) {
      const int32_t expert = expert_of(i);
      const int64_t to = expert >= 0 ? next[piece * num_experts + expert]++ : kNoRow;
      row_of[i / k * args.row_of.stride + i % k] = static_cast<int32_t>(to);
      if (to >= 0) choice_of[to] = static_cast<int32_t>(i);
    }
  });
}

void CpuBackend::GatherRows(Stream&, const GatherRowsArgs& args) {
  const int64_t n = args.index.elements();
  const int64_t size = SizeOf(args.x.dtype);
  const int64_t bytes = args.x.cols() * size;
  const int64_t rows = RowsATask(bytes);
  const int32_t* index = args.index.as<int32_t>();
  pool_.Run((n + rows - 1) / rows, [&](int64_t task, int) {
    for (int64_t i = task * rows; i < std::min(n, (task + 1) * rows); ++i) {
      std::memcpy(static_cast<char*>(args.out.data) + i * args.out.stride * size,
                  static_cast<const char*>(args.x.data) + index[i] / args.divisor * args.x.stride * size,
                  bytes);
    }
  });
}

void CpuBackend::ScatterRows(Stream&, const ScatterRowsArgs& args) {
  const int64_t n = args.index.elements();
  const int64_t size = SizeOf(args.x.dtype);
  const int64_t bytes = args.x.cols() * size;
  const int64_t rows = RowsATask(bytes);
  const int32_t* index = args.index.as<int32_t>();
  pool_.Run((n + rows - 1) / rows, [&](int64_t task, int) {
    for (int64_t i = task * rows; i < std::min(n, (task + 1) * rows); ++i) {
      std::memcpy(static_cast<char*>(args.out.data) + index[i] * args.out.stride * size,
                  static_cast<const char*>(args.x.data) + i * args.x.stride * size, bytes);
    }
  });
}

void CpuBackend::CombineRows(Stream&, const CombineRowsArgs& args) {
  const int64_t tokens = args.out.rows();
  const int64_t rows = RowsATask(args.out.cols() * SizeOf(args.out.dtype) * (args.row_of.cols() + 1));
  const auto combine = HWY_DYNAMIC_DISPATCH(Combine);
  pool_.Run((tokens + rows - 1) / rows,
            [&](int64_t task, int) { combine(args, task * rows, std::min(tokens, (task + 1) * rows)); });
}

}  // namespace moebius
#endif  // HWY_ONCE
