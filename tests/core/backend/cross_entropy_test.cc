// Cross-entropy and its gradient against double precision.
#include <cmath>
#include <limits>
#include <vector>

#include "tests/core/backend/arrays.h"
#include "tests/core/backend/targets.h"
#include "tests/core/backend/test_backend.h"

namespace moebius {
namespace {

struct Loss {
  std::vector<double> losses, gradients;
};

Loss Reference(const TensorView& logits, const std::vector<int32_t>& targets, double scale) {
  Loss out;
  for (int64_t r = 0; r < logits.rows(); ++r) {
    double max = -1e300, sum = 0;
    for (int64_t c = 0; c < logits.cols(); ++c) max = std::max(max, ValueAt(logits, r, c));
    for (int64_t c = 0; c < logits.cols(); ++c) sum += std::exp(ValueAt(logits, r, c) - max);
    const double lse = max + std::log(sum);
    const bool counts = targets[r] >= 0;
    out.losses.push_back(counts ? lse - ValueAt(logits, r, targets[r]) : 0);
    for (int64_t c = 0; c < logits.cols(); ++c) {
      out.gradients.push_back(counts ? scale * (std::exp(ValueAt(logits, r, c) - lse) - (c == targets[r]))
                                     : 0);
    }
  }
  return out;
}

std::vector<int32_t> Targets(int64_t rows, int64_t vocabulary) {
  std::vector<int32_t> out;
  for (int64_t r = 0; r < rows; ++r)
    out.push_back(r % 5 == 3 ? -1 : static_cast<int32_t>(r * 37 % vocabulary));
  return out;
}

TEST(CrossEntropyTest, MeetsDoublePrecision) {
  const auto backend = NewTestBackend();
  const auto stream = backend->NewStream(StreamKind::kCompute);
  for (const int64_t vocabulary : {1, 2, 13, 1024, 5003}) {
    const int64_t rows = 20;
    const Tensor wide = RandomTensor(*backend, DType::kF32, {rows, vocabulary + 3}, "logits", 8);
    const TensorView logits = wide.view().Columns(2, vocabulary);
    const std::vector<int32_t> targets = Targets(rows, vocabulary);
    const Tensor target = Int32Tensor(*backend, targets);
    const Tensor losses = DirtyTensor(*backend, DType::kF32, {rows});
    const Loss want = Reference(logits, targets, 0.25);
    const Tensor exact = DirtyTensor(*backend, DType::kF32, {rows, vocabulary});
    const Tensor rounded = DirtyTensor(*backend, DType::kBF16, {rows, vocabulary});
    backend->CrossEntropy(
        *stream, {.logits = logits, .targets = target, .losses = losses, .scale = 0.25f, .dlogits = rounded});
    ExpectNear(Values(rounded), want.gradients, 4e-3, "bf16 gradients", 1e-6);
    backend->CrossEntropy(
        *stream, {.logits = logits, .targets = target, .losses = losses, .scale = 0.25f, .dlogits = exact});
    ExpectNear(Values(exact), want.gradients, 1e-6 * SumError(), "gradients", 0.25);
    ExpectNear(Values(losses), want.losses, 1e-6, "losses");
    std::memset(losses.view().data, 0x7F, losses.view().bytes());
    backend->CrossEntropy(*stream, {.logits = logits, .targets = target, .losses = losses});
    ExpectNear(Values(losses), want.losses, 1e-6, "losses alone");
    backend->CrossEntropy(
        *stream, {.logits = logits, .targets = target, .losses = losses, .scale = 0.25f, .dlogits = logits});
    ExpectNear(Values(logits), want.gradients, 1e-6 * SumError(), "gradients in place", 0.25);
  }
}

// Reinforcement: tokens with weights of their own, at the sampling temperature, with an entropy term.
TEST(CrossEntropyTest, WeighsTokensAtATemperatureWithAnEntropyTerm) {
  const auto backend = NewTestBackend();
  const auto stream = backend->NewStream(StreamKind::kCompute);
  const float by = 1 / 0.7f, scale = 0.5f, entropy_scale = 0.3f;
  for (const int64_t vocabulary : {2, 13, 2600, 60000}) {
    const int64_t rows = 10;
    const Tensor logits = RandomTensor(*backend, DType::kF32, {rows, vocabulary}, "logits", 8);
    const std::vector<int32_t> targets = Targets(rows, vocabulary);
    std::vector<double> losses, entropies, gradients, weights;
    const Tensor weight = RandomTensor(*backend, DType::kF32, {rows}, "weights", 2);
    for (int64_t r = 0; r < rows; ++r) {
      const bool counts = targets[r] >= 0;
      double max = -1e300, sum = 0, entropy = 0;
      for (int64_t c = 0; c < vocabulary; ++c) max = std::max(max, by * ValueAt(logits, r, c));
      for (int64_t c = 0; c < vocabulary; ++c) sum += std::exp(by * ValueAt(logits, r, c) - max);
      const auto log_p = [&](int64_t c) { return by * ValueAt(logits, r, c) - max - std::log(sum); };
      for (int64_t c = 0; c < vocabulary; ++c) entropy -= std::exp(log_p(c)) * log_p(c);
      losses.push_back(counts ? -log_p(targets[r]) : 0);
      entropies.push_back(counts ? entropy : 0);
      const double w = scale * Values(weight)[r];
      for (int64_t c = 0; c < vocabulary; ++c) {
        const double p = std::exp(log_p(c));
        const double d = w * (p - (c == targets[r])) + entropy_scale * p * (log_p(c) + entropy);
        gradients.push_back(counts ? by * d : 0);
      }
    }
    const Tensor target = Int32Tensor(*backend, targets);
    const Tensor loss = DirtyTensor(*backend, DType::kF32, {rows});
    const Tensor entropy = DirtyTensor(*backend, DType::kF32, {rows});
    const Tensor rounded = DirtyTensor(*backend, DType::kBF16, {rows, vocabulary});
    CrossEntropyArgs args{.logits = logits,
                          .targets = target,
                          .losses = loss,
                          .scale = scale,
                          .weights = weight,
                          .inverse_temperature = by,
                          .entropies = entropy,
                          .entropy_scale = entropy_scale,
                          .dlogits = rounded};
    backend->CrossEntropy(*stream, args);
    ExpectNear(Values(rounded), gradients, 4e-3, "bf16 gradients", 1e-5);
    args.dlogits = logits;
    backend->CrossEntropy(*stream, args);
    ExpectNear(Values(loss), losses, 1e-6, "losses");
    ExpectNear(Values(entropy), entropies, 2e-6, "entropies", 1);
    ExpectNear(Values(logits), gradients, 2e-6, "gradients in place", 0.5);
  }
}

// A word that cannot come has no share of the entropy, even where it is the target.
TEST(CrossEntropyTest, AnImpossibleTargetLeavesTheEntropyTermFinite) {
  const auto backend = NewTestBackend();
  const auto stream = backend->NewStream(StreamKind::kCompute);
  const float inf = std::numeric_limits<float>::infinity();
  const Tensor target = Int32Tensor(*backend, {0}), loss = DirtyTensor(*backend, DType::kF32, {1}),
               entropy = DirtyTensor(*backend, DType::kF32, {1});
  for (const float low : {-inf, -3e38f}) {
    const Tensor logits(*backend, DType::kF32, {1, 3}), gradient = DirtyTensor(*backend, DType::kF32, {1, 3});
    const float values[] = {low, 3e38f, 3e38f};
    backend->CopyToDevice(*stream, values, logits);
    backend->CrossEntropy(*stream, {.logits = logits,
                                    .targets = target,
                                    .losses = loss,
                                    .scale = 0.5f,
                                    .entropies = entropy,
                                    .entropy_scale = 0.25f,
                                    .dlogits = gradient});
    ExpectNear(Values(gradient), {-0.5, 0.25, 0.25}, 1e-6, "gradient");
  }
}

// A GPU cuts such rows into parts.
TEST(CrossEntropyTest, MeetsDoublePrecisionForLongRows) {
  const auto backend = NewTestBackend();
  const auto stream = backend->NewStream(StreamKind::kCompute);
  for (const int64_t vocabulary : {30001, 32768, 60000, 129280, 160003, 420000}) {
    const Tensor logits = RandomTensor(*backend, DType::kF32, {3, vocabulary}, "logits", 3);
    const std::vector<int32_t> targets = {static_cast<int32_t>(vocabulary - 1), -1, 17};
    const Tensor target = Int32Tensor(*backend, targets), losses = DirtyTensor(*backend, DType::kF32, {3});
    const Loss want = Reference(logits, targets, 0.25);
    const Tensor rounded = DirtyTensor(*backend, DType::kBF16, {3, vocabulary});
    backend->CrossEntropy(
        *stream, {.logits = logits, .targets = target, .losses = losses, .scale = 0.25f, .dlogits = rounded});
    ExpectNear(Values(rounded), want.gradients, 4e-3, "bf16 gradients", 1e-6);
    backend->CrossEntropy(
        *stream, {.logits = logits, .targets = target, .losses = losses, .scale = 0.25f, .dlogits = logits});
    ExpectNear(Values(losses), want.losses, 1e-6, "losses");
    ExpectNear(Values(logits), want.gradients, 1e-6 * SumError(), "gradients in place", 0.25);
  }
}

TEST(CrossEntropyTest, StaysFiniteForLogitsInTheThousands) {
  const auto backend = NewTestBackend();
  const auto stream = backend->NewStream(StreamKind::kCompute);
  const Tensor logits = RandomTensor(*backend, DType::kF32, {4, 3000}, "logits", 3000);
  const std::vector<int32_t> targets = {0, 1, 2, 2999};
  const Tensor target = Int32Tensor(*backend, targets), losses = DirtyTensor(*backend, DType::kF32, {4});
  const Loss want = Reference(logits, targets, 1);
  backend->CrossEntropy(
      *stream, {.logits = logits, .targets = target, .losses = losses, .scale = 1, .dlogits = logits});
  ExpectNear(Values(losses), want.losses, 1e-6, "losses");
  ExpectNear(Values(logits), want.gradients, 1e-3, "gradients");
}

// The product of a logit and 1 / temperature has few digits left for the difference to another one.
TEST(CrossEntropyTest, SubtractsTheMaximumBeforeALowTemperatureMagnifiesIt) {
  const auto backend = NewTestBackend();
  const auto stream = backend->NewStream(StreamKind::kCompute);
  const int64_t rows = 5, vocabulary = 2600;
  const float by = 100;
  const Tensor logits = RandomTensor(*backend, DType::kF32, {rows, vocabulary}, "logits", 0.02);
  const std::vector<int32_t> targets = Targets(rows, vocabulary);
  std::vector<double> losses, gradients;
  for (int64_t r = 0; r < rows; ++r) {
    double sum = 0;
    for (int64_t c = 0; c < vocabulary; ++c) SetAt(logits, r, c, ValueAt(logits, r, c) + 20);
    for (int64_t c = 0; c < vocabulary; ++c) sum += std::exp(by * (ValueAt(logits, r, c) - 20));
    const auto log_p = [&](int64_t c) { return by * (ValueAt(logits, r, c) - 20) - std::log(sum); };
    const bool counts = targets[r] >= 0;
    losses.push_back(counts ? -log_p(targets[r]) : 0);
    for (int64_t c = 0; c < vocabulary; ++c)
      gradients.push_back(counts ? by * (std::exp(log_p(c)) - (c == targets[r])) : 0);
  }
  const Tensor target = Int32Tensor(*backend, targets), loss = DirtyTensor(*backend, DType::kF32, {rows});
  const Tensor entropy = DirtyTensor(*backend, DType::kF32, {rows});
  CrossEntropyArgs args{
      .logits = logits, .targets = target, .losses = loss, .scale = 1, .inverse_temperature = by};
  backend->CrossEntropy(*stream, args);
  ExpectNear(Values(loss), losses, 1e-6, "losses alone");
  args.entropies = entropy;
  args.dlogits = logits;
  backend->CrossEntropy(*stream, args);
  ExpectNear(Values(loss), losses, 1e-6, "losses");
  ExpectNear(Values(logits), gradients, 2e-6, "gradients", 0.1);
}

TEST(CrossEntropyTest, ANaNLogitMakesANaNLoss) {
  const auto backend = NewTestBackend();
  const auto stream = backend->NewStream(StreamKind::kCompute);
  const Tensor logits = RandomTensor(*backend, DType::kF32, {1, 100}, "logits");
  SetAt(logits, 0, 57, std::nan(""));
  const Tensor target = Int32Tensor(*backend, {3}), losses = DirtyTensor(*backend, DType::kF32, {1});
  backend->CrossEntropy(*stream, {.logits = logits, .targets = target, .losses = losses});
  EXPECT_TRUE(std::isnan(ValueAt(losses, 0, 0)));
}

TEST(CrossEntropyTest, GivesTheSameBitsForAnyNumberOfThreads) {
  std::vector<Tensor> gradients, losses;
  const std::vector<std::unique_ptr<Backend>> backends = NewTestBackends();
  for (const auto& owner : backends) {
    Backend& backend = *owner;
    const auto stream = backend.NewStream(StreamKind::kCompute);
    gradients.push_back(RandomTensor(backend, DType::kF32, {101, 1500}, "logits"));
    losses.push_back(DirtyTensor(backend, DType::kF32, {101}));
    const Tensor target = Int32Tensor(backend, Targets(101, 1500));
    backend.CrossEntropy(*stream, {.logits = gradients.back(),
                                   .targets = target,
                                   .losses = losses.back(),
                                   .scale = 1,
                                   .dlogits = gradients.back()});
    EXPECT_TRUE(SameBits(gradients.back(), gradients.front()));
    EXPECT_TRUE(SameBits(losses.back(), losses.front()));
  }
  gradients.clear();
  losses.clear();
}

}  // namespace
}  // namespace moebius
