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

// `sums` to n columns of a row of y.
template <typename Y>
void PutRowOf(const MatVecArgs& args, int64_t row, int64_t column, int64_t n, const float* sums) {
  Y* y = static_cast<Y*>(args.y) + row * args.ldy + column;
  const float* bias = args.bias == nullptr ? nullptr : args.bias + column;
  Sweep(n, [&](int64_t i, auto part) HWY_ATTR {
    VF sum = Load(sums + i, part);
    if (bias != nullptr) sum = hn::Add(sum, Load(bias + i, part));
    if (args.accumulate) sum = hn::Add(Load(y + i, part), sum);
    Store(sum, y + i, part);
  });
}
void PutRow(const MatVecArgs& args, int64_t row, int64_t column, int64_t n, const float* sums) {
  args.y_dtype == DType::kBF16 ? PutRowOf<BF16>(args, row, column, n, sums)
                               : PutRowOf<float>(args, row, column, n, sums);
}

constexpr int64_t kSums = 4096;     // that are formed before they are put: in the first-level cache
constexpr int64_t kBlockRows = 16;  // of x that pass together: in the first-level cache

template <class Step, typename X, typename W>
void OutInColumns(const MatVecArgs& args, int64_t begin, int64_t end) {
  HWY_ALIGN float dots[kSums];
  const int64_t blocks = (args.m + kBlockRows - 1) / kBlockRows;
  for (int64_t b = 0; b < blocks; ++b) {
    const int64_t row = args.m * b / blocks, m = args.m * (b + 1) / blocks - row, columns = kSums / m;
    const X* x = static_cast<const X*>(args.x) + row * args.ldx;
    for (int64_t c = begin; c < end; c += columns) {
      const int64_t n = std::min(columns, end - c);
      DotBlock<Step>(m, n, args.k, x, args.ldx, static_cast<const W*>(args.w) + c * args.ldw, args.ldw, dots,
                     columns);
      for (int64_t r = 0; r < m; ++r) PutRow(args, row + r, c, n, dots + r * columns);
    }
  }
}

template <typename X, typename W>
void InOutColumns(const MatVecArgs& args, int64_t begin, int64_t end) {
  constexpr int64_t kBlock = kSums / kMatVecRows;
  HWY_ALIGN float sums[kSums];
  const W* w = static_cast<const W*>(args.w);
  for (int64_t row = 0; row < args.m; row += kMatVecRows) {
    const int64_t m = std::min(kMatVecRows, args.m - row);
    const X* x = static_cast<const X*>(args.x) + row * args.ldx;
    for (int64_t c = begin; c < end; c += kBlock) {
      const int64_t n = std::min(kBlock, end - c);
      std::fill_n(sums, m * kBlock, 0.0f);
      AddWeightedRows(m, n, args.k, x, args.ldx, w + c, args.ldw, sums, kBlock);
      for (int64_t r = 0; r < m; ++r) PutRow(args, row + r, c, n, sums + r * kBlock);
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
    Columns<BF16, BF16, EvenOddStep>(args, begin, end);
  } else if (args.even_odd) {
    Columns<float, BF16, EvenOddStep>(args, begin, end);
  } else if (x16) {
    Columns<BF16, float>(args, begin, end);
  } else if (w16) {
    Columns<float, BF16>(args, begin, end);
  } else {
    Columns<float, float>(args, begin, end);
  }
}

void WidenAll(const BF16* from, int64_t n, float* to) {
  Sweep(n, [&](int64_t i, auto part) HWY_ATTR { Store(Load(from + i, part), to + i, part); });
}

void WidenAllEvenOdd(const BF16* from, int64_t n, float* to) {
  const int64_t width = EvenOddStep::kVectors * Lanes();
  const auto step = [&](int64_t i, auto part) HWY_ATTR {
    Store(EvenOddStep::LoadHalf<0>(from + i, part), to + i);
    Store(EvenOddStep::LoadHalf<1>(from + i, part), to + i + Lanes());
  };
  int64_t i = 0;
  for (; i + width <= n; i += width) step(i, Whole());
  if (i < n) step(i, Part{n - i});
}

}  // namespace HWY_NAMESPACE
}  // namespace moebius
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace moebius {

HWY_EXPORT(ColumnsOfTypes);
HWY_EXPORT(WidenAll);
HWY_EXPORT(WidenAllEvenOdd);

void MatVecColumns(const MatVecArgs& args, int64_t begin, int64_t end) {
  MatVecColumns(args, ChooseBF16Dots(), begin, end);
}
void MatVecColumns(const MatVecArgs& args, BF16Dots dots, int64_t begin, int64_t end) {
  if (begin < end && args.m > 0) HWY_DYNAMIC_DISPATCH(ColumnsOfTypes)(args, dots, begin, end);
}

void Widen(const BF16* from, int64_t n, float* to) { HWY_DYNAMIC_DISPATCH(WidenAll)(from, n, to); }

int64_t EvenOddSize(int64_t n) {
  constexpr int64_t kStep = 32;  // whole steps of every target
  return (n + kStep - 1) / kStep * kStep;
}
void WidenEvenOdd(const BF16* from, int64_t n, float* to) {
  std::fill(to + n, to + EvenOddSize(n), 0.0f);
  HWY_DYNAMIC_DISPATCH(WidenAllEvenOdd)(from, n, to);
}

BF16Dots ChooseBF16Dots() {
  return ChooseUnit(DType::kBF16) == UnitKind::kBF16Pair ? BF16Dots::kNative : BF16Dots::kWidened;
}

namespace {
constexpr int64_t kTaskColumns = 24;  // whole tiles of DotBlock
}  // namespace

int64_t MatVecColumnsATask(const MatVecArgs& args) {
  constexpr int64_t kTaskBytes = int64_t{128} << 10;   // of weights: some microseconds of memory time
  constexpr int64_t kTaskProducts = int64_t{1} << 20;  // or of arithmetic
  // For rows of w, pieces long enough to be read as streams.
  const int64_t multiple = args.order == WeightOrder::kOutIn ? kTaskColumns : 128;
  const int64_t k = std::max<int64_t>(args.k, 1);
  const int64_t columns =
      std::min(kTaskBytes / (k * SizeOf(args.w_dtype)), kTaskProducts / (k * std::max<int64_t>(args.m, 1)));
  return std::max<int64_t>((columns + multiple - 1) / multiple, 1) * multiple;
}

void MatVec(ThreadPool& pool, const MatVecArgs& args) {
  for (const DType dtype : {args.x_dtype, args.w_dtype, args.y_dtype}) {
    CHECK(dtype == DType::kF32 || dtype == DType::kBF16) << dtype;
  }
  int64_t columns = MatVecColumnsATask(args);
  // Where arithmetic takes the time, a narrow product is cut finer, so that no thread waits long for the last
  // task.
  if (args.m > kMatVecRows)
    columns = std::min(columns, std::max<int64_t>(args.n / kWantedTasks / kTaskColumns, 1) * kTaskColumns);
  pool.Run((args.n + columns - 1) / columns, [&](int64_t task, int) {
    MatVecColumns(args, task * columns, std::min((task + 1) * columns, args.n));
  });
}

}  // namespace moebius
#endif  // HWY_ONCE
