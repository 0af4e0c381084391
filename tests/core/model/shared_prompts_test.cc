// Answers that share their prompt's tokens against the same answers as sequences of their own.
#include "gtest/gtest.h"
#include "tests/core/model/tiny_models.h"

namespace moebius {
namespace {

using Ids = std::vector<int32_t>;

// Prompts and answers of different lengths, answers of one token, masks and weights among them.
std::vector<AnswerGroup> Groups() {
  const Ids t = TinyTokens(1, 63);
  const auto part = [&](int from, int count) { return Ids(t.begin() + from, t.begin() + from + count); };
  return {{.prompt = part(0, 5),
           .answers = {{.tokens = part(5, 4), .weights = {0.5f, -1, 2, 0.25f}},
                       {.tokens = part(9, 1), .weights = {-0.75f}},
                       {.tokens = part(10, 6), .weights = {1, 1, 1, -2, 1, 0}}}},
          {.prompt = part(16, 1), .answers = {{.tokens = part(17, 7), .weights = {}}}},
          {.prompt = part(24, 9),
           .answers = {{.tokens = part(33, 5), .weights = {}, .counts = {true, false, false, true, true}},
                       {.tokens = part(38, 2), .weights = {3, 4}}}}};
}

// Every answer with a prompt of its own.
std::vector<AnswerGroup> Apart(const std::vector<AnswerGroup>& groups) {
  std::vector<AnswerGroup> out;
  for (const AnswerGroup& group : groups) {
    for (const AnswerGroup::Answer& answer : group.answers)
      out.push_back({.prompt = group.prompt, .answers = {answer}});
  }
  return out;
}

struct Result {
  std::vector<float> losses, entropies;
  std::vector<NamedGradient> gradients;
};

Result RunGroups(TinyModel& tiny, const std::vector<AnswerGroup>& groups, const RecomputePolicy& recompute,
                 Model::Weights weights) {
  Microbatch mb = tiny.NewMicrobatch();
  ZeroGradients(tiny);
  Objective objective;
  objective.token_scale = 0.1f;
  objective.inverse_temperature = 1.25f;
  objective.entropies = true;
  objective.entropy_scale = 0.02f;
  objective.recompute = recompute;
  const Context context = tiny.bench.context();
  mb.LoadGroups(tiny.bench.stream(), groups);
  tiny.model.Forward(context, objective, mb);
  Result out{
      .losses = tiny.bench.Read(mb.losses), .entropies = tiny.bench.Read(mb.entropies), .gradients = {}};
  tiny.model.Backward(context, objective, mb, weights);
  if (weights == Model::Weights::kLater) tiny.model.BackwardWeight(context, objective, mb);
  EXPECT_EQ(tiny.bench.scratch().bytes(), 0);
  out.gradients = GradientsOf(tiny);
  return out;
}

class SharedPromptsTest : public testing::TestWithParam<std::string> {};

TEST_P(SharedPromptsTest, AnswersGetTheLossesAndGradientsThatTheyHaveAlone) {
  ModelConfig config = TinyConfig(GetParam());
  TinyModel tiny(config, {.mtp = false});
  const std::vector<AnswerGroup> groups = Groups();
  const Result want = RunGroups(tiny, Apart(groups), {}, Model::Weights::kNow);
  ASSERT_EQ(want.losses.size(), 4u + 1 + 6 + 7 + 3 + 2);
  const RecomputePolicy all{.norms = true, .mla_up = true, .swiglu = true}, blocks{.blocks = true};
  for (const auto& [recompute, weights] : {std::pair{RecomputePolicy{}, Model::Weights::kNow},
                                           {RecomputePolicy{}, Model::Weights::kLater},
                                           {all, Model::Weights::kNow},
                                           {blocks, Model::Weights::kNow}}) {
    const Result got = RunGroups(tiny, groups, recompute, weights);
    ASSERT_EQ(got.losses.size(), want.losses.size());
    for (size_t i = 0; i < want.losses.size(); ++i) {
      EXPECT_NEAR(got.losses[i], want.losses[i], 2e-5f) << i;
      EXPECT_NEAR(got.entropies[i], want.entropies[i], 2e-5f) << i;
    }
    ExpectSameGradients(got.gradients, want.gradients, 2e-5, "a shared prompt");
  }
}

INSTANTIATE_TEST_SUITE_P(Families, SharedPromptsTest, testing::ValuesIn(TinyNames()));

TEST(SharedPrompts, TheSumOfGroupsRunsOverEachPromptOnce) {
  Bench bench;
  Microbatch mb(bench.backend(), 0);
  const std::vector<AnswerGroup> groups = {{.prompt = {1, 2},
                                            .answers = {{.tokens = {3, 4, 5}, .weights = {}},
                                                        {.tokens = {6}, .weights = {}},
                                                        {.tokens = {7, 8}, .weights = {}}}}};
  EXPECT_EQ(groups[0].Tokens(), 5);
  EXPECT_EQ(groups[0].Predictions(), 6);
  mb.LoadGroups(bench.stream(), groups);
  EXPECT_EQ(bench.ReadInts(mb.ids), (Ids{1, 2, 3, 4, 7}));
  EXPECT_EQ(bench.ReadInts(mb.layout.positions), (Ids{0, 1, 2, 3, 2}));
  EXPECT_EQ(bench.ReadInts(mb.prediction_rows), (Ids{1, 2, 3, 1, 1, 4}));
  EXPECT_EQ(bench.ReadInts(mb.targets), (Ids{3, 4, 5, 6, 7, 8}));
  EXPECT_EQ(bench.ReadInts(mb.layout.attention_rows), (Ids{0, 1, 2, 3, 0, 1, 0, 1, 4}));
  EXPECT_EQ(bench.ReadInts(mb.layout.token_rows), (Ids{0, 1, 2, 3, 8}));
  EXPECT_EQ(mb.layout.attention_starts, (Ids{0, 4, 6, 9}));
  EXPECT_EQ(mb.layout.sequence_starts, (Ids{0, 5}));
  EXPECT_FALSE(mb.weights) << "1 each";
}

// Weights that depend on what the model says about the tokens.
TEST(SharedPrompts, WeighSeesTheLossesAndItsWeightsAreUsed) {
  TinyModel tiny(TinyConfig("llama"));
  const Context context = tiny.bench.context();
  std::vector<AnswerGroup> groups = Groups();
  const Result want = RunGroups(tiny, groups, {}, Model::Weights::kNow);
  std::vector<float> weights;
  for (const AnswerGroup& g : groups) {
    for (const AnswerGroup::Answer& a : g.answers) {
      for (size_t i = 0; i < a.tokens.size(); ++i) {
        if (a.counts.empty() || a.counts[i]) weights.push_back(a.weights.empty() ? 1 : a.weights[i]);
      }
    }
  }
  for (AnswerGroup& g : groups) {
    for (AnswerGroup::Answer& a : g.answers) a.weights.clear();
  }
  Microbatch mb = tiny.NewMicrobatch();
  ZeroGradients(tiny);
  Objective objective{
      .token_scale = 0.1f, .inverse_temperature = 1.25f, .entropies = true, .entropy_scale = 0.02f};
  mb.LoadGroups(tiny.bench.stream(), groups);
  mb.weigh = [&](std::span<const float> losses, std::span<float> out) {
    EXPECT_EQ(std::vector<float>(losses.begin(), losses.end()), want.losses);
    std::copy(weights.begin(), weights.end(), out.begin());
  };
  tiny.model.Forward(context, objective, mb);
  tiny.model.Backward(context, objective, mb, Model::Weights::kNow);
  ExpectSameGradients(GradientsOf(tiny), want.gradients, 0, "weights of a callback");
}

}  // namespace
}  // namespace moebius
