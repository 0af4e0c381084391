// Attention of one new query a sequence over its cache, against double precision.
#include <vector>

#include "tests/core/backend/arrays.h"
#include "tests/core/backend/attention_reference.h"
#include "tests/core/backend/test_backend.h"

namespace moebius {
namespace {

struct Cache {
  // A cache row holds `extra` columns before the keys; latent: values are the first columns of the keys.
  Cache(Backend& backend, DType act, std::vector<int32_t> sequence_lengths, int64_t capacity, int64_t heads,
        int64_t groups, int64_t d, int64_t dv, bool latent)
      : batch(static_cast<int64_t>(sequence_lengths.size())),
        q(RandomTensor(backend, act, {batch, heads, d + 4}, "q")),
        rows(RandomTensor(backend, act, {batch, capacity, 8 + groups * (latent ? d : d + dv)}, "rows")),
        lengths(Int32Tensor(backend, sequence_lengths)),
        o(DirtyTensor(backend, act, {batch, heads, dv})) {
    args = {.q = q.view().Columns(4, d),
            .k = rows.view().Columns(8, groups * d),
            .v = rows.view().Columns(latent ? 8 : 8 + groups * d, groups * dv),
            .lengths = lengths,
            .scale = 0.3f,
            .o = o};
  }
  void Run(Backend& backend) {
    const auto stream = backend.NewStream(StreamKind::kCompute);
    backend.DecodeAttention(*stream, args);
  }
  int64_t batch;
  Tensor q, rows, lengths, o;
  DecodeAttentionArgs args;
};

TEST(DecodeAttentionTest, MeetsDoublePrecisionForSharedAndSeparateKeys) {
  const auto backend = NewTestBackend();
  for (const DType act : {DType::kF32, DType::kBF16}) {
    const double tolerance = ToleranceOf(act).decode;
    Cache latent(*backend, act, {1, 127, 128, 129, 300, 7}, 300, 8, 1, 40, 32, true);
    latent.Run(*backend);
    ExpectNear(Values(latent.o), ReferenceDecode(latent.args), tolerance, "latent");
    Cache many_heads(*backend, act, {600, 512, 3}, 600, 21, 1, 37, 29, true);
    many_heads.Run(*backend);
    ExpectNear(Values(many_heads.o), ReferenceDecode(many_heads.args), tolerance, "many heads");
    Cache grouped(*backend, act, {1, 2, 400}, 512, 9, 3, 64, 64, false);
    grouped.Run(*backend);
    ExpectNear(Values(grouped.o), ReferenceDecode(grouped.args), tolerance, "grouped");
    Cache wide_values(*backend, act, {5}, 5, 2, 2, 6, 50, false);
    wide_values.Run(*backend);
    ExpectNear(Values(wide_values.o), ReferenceDecode(wide_values.args), tolerance, "wide values");
  }
}

TEST(DecodeAttentionTest, GivesTheSameBitsForAnyThreadsAndAnyBatch) {
  const std::vector<std::unique_ptr<Backend>> backends = NewTestBackends();
  Backend& one = *backends[0];
  Cache want(one, DType::kF32, {900, 5, 400}, 1000, 6, 2, 32, 32, false);
  want.Run(one);
  for (const auto& many : backends) {
    Cache got(*many, DType::kF32, {900, 5, 400}, 1000, 6, 2, 32, 32, false);
    got.Run(*many);
    EXPECT_TRUE(SameBits(got.o, want.o));
  }
  Cache alone(one, DType::kF32, {900}, 1000, 6, 2, 32, 32, false);
  alone.Run(one);
  EXPECT_TRUE(SameBits(alone.o, want.o.view().Index(0)));
}

// A token far below the others must not disturb, and a score of hundreds must not overflow.
TEST(DecodeAttentionTest, StaysFiniteWithLargeScores) {
  const auto backend = NewTestBackend();
  Cache cache(*backend, DType::kF32, {260}, 260, 2, 1, 16, 8, true);
  for (int64_t token = 0; token < 260; ++token) {
    for (int64_t c = 0; c < 16; ++c) SetAt(cache.rows, token, 8 + c, token == 200 ? 50 : -50);
  }
  for (int64_t h = 0; h < 2; ++h) {
    for (int64_t c = 0; c < 16; ++c) SetAt(cache.args.q, h, c, 9);
  }
  cache.Run(*backend);
  ExpectNear(Values(cache.o), std::vector<double>(16, 50.0), 1e-6, "o");
}

}  // namespace
}  // namespace moebius
