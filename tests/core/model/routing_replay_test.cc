// Routing replay: experts that were chosen before, gates of the router as it is.
#include <cmath>

#include "core/base/random.h"
#include "core/base/strings.h"
#include "gtest/gtest.h"
#include "tests/core/model/tiny_models.h"

namespace moebius {
namespace {

using Ids = std::vector<int32_t>;

// Routes of `tokens` tokens: choices(token, MoE layer).
template <typename Choices>
std::vector<Route> MakeRoutes(const ModelConfig& config, int64_t tokens, const Choices& choices) {
  std::vector<Route> out;
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t l = 0; l < config.NumMoe(config.num_hidden_layers); ++l) {
      const std::vector<Route> chosen = choices(t, l);
      out.insert(out.end(), chosen.begin(), chosen.end());
    }
  }
  return out;
}

// Two prompts with three answers, and the routes that they refer to.
struct Replayed {
  template <typename Choices>
  Replayed(const ModelConfig& config, const Choices& choices) {
    const Ids t = TinyTokens(1, 63);
    const auto part = [&](int from, int count) { return Ids(t.begin() + from, t.begin() + from + count); };
    groups = {{.prompt = part(0, 5),
               .answers = {{.tokens = part(5, 4), .weights = {}}, {.tokens = part(9, 1), .weights = {}}}},
              {.prompt = part(16, 2), .answers = {{.tokens = part(17, 6), .weights = {}}}}};
    const auto next = [&](int64_t tokens) -> std::span<const Route> {
      routes.push_back(
          MakeRoutes(config, tokens, [&](int64_t i, int64_t l) { return choices(first + i, l); }));
      first += tokens;
      return routes.back();
    };
    routes.reserve(16);
    for (AnswerGroup& g : groups) {
      g.prompt_routes = next(std::ssize(g.prompt));
      for (AnswerGroup::Answer& a : g.answers) a.routes = next(std::ssize(a.tokens) - 1);
    }
  }
  std::vector<AnswerGroup> Live() const {
    std::vector<AnswerGroup> out = groups;
    for (AnswerGroup& g : out) {
      g.prompt_routes = {};
      for (AnswerGroup::Answer& a : g.answers) a.routes = {};
    }
    return out;
  }
  std::vector<AnswerGroup> groups;
  std::vector<std::vector<Route>> routes;
  int64_t first = 0;  // tokens so far
};

Objective AllTerms() {
  return {.token_scale = 0.1f,
          .balance = {.sequence = 0.02f, .auxiliary = 0.03f, .z = 0.001f},
          .recompute = {.norms = false, .mla_up = false, .swiglu = false}};
}

struct ReplayResult {
  std::vector<float> losses;
  std::vector<NamedGradient> gradients;
  std::vector<std::vector<int64_t>> counts;
  int64_t given = 0, changed = 0;
};

ReplayResult RunReplay(TinyModel& tiny, const std::vector<AnswerGroup>& groups, const Objective& objective,
                       Model::Weights weights) {
  Microbatch mb = tiny.NewMicrobatch();
  ZeroGradients(tiny);
  mb.LoadGroups(tiny.bench.stream(), groups);
  tiny.model.Forward(tiny.bench.context(), objective, mb);
  ReplayResult out{.losses = tiny.bench.Read(mb.losses), .gradients = {}, .counts = {}};
  for (const RoutingStatistics& layer : ReadRouting(tiny.bench.backend(), tiny.bench.stream(), mb)) {
    out.counts.push_back(layer.counts);
    out.given += layer.routes_given;
    out.changed += layer.routes_changed;
  }
  tiny.model.Backward(tiny.bench.context(), objective, mb, weights);
  if (weights == Model::Weights::kLater) tiny.model.BackwardWeight(tiny.bench.context(), objective, mb);
  EXPECT_EQ(tiny.bench.scratch().bytes(), 0);
  out.gradients = GradientsOf(tiny);
  return out;
}

void SetBiases(TinyModel& tiny, const std::vector<float>& values) {
  for (const MoeMlp* layer : tiny.model.moe_layers()) {
    SetParameter(tiny.bench.backend(), tiny.bench.stream(), *layer->parameters().bias, 0, values);
  }
}

