// The divergence between two rows of logits and its gradient against double precision.
#include <cmath>
#include <vector>

#include "tests/core/backend/arrays.h"
#include "tests/core/backend/targets.h"
#include "tests/core/backend/test_backend.h"

namespace moebius {
namespace {

constexpr DivergenceKind kKinds[] = {DivergenceKind::kForward, DivergenceKind::kReverse};

struct Wanted {
  std::vector<double> divergences, agreements, gradients;
};

std::vector<double> LogSoftmax(const TensorView& logits, int64_t row, double by) {
  double max = -1e300, sum = 0;
  for (int64_t c = 0; c < logits.cols(); ++c) max = std::max(max, by * ValueAt(logits, row, c));
  for (int64_t c = 0; c < logits.cols(); ++c) sum += std::exp(by * ValueAt(logits, row, c) - max);
  std::vector<double> out;
  for (int64_t c = 0; c < logits.cols(); ++c)
    out.push_back(by * ValueAt(logits, row, c) - max - std::log(sum));
  return out;
}

double Divergence(DivergenceKind kind, const std::vector<double>& log_p, const std::vector<double>& log_q) {
  double sum = 0;
  for (size_t c = 0; c < log_p.size(); ++c) {
    sum += kind == DivergenceKind::kForward ? std::exp(log_q[c]) * (log_q[c] - log_p[c])
                                            : std::exp(log_p[c]) * (log_p[c] - log_q[c]);
  }
  return sum;
}

// weights [n] and targets [n] on the host, of the arguments.
Wanted Reference(const DivergenceArgs& args, const std::vector<double>& weights,
                 const std::vector<int32_t>& targets) {
  Wanted out;
  const double by = args.inverse_temperature;
  for (int64_t r = 0; r < args.logits.rows(); ++r) {
    const std::vector<double> log_p = LogSoftmax(args.logits, r, by), log_q = LogSoftmax(args.teacher, r, by);
    const double divergence = Divergence(args.kind, log_p, log_q);
    const auto best = [](const std::vector<double>& x) {
      return std::max_element(x.begin(), x.end()) - x.begin();
    };
    const bool counts = targets[r] >= 0;
    out.divergences.push_back(counts ? divergence : 0);
    out.agreements.push_back(counts && best(log_p) == best(log_q));
    for (size_t c = 0; c < log_p.size(); ++c) {
      const double p = std::exp(log_p[c]);
      const double d = args.kind == DivergenceKind::kForward ? p - std::exp(log_q[c])
                                                             : p * (log_p[c] - log_q[c] - divergence);
      out.gradients.push_back(counts ? args.scale * weights[r] * by * d : 0);
    }
  }
  return out;
}

std::vector<int32_t> Targets(int64_t rows) {
  std::vector<int32_t> out;
  for (int64_t r = 0; r < rows; ++r) out.push_back(r % 5 == 3 ? -1 : 0);
  return out;
}

TEST(DivergenceTest, MeetsDoublePrecision) {
  const auto backend = NewTestBackend();
  const auto stream = backend->NewStream(StreamKind::kCompute);
  for (const DivergenceKind kind : kKinds) {
    for (const int64_t vocabulary : {1, 2, 13, 1024, 5003, 129280}) {
      for (const float by : {1.0f, 0.4f}) {
        const int64_t rows = vocabulary > 10000 ? 3 : 20;
        const Tensor wide = RandomTensor(*backend, DType::kF32, {rows, vocabulary + 3}, "student", 5);
        const TensorView logits = wide.view().Columns(2, vocabulary);
        const Tensor teacher = RandomTensor(*backend, DType::kF32, {rows, vocabulary}, "teacher", 5);
        // Every third row agrees: the student's best is made the teacher's.
        for (int64_t r = 0; r < rows; r += 3) {
          int64_t best = 0;
          for (int64_t c = 0; c < vocabulary; ++c) {
            if (ValueAt(teacher, r, c) > ValueAt(teacher, r, best)) best = c;
          }
          SetAt(logits, r, best, 9);
        }
        const std::vector<int32_t> targets = Targets(rows);
        const Tensor target = Int32Tensor(*backend, targets);
        const Tensor weights = RandomTensor(*backend, DType::kF32, {rows}, "weights", 2);
        const Tensor divergences = DirtyTensor(*backend, DType::kF32, {rows});
        const Tensor agreements = DirtyTensor(*backend, DType::kF32, {rows});
        const Tensor gradient = DirtyTensor(*backend, DType::kF32, {rows, vocabulary});
        DivergenceArgs args{.kind = kind,
                            .logits = logits,
                            .teacher = teacher,
                            .targets = target,
                            .scale = 0.25f,
                            .weights = weights,
                            .inverse_temperature = by,
                            .divergences = divergences,
                            .agreements = agreements,
                            .gradient = gradient};
        const Wanted want = Reference(args, Values(weights), targets);
        backend->Divergence(*stream, args);
        ExpectNear(Values(divergences), want.divergences, 2e-6 * SumError(), "divergences", 1);
        EXPECT_EQ(Values(agreements), want.agreements);
        ExpectNear(Values(gradient), want.gradients, 2e-6 * SumError(), "gradients", 0.25);
        std::memset(divergences.view().data, 0x7F, divergences.view().bytes());
        args.gradient = {};
        backend->Divergence(*stream, args);
        ExpectNear(Values(divergences), want.divergences, 2e-6 * SumError(), "divergences alone", 1);
        args.gradient = teacher;
        backend->Divergence(*stream, args);
        ExpectNear(Values(teacher), want.gradients, 2e-6 * SumError(), "gradients in the teacher's place",
                   0.25);
      }
    }
  }
}

// The formulas of the reference themselves: finite differences in double precision.
TEST(DivergenceTest, TheGradientIsThatOfTheValue) {
  const auto backend = NewTestBackend();
  const auto stream = backend->NewStream(StreamKind::kCompute);
  const int64_t vocabulary = 11;
  const double by = 0.4, step = 1e-3;
  for (const DivergenceKind kind : kKinds) {
    const Tensor logits = RandomTensor(*backend, DType::kF32, {1, vocabulary}, "student", 4);
    const Tensor teacher = RandomTensor(*backend, DType::kF32, {1, vocabulary}, "teacher", 4);
    const Tensor target = Int32Tensor(*backend, {0}), divergence = DirtyTensor(*backend, DType::kF32, {1});
    const Tensor agreement = DirtyTensor(*backend, DType::kF32, {1});
    const Tensor gradient = DirtyTensor(*backend, DType::kF32, {1, vocabulary});
    backend->Divergence(*stream, {.kind = kind,
                                  .logits = logits,
                                  .teacher = teacher,
                                  .targets = target,
                                  .scale = 1,
                                  .inverse_temperature = static_cast<float>(by),
                                  .divergences = divergence,
                                  .agreements = agreement,
                                  .gradient = gradient});
    const std::vector<double> log_q = LogSoftmax(teacher, 0, by);
    std::vector<double> differences;
    for (int64_t c = 0; c < vocabulary; ++c) {
      const double x = ValueAt(logits, 0, c);
      double sides[2];
      for (int side = 0; side < 2; ++side) {
        SetAt(logits, 0, c, x + (side == 0 ? step : -step));
        sides[side] = Divergence(kind, LogSoftmax(logits, 0, by), log_q);
      }
      SetAt(logits, 0, c, x);
      // The step as it was stored.
      const double up = static_cast<float>(x + step), down = static_cast<float>(x - step);
      differences.push_back((sides[0] - sides[1]) / (up - down));
    }
    ExpectNear(Values(gradient), differences, 1e-5, "gradient");
  }
}

TEST(DivergenceTest, IsExactlyZeroBetweenEquals) {
  const auto backend = NewTestBackend();
  const auto stream = backend->NewStream(StreamKind::kCompute);
  for (const DivergenceKind kind : kKinds) {
    const Tensor logits = RandomTensor(*backend, DType::kF32, {4, 5003}, "logits", 6);
    const Tensor target = Int32Tensor(*backend, {0, 1, 2, 3});
    const Tensor divergences = DirtyTensor(*backend, DType::kF32, {4});
    const Tensor agreements = DirtyTensor(*backend, DType::kF32, {4});
    const Tensor gradient = DirtyTensor(*backend, DType::kF32, {4, 5003});
    backend->Divergence(*stream, {.kind = kind,
                                  .logits = logits,
                                  .teacher = logits,
                                  .targets = target,
                                  .scale = 1,
                                  .divergences = divergences,
                                  .agreements = agreements,
                                  .gradient = gradient});
    EXPECT_EQ(Values(divergences), std::vector<double>(4, 0));
    EXPECT_EQ(Values(agreements), std::vector<double>(4, 1));
    EXPECT_EQ(Values(gradient), std::vector<double>(4 * 5003, 0));
  }
}

// A token that one of them rules out: no share where its weight is zero, infinitely far where it is not.
TEST(DivergenceTest, KnowsImpossibleTokens) {
  const auto backend = NewTestBackend();
  const auto stream = backend->NewStream(StreamKind::kCompute);
  const Tensor logits = RandomTensor(*backend, DType::kF32, {1, 40}, "student", 3);
  const Tensor teacher = RandomTensor(*backend, DType::kF32, {1, 40}, "teacher", 3);
  SetAt(teacher, 0, 7, -INFINITY);
  const Tensor target = Int32Tensor(*backend, {0}), divergence = DirtyTensor(*backend, DType::kF32, {1});
  const Tensor agreement = DirtyTensor(*backend, DType::kF32, {1});
  DivergenceArgs args{.logits = logits,
                      .teacher = teacher,
                      .targets = target,
                      .divergences = divergence,
                      .agreements = agreement};
  backend->Divergence(*stream, args);
  EXPECT_TRUE(std::isfinite(ValueAt(divergence, 0, 0)));
  args.kind = DivergenceKind::kReverse;
  backend->Divergence(*stream, args);
  EXPECT_EQ(ValueAt(divergence, 0, 0), INFINITY);
}

TEST(DivergenceTest, GivesTheSameBitsForAnyNumberOfThreads) {
  std::vector<Tensor> gradients, divergences;
  const std::vector<std::unique_ptr<Backend>> backends = NewTestBackends();
  for (const auto& owner : backends) {
    Backend& backend = *owner;
    const auto stream = backend.NewStream(StreamKind::kCompute);
    const Tensor logits = RandomTensor(backend, DType::kF32, {101, 1500}, "student");
    gradients.push_back(RandomTensor(backend, DType::kF32, {101, 1500}, "teacher"));
    divergences.push_back(DirtyTensor(backend, DType::kF32, {101}));
    const Tensor target = Int32Tensor(backend, Targets(101)),
                 agreements = DirtyTensor(backend, DType::kF32, {101});
    backend.Divergence(*stream, {.logits = logits,
                                 .teacher = gradients.back(),
                                 .targets = target,
                                 .scale = 1,
                                 .divergences = divergences.back(),
                                 .agreements = agreements,
                                 .gradient = gradients.back()});
    EXPECT_TRUE(SameBits(gradients.back(), gradients.front()));
    EXPECT_TRUE(SameBits(divergences.back(), divergences.front()));
  }
  gradients.clear();
  divergences.clear();
}

}  // namespace
}  // namespace moebius
