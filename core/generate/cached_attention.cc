#include "core/generate/cached_attention.h"

#include "core/backend/ops.h"
#include "core/generate/cached_gqa.h"
#include "core/generate/cached_mla.h"
#include "core/generate/cached_mla_exact.h"

namespace moebius {

std::unique_ptr<CachedAttention> MakeCachedAttention(Backend& backend, Stream& stream, const Layer& attention,
                                                     const DecodeWeights& weights, DType act,
                                                     Decoding decoding) {
  if (const auto* mla = dynamic_cast<const MlaAttention*>(&attention)) {
    if (decoding == Decoding::kExact) return std::make_unique<CachedMlaExact>(*mla, weights, act);
    return std::make_unique<CachedMla>(backend, stream, *mla, weights, act);
  }
  const auto* gqa = dynamic_cast<const GqaAttention*>(&attention);
  CHECK(gqa != nullptr) << "no cache for this kind of attention";
  return std::make_unique<CachedGqa>(*gqa, weights, act);
}

void AttendCaches(const Context& context, const QueryPlaces& places, const CacheQuery& query) {
  const int64_t batch = places.sequences();
  for (int64_t row = 0; row < query.q.shape[0]; row += batch) {
    DecodeAttention(context, {.q = query.q.Rows(row, batch),
                              .k = query.k,
                              .v = query.v,
                              .lengths = places.lengths.Rows(row, batch),
                              .scale = query.scale,
                              .o = query.o.Rows(row, batch)});
  }
}

}  // namespace moebius