// A large bias leaves the router no choice. The same experts given to a router that would choose others must
// come to the same, as biases are for selection alone.
TEST(RoutingReplay, GivenExpertsAreThoseOfARouterWithoutAChoice) {
  const ModelConfig config = TinyConfig("deepseek_v3");  // three groups of two experts, the best two groups
  TinyModel tiny(config, {.mtp = false});
  const Replayed batch(config, [](int64_t, int64_t) { return std::vector<Route>{4, 1}; });
  SetBiases(tiny, {0, 9, 0, 0, 10, 0});
  const ReplayResult want = RunReplay(tiny, batch.Live(), AllTerms(), Model::Weights::kNow);
  EXPECT_EQ(want.given, 0);
  const int64_t tokens = batch.first;
  EXPECT_EQ(want.counts, std::vector(2, std::vector<int64_t>{0, tokens, 0, 0, tokens, 0}));
  const ReplayResult same = RunReplay(tiny, batch.groups, AllTerms(), Model::Weights::kNow);
  EXPECT_EQ(same.given, 2 * tokens);
  EXPECT_EQ(same.changed, 0);
  EXPECT_EQ(same.losses, want.losses) << "replay of what the router chooses does nothing";
  ExpectSameGradients(same.gradients, want.gradients, 0, "a replay of the router's own choice");

  SetBiases(tiny, {0, 0, 0, 0, 0, 0});
  const ReplayResult live = RunReplay(tiny, batch.Live(), AllTerms(), Model::Weights::kNow);
  EXPECT_NE(live.losses, want.losses);
  for (const auto& [recompute, weights] :
       {std::pair{RecomputePolicy{}, Model::Weights::kNow},
        {RecomputePolicy{}, Model::Weights::kLater},
        {RecomputePolicy{.norms = true, .mla_up = true, .swiglu = true}, Model::Weights::kNow},
        {RecomputePolicy{.blocks = true}, Model::Weights::kNow}}) {
    Objective objective = AllTerms();
    objective.recompute = recompute;
    const ReplayResult got = RunReplay(tiny, batch.groups, objective, weights);
    EXPECT_EQ(got.counts, want.counts);
    EXPECT_EQ(got.given, 2 * tokens);
    EXPECT_GT(got.changed, tokens) << "this router wants others";
    ASSERT_EQ(got.losses.size(), want.losses.size());
    for (size_t i = 0; i < want.losses.size(); ++i) EXPECT_NEAR(got.losses[i], want.losses[i], 1e-5f) << i;
    ExpectSameGradients(got.gradients, want.gradients, 1e-5, "given experts");
  }
}

TEST(RoutingReplay, WhereNobodyKnowsTheRouterChooses) {
  const ModelConfig config = TinyConfig("deepseek_v3");
  TinyModel tiny(config, {.mtp = false});
  // The first layer's routes of even tokens are known.
  const Replayed some(config, [](int64_t t, int64_t l) {
    return t % 2 == 0 && l == 0 ? std::vector<Route>{0, 1} : std::vector<Route>{kNoRoute, kNoRoute};
  });
  const Replayed none(config, [](int64_t, int64_t) { return std::vector<Route>{kNoRoute, kNoRoute}; });
  const ReplayResult live = RunReplay(tiny, none.Live(), AllTerms(), Model::Weights::kNow);
  const ReplayResult unknown = RunReplay(tiny, none.groups, AllTerms(), Model::Weights::kNow);
  EXPECT_EQ(unknown.given, 0);
  EXPECT_EQ(unknown.losses, live.losses);
  ExpectSameGradients(unknown.gradients, live.gradients, 0, "routes that nobody knows");
  const ReplayResult got = RunReplay(tiny, some.groups, AllTerms(), Model::Weights::kNow);
  EXPECT_EQ(got.given, (some.first + 1) / 2);
  EXPECT_GT(got.changed, 0);
  EXPECT_GE(got.counts[0][0], got.given);
  EXPECT_NE(got.losses, live.losses);
}

class ReplayGradientTest : public testing::TestWithParam<std::string> {};

