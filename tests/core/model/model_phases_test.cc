// How the phases of a model may be ordered, split and repeated without changing what they compute.
#include <cmath>
#include <map>
#include <memory>

#include "core/layers/gqa_attention.h"
#include "core/layers/mla_attention.h"
#include "core/model/score.h"
#include "gtest/gtest.h"
#include "tests/core/model/tiny_models.h"

namespace moebius {
namespace {

constexpr int64_t kSequences = 4, kLength = 6;

class ModelPhasesTest : public testing::TestWithParam<std::string> {
 protected:
  ModelConfig config() const { return TinyConfig(GetParam()); }
  int depths() const { return static_cast<int>(config().num_nextn_predict_layers); }
  Objective objective() const { return FullObjective(config(), kSequences, kLength); }
};

// Sequences [first, first + count) of the batch.
void Load(TinyModel& tiny, Microbatch& mb, int64_t first, int64_t count, int depths) {
  const std::vector<int32_t> tokens = TinyTokens(kSequences, kLength);
  mb.Load(tiny.bench.stream(), std::span(tokens).subspan(first * (kLength + 1), count * (kLength + 1)), count,
          kLength, depths);
}

// F, I and W of the whole batch in one microbatch, W at once.
std::vector<NamedGradient> Whole(TinyModel& tiny, const Objective& objective, int depths) {
  ZeroGradients(tiny);
  Microbatch mb = tiny.NewMicrobatch();
  Load(tiny, mb, 0, kSequences, depths);
  tiny.model.Forward(tiny.bench.context(), objective, mb);
  tiny.model.Backward(tiny.bench.context(), objective, mb, Model::Weights::kNow);
  return GradientsOf(tiny);
}

TEST_P(ModelPhasesTest, TheWeightPhaseGivesTheSameBitsNowAndLater) {
  TinyModel tiny(config());
  const auto want = Whole(tiny, objective(), depths());
  ZeroGradients(tiny);
  Microbatch mb = tiny.NewMicrobatch();
  Load(tiny, mb, 0, kSequences, depths());
  tiny.model.Forward(tiny.bench.context(), objective(), mb);
  tiny.model.Backward(tiny.bench.context(), objective(), mb, Model::Weights::kLater);
  tiny.model.BackwardWeight(tiny.bench.context(), objective(), mb);
  ExpectSameGradients(GradientsOf(tiny), want, 0, "W later");
}

TEST_P(ModelPhasesTest, TwoMicrobatchesInFlightGiveTheBitsOfOneAfterTheOther) {
  TinyModel tiny(config());
  Microbatch a = tiny.NewMicrobatch(), b = tiny.NewMicrobatch();
  const auto run = [&](bool crossed) {
    ZeroGradients(tiny);
    a.saved.Reset();
    b.saved.Reset();
    Load(tiny, a, 0, 1, depths());
    Load(tiny, b, 1, 3, depths());
    const Context& context = tiny.bench.context();
    const auto forward = [&](Microbatch& mb) { tiny.model.Forward(context, objective(), mb); };
    const auto input = [&](Microbatch& mb) {
      tiny.model.Backward(context, objective(), mb, Model::Weights::kLater);
    };
    const auto weight = [&](Microbatch& mb) { tiny.model.BackwardWeight(context, objective(), mb); };
    if (crossed) {
      forward(a), forward(b), input(a), input(b), weight(a), weight(b);
    } else {
      forward(a), input(a), weight(a), forward(b), input(b), weight(b);
    }
    return GradientsOf(tiny);
  };
  // The head adds to its weight when the forward runs: tied or not, a's part comes first either way, but a
  // tied table's other parts then come in another order.
  ExpectSameGradients(run(true), run(false), config().tie_word_embeddings ? 1e-6 : 0, "crossed");
}

TEST_P(ModelPhasesTest, EveryRecomputePolicyGivesTheSameBits) {
  TinyModel tiny(config());
  const auto want = Whole(tiny, objective(), depths());
  for (int bits = 1; bits < 16; ++bits) {
    Objective recomputing = objective();
    recomputing.recompute = {.norms = (bits & 1) != 0,
                             .mla_up = (bits & 2) != 0,
                             .swiglu = (bits & 4) != 0,
                             .blocks = (bits & 8) != 0};
    ExpectSameGradients(Whole(tiny, recomputing, depths()), want, 0, "policy " + std::to_string(bits));
    ZeroGradients(tiny);
    Microbatch mb = tiny.NewMicrobatch();
    Load(tiny, mb, 0, kSequences, depths());
    tiny.model.Forward(tiny.bench.context(), recomputing, mb);
    tiny.model.Backward(tiny.bench.context(), recomputing, mb, Model::Weights::kLater);
    tiny.model.BackwardWeight(tiny.bench.context(), recomputing, mb);
    ExpectSameGradients(GradientsOf(tiny), want, 0, "W later, policy " + std::to_string(bits));
  }
}

TEST_P(ModelPhasesTest, InFp8RecomputingGivesTheSameBits) {
  TinyModel tiny(config());
  Objective fp8 = objective();
  fp8.rounding = Rounding::kFp8;
  const auto want = Whole(tiny, fp8, depths());
  for (const bool blocks : {false, true}) {
    fp8.recompute = {.norms = true, .mla_up = true, .swiglu = true, .blocks = blocks};
    ExpectSameGradients(Whole(tiny, fp8, depths()), want, 0, blocks ? "blocks" : "selective");
  }
}

// V3 leaves embedding, head, router, norms and attention as they are (its report, §3.3.1).
TEST_P(ModelPhasesTest, InFp8AllProductsRoundButThoseOfHeadAndRouters) {
  TinyModel tiny(config());
  KernelProfile profile;
  Context context = tiny.bench.context();
  context.profile = &profile;
  Objective o = objective();
  Microbatch mb = tiny.NewMicrobatch();
  const auto calls = [&](Rounding rounding) {
    profile.Clear();
    o.rounding = rounding;
    mb.saved.Reset();
    Load(tiny, mb, 0, kSequences, depths());
    tiny.model.Forward(context, o, mb);
    tiny.model.Backward(context, o, mb, Model::Weights::kNow);
    std::map<std::string, int64_t> out;
    for (const auto& [name, entry] : profile.entries()) out[name] = entry.calls;
    return out;
  };
  auto plain = calls(Rounding::kNone), fp8 = calls(Rounding::kFp8);
  const auto heads = 1 + depths(), routers = static_cast<int>(tiny.model.moe_layers().size());
  int64_t biases = 0;  // their gradients are sums, written as products
  for (const auto& p : tiny.model.parameters().all()) biases += p->name().ends_with("bias") && p->grad();
  EXPECT_EQ(fp8["MatMul NT"], heads + routers);
  EXPECT_EQ(fp8["MatMul NN"], heads + routers + biases);
  EXPECT_EQ(fp8["MatMul TN"], heads + routers);
  for (const char* product : {"MatMul NT", "MatMul NN", "MatMul TN"}) {
    EXPECT_EQ(fp8[product] + fp8[std::string(product) + " FP8"], plain[product]) << product;
  }
  for (const char* phase : {"forward", "input", "weight"}) {
    EXPECT_EQ(fp8[std::string("GroupedMatMul ") + phase], 0) << phase;
    EXPECT_EQ(fp8[std::string("Grouped ") + phase + " FP8"], plain[std::string("GroupedMatMul ") + phase]);
  }
}

TEST_P(ModelPhasesTest, RecomputingBlocksKeepsLess) {
  TinyModel tiny(config());
  const auto kept = [&](bool blocks) {
    Microbatch mb = tiny.NewMicrobatch();
    Load(tiny, mb, 0, kSequences, depths());
    Objective o = objective();
    o.recompute.blocks = blocks;
    tiny.model.Forward(tiny.bench.context(), o, mb);
    return mb.saved.activations().bytes();
  };
  EXPECT_LT(kept(true), kept(false));
}

TEST_P(ModelPhasesTest, SplittingABatchChangesNoGradientBeyondRounding) {
  TinyModel tiny(config());
  const auto want = Whole(tiny, objective(), depths());
  for (const std::vector<int64_t>& split : {std::vector<int64_t>{2, 2}, {1, 3}, {1, 1, 1, 1}}) {
    ZeroGradients(tiny);
    Microbatch mb = tiny.NewMicrobatch();
    int64_t first = 0;
    for (const int64_t count : split) {
      Load(tiny, mb, first, count, depths());
      tiny.model.Forward(tiny.bench.context(), objective(), mb);
      tiny.model.Backward(tiny.bench.context(), objective(), mb, Model::Weights::kNow);
      mb.saved.Reset();
      first += count;
    }
    ExpectSameGradients(GradientsOf(tiny), want, 1e-5, "split into " + std::to_string(split.size()));
  }
}

TEST_P(ModelPhasesTest, LossesAloneMoveNoGradient) {
  TinyModel tiny(config());
  Microbatch mb = tiny.NewMicrobatch();
  Load(tiny, mb, 0, kSequences, depths());
  tiny.model.Forward(tiny.bench.context(), objective(), mb);
  const std::vector<float> losses = tiny.bench.Read(mb.losses);
  mb.saved.Reset();
  ZeroGradients(tiny);
  Objective forward = objective();
  forward.gradients = false;
  tiny.model.Forward(tiny.bench.context(), forward, mb);
  EXPECT_EQ(tiny.bench.Read(mb.losses), losses);
  for (const NamedGradient& gradient : GradientsOf(tiny)) {
    EXPECT_EQ(gradient.values, std::vector<float>(gradient.values.size(), 0.0f)) << gradient.name;
  }
}

TEST_P(ModelPhasesTest, ScoringKeepsNothingOfALayer) {
  TinyModel tiny(config());
  const std::vector<int32_t> tokens = TinyTokens(1, 11), starts = {0, 11};
  Microbatch scored = tiny.NewMicrobatch(), kept = tiny.NewMicrobatch();
  ScoreSequences(tiny.model, tiny.bench.context(), scored, std::span(tokens).first(11), starts);
  kept.LoadRagged(tiny.bench.stream(), std::span(tokens).first(11), starts);
  tiny.model.Forward(tiny.bench.context(), {.gradients = false}, kept);
  EXPECT_LT(scored.saved.activations().peak_bytes(), kept.saved.activations().peak_bytes());
}

// Rotary tables that grow serve what whole ones serve, and what read the short ones still finds them.
TEST_P(ModelPhasesTest, PositionsOnDemandScoreAsAllOfThem) {
  ModelConfig long_context = config();
  long_context.max_position_embeddings = 5000;
  TinyModel whole(long_context);
  ModelOptions options = whole.model.options();
  options.positions_on_demand = true;
  TinyModel tiny(long_context, options);
  const auto table = [](const TinyModel& of) {
    const Layer& attention = of.model.blocks()[0]->attention();
    const auto* mla = dynamic_cast<const MlaAttention*>(&attention);
    return (mla != nullptr ? mla->rotary() : dynamic_cast<const GqaAttention&>(attention).rotary())
        .cos.view();
  };
  const TensorView first = table(tiny);
  const std::vector<float> values = tiny.bench.Read(first);
  EXPECT_EQ(table(whole).rows(), 5000);
  EXPECT_LT(first.rows(), 1300);
  for (const int64_t length : {11, 1300, 20}) {
    const std::vector<int32_t> tokens = TinyTokens(1, length), starts = {0, static_cast<int32_t>(length)};
    Microbatch ours = tiny.NewMicrobatch(), theirs = whole.NewMicrobatch();
    EXPECT_EQ(
        ScoreSequences(tiny.model, tiny.bench.context(), ours, std::span(tokens).first(length), starts),
        ScoreSequences(whole.model, whole.bench.context(), theirs, std::span(tokens).first(length), starts))
        << length;
  }
  EXPECT_NE(table(tiny).data, first.data);
  EXPECT_EQ(tiny.bench.Read(first), values);
}

// Documents of one sequence that do not see each other score as sequences of their own: rotary positions
// count on, but only differences of positions matter.
TEST_P(ModelPhasesTest, MaskedDocumentsScoreLikeSequencesOfTheirOwn) {
  TinyModel tiny(config());
  const std::vector<int32_t> tokens = TinyTokens(1, 11);
  Objective forward;
  forward.gradients = false;
  Microbatch mb = tiny.NewMicrobatch();
  mb.Load(tiny.bench.stream(), tokens, 1, 11, 0, {{4, 5, 11}});
  tiny.model.Forward(tiny.bench.context(), forward, mb);
  const std::vector<float> masked = tiny.bench.Read(mb.losses);
  Microbatch apart = tiny.NewMicrobatch();
  const std::vector<int32_t> starts = {0, 4, 5, 11};
  apart.LoadRagged(tiny.bench.stream(), std::span(tokens).first(11), starts);
  tiny.model.Forward(tiny.bench.context(), forward, apart);
  const std::vector<float> separate = tiny.bench.Read(apart.losses);
  for (int i = 0; i < 10; ++i) {
    if (i == 3 || i == 4) continue;  // last of its document: a target there, none here
    EXPECT_NEAR(masked[i], separate[i], 2e-5) << i;
  }
  EXPECT_EQ(separate[3], 0);
  // Without the mask the second half sees the first.
  mb.saved.Reset();
  mb.Load(tiny.bench.stream(), tokens, 1, 11, 0);
  tiny.model.Forward(tiny.bench.context(), forward, mb);
  EXPECT_GT(std::abs(tiny.bench.Read(mb.losses)[8] - masked[8]), 1e-4);
}

// Stages of a pipeline, hidden states and gradients handed over by hand.
TEST_P(ModelPhasesTest, StagesHandedOverByHandEqualTheWhole) {
  const ModelConfig c = config();
  TinyModel whole(c);
  const auto want = Whole(whole, objective(), depths());
  const int64_t layers = c.num_hidden_layers;
  std::vector<std::unique_ptr<TinyModel>> stages;
  stages.push_back(std::make_unique<TinyModel>(
      c, ModelOptions{.stage = {.first_layer = 0, .last_layer = 1, .embedding = true, .head = false}}));
  if (layers > 2) {
    stages.push_back(std::make_unique<TinyModel>(
        c, ModelOptions{.stage = {.first_layer = 1, .last_layer = 2, .embedding = false, .head = false}}));
  }
  stages.push_back(std::make_unique<TinyModel>(
      c, ModelOptions{
             .stage = {.first_layer = layers - 1, .last_layer = layers, .embedding = false, .head = true}}));

  for (const Model::Weights when : {Model::Weights::kNow, Model::Weights::kLater}) {
    std::vector<std::unique_ptr<Microbatch>> mbs;
    std::vector<Tensor> received;  // what arrived from the stage before or after
    const Shape shape{kSequences * kLength, c.hidden_size};
    for (auto& stage : stages) {
      ZeroGradients(*stage);
      mbs.push_back(std::make_unique<Microbatch>(stage->bench.backend(), stage->model.num_slots()));
      Load(*stage, *mbs.back(), 0, kSequences, stage == stages.back() ? depths() : 0);
    }
    for (size_t s = 0; s < stages.size(); ++s) {
      if (s > 0) {
        const std::vector<float> values = stages[s - 1]->bench.Read(mbs[s - 1]->hidden);
        received.push_back(stages[s]->bench.Floats(DType::kF32, shape, values));
        mbs[s]->hidden = received.back();
      }
      stages[s]->model.Forward(stages[s]->bench.context(), objective(), *mbs[s]);
    }
    for (size_t s = stages.size(); s-- > 0;) {
      if (s + 1 < stages.size()) {
        const std::vector<float> values = stages[s + 1]->bench.Read(mbs[s + 1]->d_hidden);
        received.push_back(stages[s]->bench.Floats(DType::kF32, shape, values));
        mbs[s]->d_hidden = received.back();
      }
      stages[s]->model.Backward(stages[s]->bench.context(), objective(), *mbs[s], when);
      if (when == Model::Weights::kLater) {
        stages[s]->model.BackwardWeight(stages[s]->bench.context(), objective(), *mbs[s]);
      }
    }
    std::map<std::string, std::vector<float>> sums;  // the embedding may lie on two stages
    for (auto& stage : stages) {
      for (NamedGradient& gradient : GradientsOf(*stage)) {
        std::vector<float>& sum = sums[gradient.name];
        sum.resize(gradient.values.size(), 0.0f);
        for (size_t i = 0; i < sum.size(); ++i) sum[i] += gradient.values[i];
      }
    }
    EXPECT_EQ(sums.size(), want.size());
    for (const NamedGradient& gradient : want) {
      ASSERT_TRUE(sums.contains(gradient.name)) << gradient.name;
      EXPECT_LE(RelativeDistance(sums[gradient.name], gradient.values), 1e-6) << gradient.name;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Families, ModelPhasesTest, testing::ValuesIn(TinyNames()),
                         [](const auto& info) { return info.param; });

TEST(ModelTest, WithoutLossWeightMtpModulesAreNotRun) {
  const ModelConfig config = TinyConfig("deepseek_v3_mtp");
  TinyModel tiny(config);
  Objective o = FullObjective(config, kSequences, kLength);
  o.mtp_scale = 0;
  Microbatch mb = tiny.NewMicrobatch();
  Load(tiny, mb, 0, kSequences, 0);
  tiny.model.Forward(tiny.bench.context(), o, mb);
  EXPECT_EQ(mb.records.size(), 1u) << "one MoE layer, no MTP block";
  tiny.model.Backward(tiny.bench.context(), o, mb, Model::Weights::kNow);
  int64_t modules = 0;
  for (const NamedGradient& gradient : GradientsOf(tiny)) {
    const bool mtp =
        gradient.name.starts_with("model.layers.2.") || gradient.name.starts_with("model.layers.3.");
    modules += mtp;
    const bool zero = gradient.values == std::vector<float>(gradient.values.size(), 0.0f);
    EXPECT_EQ(zero, mtp) << gradient.name;
  }
  EXPECT_GT(modules, 10);
}

TEST(ModelTest, RoutingListsMoeLayersWithMtpModulesLast) {
  const ModelConfig config = TinyConfig("deepseek_v3_mtp");
  TinyModel tiny(config);
  Microbatch mb = tiny.NewMicrobatch();
  Load(tiny, mb, 0, kSequences, 2);
  tiny.model.Forward(tiny.bench.context(), FullObjective(config, kSequences, kLength), mb);
  const std::vector<RoutingStatistics> routing = ReadRouting(tiny.bench.backend(), tiny.bench.stream(), mb);
  ASSERT_EQ(routing.size(), 3u);
  ASSERT_EQ(tiny.model.moe_layers().size(), 3u);
  for (int64_t layer = 0; layer < 3; ++layer) {
    int64_t sum = 0;
    for (const int64_t count : routing[layer].counts) sum += count;
    EXPECT_EQ(sum, kSequences * (kLength - layer) * config.num_experts_per_tok) << "layer " << layer;
  }
}

// A depth longer than the sequences has no position with a target.
TEST(ModelTest, SequencesShorterThanTheMtpDepthsTrainWhatTheyCan) {
  const ModelConfig config = TinyConfig("deepseek_v3_mtp");
  TinyModel tiny(config);
  for (const int64_t length : {1, 2}) {
    Microbatch mb = tiny.NewMicrobatch();
    const std::vector<int32_t> tokens = TinyTokens(3, length);
    mb.Load(tiny.bench.stream(), tokens, 3, length, 2);
    const Objective o = FullObjective(config, 3, length);
    tiny.model.Forward(tiny.bench.context(), o, mb);
    tiny.model.Backward(tiny.bench.context(), o, mb, Model::Weights::kNow);
    EXPECT_EQ(mb.depths[0].losses.elements(), 3 * (length - 1));
    EXPECT_EQ(mb.depths[1].losses.elements(), 0);
    for (const NamedGradient& gradient : GradientsOf(tiny)) {
      for (const float value : gradient.values) ASSERT_TRUE(std::isfinite(value)) << gradient.name;
    }
  }
}

}  // namespace
}  // namespace moebius
