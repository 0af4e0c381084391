// Tokens drawn by a backend are those of draw.h.
#include "core/backend/draw.h"

#include <cmath>
#include <limits>
#include <vector>

#include "tests/core/backend/arrays.h"
#include "tests/core/backend/test_backend.h"

namespace moebius {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

Tensor FloatTensor(Allocator& allocator, const std::vector<float>& values) {
  Tensor tensor(allocator, DType::kF32, {std::ssize(values)});
  std::memcpy(tensor.view().data, values.data(), values.size() * sizeof(float));
  return tensor;
}

struct Draws {
  std::vector<int32_t> rows;
  std::vector<float> scales;
  std::vector<double> uniforms;
};

// Draws from every row with many random numbers, greedily and at several temperatures; rows in no order.
Draws Many(int64_t rows) {
  const RandomStream random(3, "draws");
  Draws d;
  for (int i = 0; i < 400; ++i) {
    d.rows.push_back(static_cast<int32_t>(i * 7 % rows));
    d.scales.push_back(std::vector<float>{1.0f, -1.0f, 0.4f, 3.0f, 1e30f}[i % 5]);
    d.uniforms.push_back(i < 5 ? 0 : i < 10 ? 1 - 0x1.0p-53 : random.Uniform(i));
  }
  return d;
}

// Ids to the bit, logarithms to float's last one.
void ExpectAsOnTheHost(Backend& backend, const TensorView& logits, const Draws& d) {
  const auto stream = backend.NewStream(StreamKind::kCompute);
  const int64_t n = std::ssize(d.rows);
  const Tensor rows = Int32Tensor(backend, d.rows), scales = FloatTensor(backend, d.scales),
               uniforms(backend, DType::kF64, {n}), tokens = DirtyTensor(backend, DType::kI32, {n}),
               logprobs = DirtyTensor(backend, DType::kF32, {n}),
               sampling = DirtyTensor(backend, DType::kF32, {n});
  std::memcpy(uniforms.view().data, d.uniforms.data(), n * sizeof(double));
  DrawTokensArgs args{.logits = logits,
                      .rows = rows,
                      .scales = scales,
                      .uniforms = uniforms,
                      .tokens = tokens,
                      .logprobs = logprobs,
                      .sampling_logprobs = sampling};
  for (const LogProbs wanted : {LogProbs::kYes, LogProbs::kNo}) {
    if (wanted == LogProbs::kNo) args.logprobs = args.sampling_logprobs = {};
    std::memset(tokens.view().data, 0x7F, tokens.view().bytes());
    backend.DrawTokens(*stream, args);
    std::vector<float> weights(logits.cols());
    for (int64_t i = 0; i < n; ++i) {
      const std::span row(logits.as<float>() + d.rows[i] * logits.stride, logits.cols());
      const DrawnToken want = DrawToken(row, d.scales[i], d.uniforms[i], wanted, weights);
      ASSERT_EQ(tokens.view().as<int32_t>()[i], want.id) << "draw " << i << " of " << logits;
      if (wanted == LogProbs::kNo) continue;
      const float logprob = logprobs.view().as<float>()[i], other = sampling.view().as<float>()[i];
      if (want.id < 0) {
        ASSERT_TRUE(std::isnan(logprob) && std::isnan(other)) << i;
      } else {
        ASSERT_FLOAT_EQ(logprob, want.logprob) << i;
        ASSERT_FLOAT_EQ(other, want.sampling_logprob) << i;
      }
    }
  }
}

TEST(DrawTest, EveryBackendDrawsTheTokensOfTheHost) {
  const auto backend = NewTestBackend();
  for (const int64_t vocab : {1, 7, 64, 65, 1000, 4096, 50000}) {
    const Tensor wide = RandomTensor(*backend, DType::kF32, {5, vocab + 3}, "draw logits", 3);
    ExpectAsOnTheHost(*backend, wide.view().Columns(2, vocab), Many(5));
  }
}

TEST(DrawTest, EqualsForbiddenTokensAndTinyWeights) {
  const auto backend = NewTestBackend();
  const int64_t vocab = 300;
  const Tensor logits = RandomTensor(*backend, DType::kF32, {4, vocab}, "odd logits", 1);
  float* x = logits.view().as<float>();
  x[17] = x[200] = x[64] = 9;                                                       // equals
  for (int64_t i = 0; i < vocab; ++i) x[vocab + i] = i % 97 == 3 ? 1 : -kInfinity;  // few allowed
  for (int64_t i = 0; i < vocab; ++i) x[2 * vocab + i] = i == 130 ? 0 : -200;       // weights that are zero
  for (int64_t i = 0; i < vocab; ++i) x[3 * vocab + i] = i == 0 ? 5 : -80;          // all mass at the start
  ExpectAsOnTheHost(*backend, logits, Many(4));
}

TEST(DrawTest, LogitsThatAreNotFiniteGiveNoToken) {
  const auto backend = NewTestBackend();
  const int64_t vocab = 130;
  const Tensor logits = RandomTensor(*backend, DType::kF32, {4, vocab}, "bad logits", 1);
  float* x = logits.view().as<float>();
  x[vocab + 129] = std::nanf("");
  x[2 * vocab + 64] = kInfinity;
  for (int64_t i = 0; i < vocab; ++i) x[3 * vocab + i] = -kInfinity;
  ExpectAsOnTheHost(*backend, logits, Many(4));
  std::vector<float> weights(vocab);
  EXPECT_GE(DrawToken({x, static_cast<size_t>(vocab)}, 1, 0.5, LogProbs::kNo, weights).id, 0);
  for (int64_t row = 1; row < 4; ++row) {
    const std::span bad(x + row * vocab, vocab);
    EXPECT_EQ(DrawToken(bad, 1, 0.5, LogProbs::kNo, weights).id, -1) << row;
  }
}

}  // namespace
}  // namespace moebius
