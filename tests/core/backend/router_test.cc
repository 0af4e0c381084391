// Routing, its gradients and its losses against double precision and finite differences.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <ostream>
#include <vector>

#include "tests/core/backend/arrays.h"
#include "tests/core/backend/test_backend.h"

namespace moebius {
namespace {

using Row = std::vector<double>;

double LogSumExp(const Row& x) {
  const double max = *std::max_element(x.begin(), x.end());
  double sum = 0;
  for (const double v : x) sum += std::exp(v - max);
  return max + std::log(sum);
}

Row Scores(Scoring scoring, const Row& logits) {
  const double lse = LogSumExp(logits);
  Row out;
  for (const double x : logits)
    out.push_back(scoring == Scoring::kSigmoid ? 1 / (1 + std::exp(-x)) : std::exp(x - lse));
  return out;
}

// Indices of the k largest, by falling value, ties to the lower index.
std::vector<int> Largest(const Row& x, int64_t k) {
  std::vector<int> order(x.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return x[a] > x[b]; });
  order.resize(k);
  return order;
}

// DeepSeek-V3 report, equations 12 to 16, and DeepSeek-V2's softmax form.
std::vector<int> Chosen(const RouterSpec& spec, Row ranked, const Row& bias) {
  for (size_t e = 0; e < bias.size(); ++e) ranked[e] += bias[e];
  const int64_t size = static_cast<int64_t>(ranked.size()) / spec.num_groups;
  Row group_scores;
  for (int64_t g = 0; g < spec.num_groups; ++g) {
    Row group(ranked.begin() + g * size, ranked.begin() + (g + 1) * size);
    std::sort(group.rbegin(), group.rend());
    group_scores.push_back(spec.scoring == Scoring::kSigmoid && size > 1 ? group[0] + group[1] : group[0]);
  }
  const std::vector<int> kept = Largest(group_scores, spec.top_groups);
  for (int64_t g = 0; g < spec.num_groups; ++g) {
    if (std::find(kept.begin(), kept.end(), g) != kept.end()) continue;
    std::fill_n(ranked.begin() + g * size, size, -std::numeric_limits<double>::infinity());
  }
  return Largest(ranked, spec.top_k);
}

Row Weights(const RouterSpec& spec, const Row& scores, const std::vector<int>& chosen) {
  double sum = 1e-20;
  for (const int e : chosen) sum += scores[e];
  Row out;
  for (const int e : chosen) out.push_back(spec.scale * scores[e] / (spec.normalize ? sum : 1));
  return out;
}

struct RouterCase {
  const char* name;
  int64_t experts;
  RouterSpec spec;
  bool bias;
};
std::ostream& operator<<(std::ostream& out, const RouterCase& c) { return out << c.name; }

const std::vector<int32_t> kStarts = {0, 1, 70, 70, 203};
constexpr int64_t kTokens = 203;

// The tensors of one case after Router has run.
struct Routed {
  Routed(Backend& backend, const RouterCase& c)
      : spec(c.spec),
        stream(backend.NewStream(StreamKind::kCompute)),
        logits(RandomTensor(backend, DType::kF32, {kTokens, c.experts}, "logits")),
        bias(RandomTensor(backend, DType::kF32, {c.experts}, "bias", 0.3)),
        scores(DirtyTensor(backend, DType::kF32, {kTokens, c.experts})),
        experts(DirtyTensor(backend, DType::kI32, {kTokens, c.spec.top_k})),
        weights(DirtyTensor(backend, DType::kF32, {kTokens, c.spec.top_k})) {
    backend.Router(*stream, {.spec = spec,
                             .logits = logits,
                             .bias = c.bias ? bias.view() : TensorView(),
                             .scores = scores,
                             .experts = experts,
                             .weights = weights});
  }
  Row Logits(int64_t t) const { return Values(logits.view().Rows(t, 1)); }
  std::vector<int> Experts(int64_t t) const {
    const Row row = Values(experts.view().Rows(t, 1));
    return std::vector<int>(row.begin(), row.end());
  }
  RouterSpec spec;
  std::unique_ptr<Stream> stream;
  Tensor logits, bias, scores, experts, weights;
};

class RouterTest : public testing::TestWithParam<RouterCase> {};

TEST_P(RouterTest, ChoosesAndWeighsAsTheFormulaSays) {
  const RouterCase& c = GetParam();
  const auto backend = NewTestBackend();
  const Routed r(*backend, c);
  const Row bias = c.bias ? Values(r.bias) : Row();
  for (int64_t t = 0; t < kTokens; ++t) {
    const Row scores = Scores(c.spec.scoring, r.Logits(t));
    ExpectNear(Values(r.scores.view().Rows(t, 1)), scores, 1e-6, "scores");
    const std::vector<int> chosen = Chosen(c.spec, scores, bias);
    ASSERT_EQ(r.Experts(t), chosen) << "token " << t;
    ExpectNear(Values(r.weights.view().Rows(t, 1)), Weights(c.spec, scores, chosen), 1e-6, "weights");
  }
}

// Every third token has experts of its own, every third none, in rows of more columns than a choice has.
TEST_P(RouterTest, TakesTheExpertsThatAreGiven) {
  const RouterCase& c = GetParam();
  const auto backend = NewTestBackend();
  const Routed best(*backend, c);
  const int64_t k = c.spec.top_k;
  std::vector<int32_t> rows(kTokens * (k + 3), 77);
  const auto given_at = [&](int64_t t, int64_t i) {
    return static_cast<int>((c.experts - 1 - t % c.experts + i) % c.experts);
  };
  for (int64_t t = 0; t < kTokens; ++t) {
    for (int64_t i = 0; i < k; ++i) rows[t * (k + 3) + 1 + i] = t % 3 == 0 ? given_at(t, i) : -1;
  }
  const Tensor all(*backend, DType::kI32, {kTokens, k + 3});
  backend->CopyToDevice(*best.stream, rows.data(), all);
  const Tensor scores = DirtyTensor(*backend, DType::kF32, {kTokens, c.experts});
  const Tensor experts = DirtyTensor(*backend, DType::kI32, {kTokens, k});
  const Tensor weights = DirtyTensor(*backend, DType::kF32, {kTokens, k});
  backend->Router(*best.stream, {.spec = c.spec,
                                 .logits = best.logits,
                                 .bias = c.bias ? best.bias.view() : TensorView(),
                                 .given = all.view().Columns(1, k),
                                 .scores = scores,
                                 .experts = experts,
                                 .weights = weights});
  EXPECT_EQ(Values(scores), Values(best.scores));
  for (int64_t t = 0; t < kTokens; ++t) {
    const Row got = Values(experts.view().Rows(t, 1)), gates = Values(weights.view().Rows(t, 1));
    if (t % 3 != 0) {
      EXPECT_EQ(got, Values(best.experts.view().Rows(t, 1))) << t;
      EXPECT_EQ(gates, Values(best.weights.view().Rows(t, 1))) << t;
      continue;
    }
    std::vector<int> want;
    for (int64_t i = 0; i < k; ++i) want.push_back(given_at(t, i));
    EXPECT_EQ(std::vector<int>(got.begin(), got.end()), want) << t;
    ExpectNear(gates, Weights(c.spec, Scores(c.spec.scoring, best.Logits(t)), want), 1e-6, "gates");
  }
}

TEST_P(RouterTest, GradientAgreesWithFiniteDifferences) {
  const RouterCase& c = GetParam();
  const auto backend = NewTestBackend();
  const Routed r(*backend, c);
  const int64_t sequences = static_cast<int64_t>(kStarts.size()) - 1;
  const Tensor dweights = RandomTensor(*backend, DType::kF32, {kTokens, c.spec.top_k}, "dweights");
  const Tensor coefficients = RandomTensor(*backend, DType::kF32, {sequences, c.experts}, "coefficients");
  const float z = 0.05f;
  const Tensor all = DirtyTensor(*backend, DType::kF32, {kTokens, c.experts});
  const Tensor plain = DirtyTensor(*backend, DType::kF32, {kTokens, c.experts});
  RouterBackwardArgs args{.spec = c.spec,
                          .logits = r.logits,
                          .scores = r.scores,
                          .experts = r.experts,
                          .dweights = dweights,
                          .sequence_starts = {},
                          .dlogits = plain};
  backend->RouterBackward(*r.stream, args);
  args.balance_coefficients = coefficients;
  args.sequence_starts = kStarts;
  args.z_coefficient = z;
  args.dlogits = all;
  backend->RouterBackward(*r.stream, args);

  for (int64_t s = 0; s < sequences; ++s) {
    for (int64_t t = kStarts[s]; t < kStarts[s + 1]; t += 13) {
      const std::vector<int> chosen = r.Experts(t);
      // The token's part of the objective, with all terms and through the weights alone.
      const auto loss = [&](const Row& logits, bool with_balance) {
        const Row scores = Scores(c.spec.scoring, logits);
        const Row weights = Weights(c.spec, scores, chosen);
        double sum = 0;
        for (int64_t k = 0; k < c.spec.top_k; ++k) sum += ValueAt(dweights, t, k) * weights[k];
        if (!with_balance) return sum;
        const double total = std::accumulate(scores.begin(), scores.end(), 0.0);
        for (int64_t e = 0; e < c.experts; ++e) sum += ValueAt(coefficients, s, e) * scores[e] / total;
        return sum + z * LogSumExp(logits) * LogSumExp(logits);
      };
      for (const bool with_balance : {false, true}) {
        Row want;
        for (int64_t e = 0; e < c.experts; ++e) {
          Row up = r.Logits(t), down = up;
          up[e] += 1e-4;
          down[e] -= 1e-4;
          want.push_back((loss(up, with_balance) - loss(down, with_balance)) / 2e-4);
        }
        ExpectNear(Values((with_balance ? all : plain).view().Rows(t, 1)), want, 2e-6,
                   with_balance ? "all" : "weights");
      }
    }
  }
}

TEST_P(RouterTest, BalanceLossMeetsItsDefinition) {
  const RouterCase& c = GetParam();
  const auto backend = NewTestBackend();
  const Routed r(*backend, c);
  const int64_t sequences = static_cast<int64_t>(kStarts.size()) - 1;
  for (const bool classic : {false, true}) {
    const Tensor f = DirtyTensor(*backend, DType::kF32, {sequences, c.experts});
    const Tensor losses = DirtyTensor(*backend, DType::kF32, {sequences});
    backend->Balance(*r.stream, {.scores = r.scores,
                                 .experts = classic ? r.experts.view() : TensorView(),
                                 .top_k = c.spec.top_k,
                                 .sequence_starts = kStarts,
                                 .f = f,
                                 .losses = losses});
    for (int64_t s = 0; s < sequences; ++s) {
      const double n = kStarts[s + 1] - kStarts[s];
      Row want_f(c.experts, 0), shares(c.experts, 0);
      for (int64_t t = kStarts[s]; t < kStarts[s + 1]; ++t) {
        const Row scores = Scores(c.spec.scoring, r.Logits(t));
        const double total = std::accumulate(scores.begin(), scores.end(), 0.0);
        for (int64_t e = 0; e < c.experts; ++e) shares[e] += scores[e] / total / n;
        for (const int e : classic ? r.Experts(t) : Largest(scores, c.spec.top_k)) {
          want_f[e] += c.experts / (c.spec.top_k * n);
        }
      }
      ExpectNear(Values(f.view().Rows(s, 1)), want_f, 1e-6, "f");
      ExpectNear({ValueAt(losses, 0, s)},
                 {std::inner_product(shares.begin(), shares.end(), want_f.begin(), 0.0)}, 1e-6, "loss");
    }
  }
}

TEST_P(RouterTest, GivesTheSameBitsForAnyNumberOfThreads) {
  const RouterCase& c = GetParam();
  const int64_t sequences = static_cast<int64_t>(kStarts.size()) - 1;
  std::vector<std::vector<double>> results;
  for (const auto& backend : NewTestBackends()) {
    const Routed r(*backend, c);
    const Tensor z(*backend, DType::kF32, {1}), losses(*backend, DType::kF32, {sequences});
    const Tensor f(*backend, DType::kF32, {sequences, c.experts}),
        dlogits(*backend, DType::kF32, {kTokens, c.experts});
    backend->RouterZ(*r.stream, {.logits = r.logits, .z = z});
    backend->Balance(
        *r.stream,
        {.scores = r.scores, .top_k = c.spec.top_k, .sequence_starts = kStarts, .f = f, .losses = losses});
    backend->RouterBackward(*r.stream, {.spec = c.spec,
                                        .logits = r.logits,
                                        .scores = r.scores,
                                        .experts = r.experts,
                                        .dweights = r.weights,
                                        .balance_coefficients = f,
                                        .sequence_starts = kStarts,
                                        .z_coefficient = 1,
                                        .dlogits = dlogits});
    std::vector<double> all;
    for (const TensorView& view : {r.scores.view(), r.experts.view(), r.weights.view(), z.view(),
                                   losses.view(), f.view(), dlogits.view()}) {
      const std::vector<double> values = Values(view);
      all.insert(all.end(), values.begin(), values.end());
    }
    results.push_back(std::move(all));
    EXPECT_EQ(results.back(), results.front());
  }
}

INSTANTIATE_TEST_SUITE_P(
    Specs, RouterTest,
    testing::Values(
        RouterCase{"DeepSeekV3",
                   32,
                   {.num_groups = 4, .top_groups = 2, .top_k = 4, .normalize = true, .scale = 2.5f},
                   true},
        RouterCase{"SigmoidWithoutGroups", 21, {.top_k = 3, .normalize = false}, true},
        RouterCase{"GroupsOfOne", 6, {.num_groups = 6, .top_groups = 3, .top_k = 2}, false},
        RouterCase{"DeepSeekV2",
                   24,
                   {.scoring = Scoring::kSoftmax,
                    .num_groups = 8,
                    .top_groups = 3,
                    .top_k = 6,
                    .normalize = false,
                    .scale = 16},
                   false},
        RouterCase{"Mixtral", 8, {.scoring = Scoring::kSoftmax, .top_k = 2}, false},
        RouterCase{"AllExperts", 5, {.scoring = Scoring::kSoftmax, .top_k = 5}, false}),
    [](const auto& info) { return std::string(info.param.name); });

TEST(RouterTiesTest, GoToTheLowerIndexAndMaskedGroupsAreNeverChosen) {
  const auto backend = NewTestBackend();
  const auto stream = backend->NewStream(StreamKind::kCompute);
  const Tensor logits(*backend, DType::kF32, {2, 8}), bias(*backend, DType::kF32, {8});
  const Tensor scores(*backend, DType::kF32, {2, 8}), experts(*backend, DType::kI32, {2, 4}),
      weights(*backend, DType::kF32, {2, 4});
  for (int64_t e = 0; e < 8; ++e) {
    SetAt(logits, 0, e, 0);                   // all equal
    SetAt(logits, 1, e, e < 4 ? 1.0 : -1.0);  // the first group wins
    SetAt(bias, 0, e, -2);  // every biased score is below 0, the value a wrong mask would give
  }
  backend->Router(*stream, {.spec = {.num_groups = 2, .top_groups = 1, .top_k = 4},
                            .logits = logits,
                            .bias = bias,
                            .scores = scores,
                            .experts = experts,
                            .weights = weights});
  EXPECT_EQ(Values(experts), (std::vector<double>{0, 1, 2, 3, 0, 1, 2, 3}));
  EXPECT_EQ(Values(weights), std::vector<double>(8, 0.25));
}

TEST(RouterNaNTest, StillChoosesExpertsThatExist) {
  const auto backend = NewTestBackend();
  const auto stream = backend->NewStream(StreamKind::kCompute);
  const Tensor logits = RandomTensor(*backend, DType::kF32, {3, 8}, "logits");
  for (int64_t e = 0; e < 8; ++e) SetAt(logits, 0, e, std::nan(""));
  for (int64_t e = 3; e < 8; ++e) SetAt(logits, 1, e, std::nan(""));
  const Tensor scores(*backend, DType::kF32, {3, 8}), experts(*backend, DType::kI32, {3, 2}),
      weights(*backend, DType::kF32, {3, 2});
  for (const int64_t groups : {1, 4}) {
    backend->Router(*stream, {.spec = {.num_groups = groups, .top_groups = 1, .top_k = 2},
                              .logits = logits,
                              .scores = scores,
                              .experts = experts,
                              .weights = weights});
    for (int64_t t = 0; t < 3; ++t) {
      const double a = ValueAt(experts, t, 0), b = ValueAt(experts, t, 1);
      EXPECT_TRUE(a >= 0 && a < 8 && b >= 0 && b < 8 && a != b) << a << " and " << b;
    }
  }
}

TEST(RouterZTest, IsTheSumOfSquaredLogSumExp) {
  const auto backend = NewTestBackend();
  const auto stream = backend->NewStream(StreamKind::kCompute);
  const Tensor logits = RandomTensor(*backend, DType::kF32, {200, 37}, "logits", 3);
  const Tensor z = DirtyTensor(*backend, DType::kF32, {1});
  backend->RouterZ(*stream, {.logits = logits, .z = z});
  double want = 0;
  for (int64_t t = 0; t < 200; ++t) want += std::pow(LogSumExp(Values(logits.view().Rows(t, 1))), 2);
  ExpectNear(Values(z), {want}, 1e-6, "z");
}

}  // namespace
}  // namespace moebius
