#include "core/backend/cpu/matvec.h"

#include <algorithm>
#include <type_traits>

#include "core/backend/cpu/attention.h"
#include "core/base/check.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/backend/cpu/matvec.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
//
#include "core/backend/cpu/matvec-inl.h"

HWY_BEFORE_NAMESPACE();
namespace moebius {
namespace HWY_NAMESPACE {

HWY_NOINLINE void PutElement(const MatVecArgs& args, int64_t row, int64_t column, float sum) {
  const int64_t at = row * args.ldy + column;
  if (args.bias != nullptr) sum += args.bias[column];
  if (args.y_dtype == DType::kBF16) {
    BF16* y = static_cast<BF16*>(args.y);
    y[at] = BF16::FromFloat(args.accumulate ? y[at].ToFloat() + sum : sum);
  } else {
    float* y = static_cast<float*>(args.y);
    y[at] = args.accumulate ? y[at] + sum : sum;
  }
}

template <class Step, typename X, typename W>
void OutInColumns(const MatVecArgs& args, int64_t begin, int64_t end) {
  const W* w = static_cast<const W*>(args.w) + begin * args.ldw;
  DotBlock<Step>(args.m, end - begin, args.k, static_cast<const X*>(args.x), args.ldx, w, args.ldw,
                 [&](int64_t r, int64_t c, float dot) { PutElement(args, r, begin + c, dot); });
}

template <typename X, typename W>
void InOutColumns(const MatVecArgs& args, int64_t begin, int64_t end) {
  constexpr int64_t kBlock = 512;  // columns whose sums stay in the first-level cache
  HWY_ALIGN float sums[kMatVecRows * kBlock];
  const W* w = static_cast<const W*>(args.w);
  for (int64_t row = 0; row < args.m; row += kMatVecRows) {
    const int64_t m = std::min(kMatVecRows, args.m - row);
    const X* x = static_cast<const X*>(args.x) + row * args.ldx;
    for (int64_t c = begin; c < end; c += kBlock) {
      const int64_t n = std::min(kBlock, end - c);
      std::fill_n(sums, m * kBlock, 0.0f);
      AddWeightedRows(m, n, args.k, x, args.ldx, w + c, args.ldw, sums, kBlock);
      for (int64_t r = 0; r < m; ++r) {
        for (int64_t i = 0; i < n; ++i) PutElement(args, row + r, c + i, sums[r * kBlock + i]);
      }
    }
  }
}

template <typename X, typename W, class Step = DotStep<X, W>>
void Columns(const MatVecArgs& args, int64_t begin, int64_t end) {
  if (args.order == WeightOrder::kOutIn) {
    OutInColumns<Step, X, W>(args, begin, end);
  } else {
    InOutColumns<X, W>(args, begin, end);
  }
}

void ColumnsOfTypes(const MatVecArgs& args, BF16Dots dots, int64_t begin, int64_t end) {
  const bool x16 = args.x_dtype == DType::kBF16, w16 = args.w_dtype == DType::kBF16;
  if (x16 && w16 && dots == BF16Dots::kNative) {
    Columns<BF16, BF16, NativeDotStep>(args, begin, end);
  } else if (x16 && w16) {
    Columns<BF16, BF16>(args, begin, end);
  } else if (x16) {
    Columns<BF16, float>(args, begin, end);
  } else if (w16) {
    Columns<float, BF16>(args, begin, end);
  } else {
    Columns<float, float>(args, begin, end);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace moebius
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace moebius {

HWY_EXPORT(ColumnsOfTypes);

void MatVecColumns(const MatVecArgs& args, int64_t begin, int64_t end) {
  MatVecColumns(args, ChooseBF16Dots(), begin, end);
}
void MatVecColumns(const MatVecArgs& args, BF16Dots dots, int64_t begin, int64_t end) {
  if (begin < end && args.m > 0) HWY_DYNAMIC_DISPATCH(ColumnsOfTypes)(args, dots, begin, end);
}

BF16Dots ChooseBF16Dots() {
  return ChooseUnit(DType::kBF16) != UnitKind::kFloat ? BF16Dots::kNative : BF16Dots::kWidened;
}

int64_t MatVecColumnsATask(const MatVecArgs& args) {
  constexpr int64_t kTaskBytes = int64_t{128} << 10;  // of weights: some microseconds of memory time
  // Whole tiles of DotBlock; for rows of w, pieces long enough to be read as streams.
  const int64_t multiple = args.order == WeightOrder::kOutIn ? 24 : 128;
  const int64_t column_bytes = std::max<int64_t>(args.k * SizeOf(args.w_dtype), 1);
  return std::max<int64_t>((kTaskBytes / column_bytes + multiple - 1) / multiple, 1) * multiple;
}

void MatVec(ThreadPool& pool, const MatVecArgs& args) { BatchedMatVec(pool, args, {1, 0, 0, 0}); }

void BatchedMatVec(ThreadPool& pool, const MatVecArgs& first, const MatVecBatch& batch) {
  for (const DType dtype : {first.x_dtype, first.w_dtype, first.y_dtype}) {
    CHECK(dtype == DType::kF32 || dtype == DType::kBF16) << dtype;
  }
  const int64_t columns = MatVecColumnsATask(first);
  const int64_t tasks = (first.n + columns - 1) / columns;
  pool.Run(batch.count * tasks, [&](int64_t task, int) {
    const int64_t entry = task / tasks;
    const int64_t begin = task % tasks * columns;
    MatVecArgs args = first;
    args.x = static_cast<const char*>(first.x) + entry * batch.x_distance * SizeOf(first.x_dtype);
    args.w = static_cast<const char*>(first.w) + entry * batch.w_distance * SizeOf(first.w_dtype);
    args.y = static_cast<char*>(first.y) + entry * batch.y_distance * SizeOf(first.y_dtype);
    MatVecColumns(args, begin, std::min(begin + columns, first.n));
  });
}

}  // namespace moebius
#endif  // HWY_ONCE