// With the experts fixed, no step of any parameter makes the losses jump: differences need no second look.
TEST_P(ReplayGradientTest, DifferencesAgreeWithTheBackward) {
  const ModelConfig config = TinyConfig(GetParam());
  TinyModel tiny(config, {.mtp = false});
  const RandomStream random(19, "routes");
  const int64_t experts = config.n_routed_experts, layers = config.NumMoe(config.num_hidden_layers);
  const Replayed batch(config, [&](int64_t t, int64_t l) {
    const auto first = static_cast<Route>(random.Below(2 * (t * layers + l), experts));
    const uint64_t step = 1 + random.Below(2 * (t * layers + l) + 1, experts - 1);
    return std::vector<Route>{first, static_cast<Route>((first + step) % experts)};
  });
  ASSERT_EQ(config.num_experts_per_tok, 2);
  const Objective objective{.token_scale = 0.1f};
  const ReplayResult result = RunReplay(tiny, batch.groups, objective, Model::Weights::kNow);
  EXPECT_EQ(result.given, layers * batch.first);
  EXPECT_GT(result.changed, result.given / 2);

  Bench& bench = tiny.bench;
  Microbatch mb = tiny.NewMicrobatch();
  mb.LoadGroups(bench.stream(), batch.groups);
  const auto evaluate = [&] {
    tiny.model.Forward(bench.context(), {.gradients = false}, mb);
    const double value = objective.token_scale * SumLosses(bench.backend(), bench.stream(), mb.losses);
    mb.saved.Reset();
    return value;
  };
  for (const auto& parameter : tiny.model.parameters().all()) {
    if (!parameter->spec().trainable) continue;
    const int64_t n = parameter->shape().elements();
    const std::vector<float> base = GetParameter(bench.backend(), bench.stream(), *parameter, 0, n);
    const std::vector<float> gradient = bench.Read(parameter->grad());
    double size = 0, unit = 0;
    for (const float g : gradient) size += static_cast<double>(g) * g;
    for (const float b : base) unit += static_cast<double>(b) * b;
    size = std::sqrt(size);
    EXPECT_GT(size, 1e-4) << parameter->name();
    const double h = 0.002 * std::max(std::sqrt(unit / static_cast<double>(n)), 0.05);
    for (int direction = 0; direction < 2; ++direction) {
      const RandomStream signs(37, Concat(parameter->name(), direction));
      double numeric = 0, analytic = 0;
      for (const auto& [at, weight] :
           {std::pair{1.0, 8.0 / 12}, {-1.0, -8.0 / 12}, {2.0, -1.0 / 12}, {-2.0, 1.0 / 12}}) {
        std::vector<float> moved = base;
        for (int64_t i = 0; i < n; ++i) moved[i] += static_cast<float>(at * h * (signs.Bits(i) & 1 ? 1 : -1));
        SetParameter(bench.backend(), bench.stream(), *parameter, 0, moved);
        numeric += weight / h * evaluate();
        for (int64_t i = 0; i < n; ++i)
          analytic += weight / h * gradient[i] * (static_cast<double>(moved[i]) - base[i]);
      }
      SetParameter(bench.backend(), bench.stream(), *parameter, 0, base);
      EXPECT_NEAR(numeric, analytic, 2e-3 * size + 3e-7 / h)
          << parameter->name() << ", norm of the gradient " << size;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Families, ReplayGradientTest,
                         testing::Values("deepseek_v3", "deepseek_v2", "qwen3_moe", "mixtral"),
                         [](const auto& info) { return info.param; });

TEST(RoutingReplayDeathTest, RoutesOfAnotherNumberOfTokensAreACallersError) {
  const ModelConfig config = TinyConfig("deepseek_v3");
  TinyModel tiny(config, {.mtp = false});
  Replayed batch(config, [](int64_t, int64_t) { return std::vector<Route>{4, 1}; });
  batch.groups[0].answers[0].routes = batch.groups[0].answers[0].routes.first(4);
  Microbatch mb = tiny.NewMicrobatch();
  EXPECT_DEATH(mb.LoadGroups(tiny.bench.stream(), batch.groups), "routes of 3 tokens");
}

}  // namespace
}  // namespace moebius
