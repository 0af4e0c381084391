#include <algorithm>
#include <cstring>

#include "core/backend/cpu/cpu_backend.h"
#include "core/backend/cpu/pieces.h"
#include "core/base/check.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/backend/cpu/embedding.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
//
#include "core/backend/cpu/simd-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace moebius::HWY_NAMESPACE {
namespace {

template <typename T>
void AddColumnsAs(const EmbeddingBackwardArgs& args, int64_t column, int64_t count) {
  const int32_t* ids = static_cast<const int32_t*>(args.ids.data);
  const T* dy = static_cast<const T*>(args.dy.data) + column;
  float* dtable = static_cast<float*>(args.dtable.data) + column;
  const int64_t tokens = args.ids.elements();
  for (int64_t t = 0; t < tokens; ++t, dy += args.dy.stride) {
    float* row = dtable + ids[t] * args.dtable.stride;
    Sweep(count, [&](int64_t i, auto part)
                     HWY_ATTR { Store(hn::Add(Load(row + i, part), Load(dy + i, part)), row + i, part); });
  }
}

void AddColumns(const EmbeddingBackwardArgs& args, int64_t column, int64_t count) {
  args.dy.dtype == DType::kF32 ? AddColumnsAs<float>(args, column, count)
                               : AddColumnsAs<BF16>(args, column, count);
}

}  // namespace
}  // namespace moebius::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace moebius {

HWY_EXPORT(AddColumns);

namespace {

void CheckIds(const TensorView& ids, int64_t rows) {
  const int32_t* id = ids.as<int32_t>();
  for (int64_t t = 0; t < ids.elements(); ++t) {
    CHECK(id[t] >= 0 && id[t] < rows)
        << "token id " << id[t] << " at " << t << ", the table has " << rows << " rows";
  }
}

}  // namespace

void CpuBackend::Embedding(Stream&, const EmbeddingArgs& args) {
  CheckIds(args.ids, args.table.rows());
  const int32_t* ids = args.ids.as<int32_t>();
  const int64_t size = SizeOf(args.table.dtype), row_bytes = args.table.cols() * size;
  ForRowRanges(pool_, args.ids.elements(), args.table.cols(), [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) {
      std::memcpy(static_cast<char*>(args.out.data) + t * args.out.stride * size,
                  static_cast<const char*>(args.table.data) + ids[t] * args.table.stride * size, row_bytes);
    }
  });
}

// A task owns columns and walks all tokens, so that every row of the table adds up in token order.
void CpuBackend::EmbeddingBackward(Stream&, const EmbeddingBackwardArgs& args) {
  CheckIds(args.ids, args.dtable.rows());
  constexpr int64_t kColumns = 64;
  const int64_t hidden = args.dtable.cols();
  pool_.Run((hidden + kColumns - 1) / kColumns, [&](int64_t task, int) {
    const int64_t column = task * kColumns;
    HWY_DYNAMIC_DISPATCH(AddColumns)(args, column, std::min(kColumns, hidden - column));
  });
}

}  // namespace moebius
#endif  // HWY_ONCE
