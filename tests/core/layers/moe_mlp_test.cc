#include "core/layers/moe_mlp.h"

#include <cmath>

#include "gtest/gtest.h"
#include "tests/core/layers/gradient_check.h"
#include "tests/core/layers/layer_parts.h"
#include "tests/core/layers/moe_layer.h"
#include "tests/core/layers/moe_reference.h"

namespace moebius {
namespace {

class MoeSubject final : public Subject {
 public:
  // max_expert_rows: in every pass, if not 0.
  MoeSubject(Bench& bench, ParameterSet& set, SlotCounter& slots, const MoeChoices& choices,
             int64_t max_expert_rows = 0)
      : bench_(bench),
        choices_(choices),
        max_expert_rows_(max_expert_rows),
        exchange_(choices.experts),
        parameters_(AddMoe(set, "moe/", choices)),
        moe_(slots, choices.spec, parameters_, &exchange_),
        layer_(&moe_) {}
  std::vector<int64_t> input_widths() const override { return {choices_.hidden}; }
  std::vector<int64_t> output_widths() const override { return {choices_.hidden}; }
  int64_t experts() const override { return choices_.experts; }
  void Forward(const Pass& pass, std::span<const TensorView> x,
               std::span<const TensorView> y) const override {
    x_ = x[0];
    layer_.Forward(InChunks(pass), x[0], y[0]);
  }
  void BackwardInput(const Pass& pass, std::span<const TensorView> dy,
                     std::span<const TensorView> dx) const override {
    layer_.BackwardInput(InChunks(pass), dy[0], dx[0]);
  }
  void BackwardWeight(const Pass& pass) const override { layer_.BackwardWeight(InChunks(pass)); }

  // The balance terms from the scores, in double.
  double Terms(const Pass& pass) const override {
    const std::vector<RoutedToken> tokens = Route();
    double z = 0;
    for (const RoutedToken& token : tokens) z += token.lse * token.lse;
    const std::vector<int32_t>& starts = pass.layout.sequence_starts;
    return static_cast<double>(pass.balance.sequence) *
               BalanceInDouble(tokens, starts, choices_.spec.top_k, false) +
           static_cast<double>(pass.balance.auxiliary) *
               BalanceInDouble(tokens, starts, choices_.spec.top_k, true) +
           static_cast<double>(pass.balance.z) * z;
  }

  std::vector<RoutedToken> Route() const {
    const std::vector<float> x = bench_.Read(x_), router = bench_.Read(parameters_.router->weight());
    const std::vector<float> bias =
        parameters_.bias ? bench_.Read(parameters_.bias->weight()) : std::vector<float>();
    std::vector<RoutedToken> out;
    for (size_t t = 0; t < x.size() / choices_.hidden; ++t) {
      out.push_back(RouteInDouble(choices_.spec, &x[t * choices_.hidden], choices_.hidden, router, bias));
    }
    return out;
  }
  const MoeMlp& moe() const { return moe_; }
  const MoeParameters& parameters() const { return parameters_; }

 private:
  Pass InChunks(Pass pass) const {
    if (max_expert_rows_ > 0) pass.recompute.max_expert_rows = max_expert_rows_;
    return pass;
  }

  Bench& bench_;
  MoeChoices choices_;
  int64_t max_expert_rows_;
  LocalExchange exchange_;
  MoeParameters parameters_;
  MoeMlp moe_;
  MoeLayer layer_;
  mutable TensorView x_;
};

void Check(const MoeChoices& choices, const BalanceFactors& balance = {}) {
  CheckGradients([&](Bench& bench, ParameterSet& set,
                     SlotCounter& slots) { return std::make_unique<MoeSubject>(bench, set, slots, choices); },
                 {.balance = balance, .matrix_scale = 1.5, .step = 0.01});
}

const MoeChoices kV3 = {.spec = {.scoring = Scoring::kSigmoid,
                                 .num_groups = 4,
                                 .top_groups = 2,
                                 .top_k = 3,
                                 .normalize = true,
                                 .scale = 2.5},
                        .bias = true,
                        .shared = 12};
const MoeChoices kV2 = {.spec = {.scoring = Scoring::kSoftmax,
                                 .num_groups = 2,
                                 .top_groups = 1,
                                 .top_k = 2,
                                 .normalize = false,
                                 .scale = 4},
                        .shared = 20};
const MoeChoices kMixtral = {.spec = {.scoring = Scoring::kSoftmax, .top_k = 2, .normalize = true}};

TEST(MoeMlpTest, PassesTheGradientCheckerAsInV3) { Check(kV3); }

TEST(MoeMlpTest, PassesTheGradientCheckerWithSoftmaxAsInV2) { Check(kV2); }

TEST(MoeMlpTest, PassesTheGradientCheckerWithNormalisedSoftmaxAndNoSharedExpert) { Check(kMixtral); }

TEST(MoeMlpTest, PassesTheGradientCheckerWhenEveryTokenHasOneExpert) {
  MoeChoices choices = kV2;
  choices.spec = {.scoring = Scoring::kSoftmax, .top_k = 1, .normalize = false};
  Check(choices);
}

TEST(MoeMlpTest, SequenceWiseLossHasTheGradientOfItsFormula) { Check(kV3, {.sequence = 5}); }

TEST(MoeMlpTest, AuxiliaryLossHasTheGradientOfItsFormula) {
  Check(kV2, {.auxiliary = 5});
  Check(kV3, {.auxiliary = 5});
}

TEST(MoeMlpTest, RouterZLossHasTheGradientOfItsFormula) { Check(kMixtral, {.z = 0.2f}); }

TEST(MoeMlpTest, AllBalanceTermsTogetherHaveTheGradientOfTheirSum) {
  Check(kV3, {.sequence = 3, .auxiliary = 2, .z = 0.1f});
}

// Forwards at f32 and what the formulas give for them.
struct Compared {
  Compared(const MoeChoices& c, const BalanceFactors& factors, const std::vector<int32_t>& starts)
      : choices(c),
        balance(factors),
        subject(bench, set, slots, c),
        layout(MakeLayout(bench, starts)),
        saved(bench.memory(), slots.count()),
        x(Normals("x", starts.back() * c.hidden)),
        x_tensor(bench.memory(), DType::kF32, {starts.back(), c.hidden}),
        y_tensor(bench.memory(), DType::kF32, {starts.back(), c.hidden}) {
    set.Allocate(bench.backend(), bench.stream(), {});
    Randomize(bench, set, 1.5);
    bench.Write(x, x_tensor);
    Forward();
  }

  void Forward() {
    saved.Reset();
    const Pass pass{.context = bench.context(), .layout = layout.layout, .saved = saved, .balance = balance};
    const std::vector<TensorView> xs = {x_tensor}, ys = {y_tensor};
    subject.Forward(pass, xs, ys);
    statistics = StatisticsOf(pass, subject.moe());
    routed = subject.Route();
  }

  void ExpectOutputOfTheFormulas() {
    const MoeChoices& c = choices;
    const MoeParameters& p = subject.parameters();
    const std::vector<float> gate_up = bench.Read(p.gate_up->weight()), down = bench.Read(p.down->weight());
    const std::vector<float> y = bench.Read(y_tensor);
    for (size_t t = 0; t < routed.size(); ++t) {
      const float* row = &x[t * c.hidden];
      Doubles want(c.hidden, 0.0);
      const auto add = [&](const Doubles& part, double weight) {
        for (int64_t i = 0; i < c.hidden; ++i) want[i] += weight * part[i];
      };
      for (int64_t k = 0; k < c.spec.top_k; ++k) {
        const int64_t e = routed[t].experts[k];
        add(SwiGluInDouble(row, c.hidden, &gate_up[e * 2 * c.intermediate * c.hidden],
                           &down[e * c.hidden * c.intermediate], c.intermediate),
            routed[t].weights[k]);
      }
      if (c.shared > 0) {
        add(SwiGluInDouble(row, c.hidden, bench.Read(p.shared_gate_up->weight()).data(),
                           bench.Read(p.shared_down->weight()).data(), c.shared),
            1);
      }
      for (int64_t i = 0; i < c.hidden; ++i) EXPECT_NEAR(y[t * c.hidden + i], want[i], 2e-5) << t << " " << i;
    }
  }

  MoeChoices choices;
  BalanceFactors balance;
  Bench bench;
  ParameterSet set;
  SlotCounter slots;
  MoeSubject subject;
  OwnedLayout layout;
  Saved saved;
  std::vector<float> x;
  Tensor x_tensor, y_tensor;
  RoutingStatistics statistics;
  std::vector<RoutedToken> routed;
};

TEST(MoeMlpTest, SumsTheWeightedExpertsAndTheSharedOne) {
  for (const MoeChoices& c : {kV3, kV2, kMixtral}) Compared(c, {}, {0, 7, 12}).ExpectOutputOfTheFormulas();
}

TEST(MoeMlpTest, StatisticsAreThoseOfTheFormulas) {
  const std::vector<int32_t> starts = {0, 7, 8, 20};
  const Compared run(kV3, {.sequence = 1, .auxiliary = 1, .z = 1}, starts);
  std::vector<int64_t> counts(kV3.experts, 0);
  double z = 0;
  for (const RoutedToken& token : run.routed) {
    for (const int32_t e : token.experts) ++counts[e];
    z += token.lse * token.lse;
  }
  EXPECT_EQ(run.statistics.counts, counts);
  EXPECT_NEAR(run.statistics.balance_loss_sum, BalanceInDouble(run.routed, starts, 3, false), 1e-5);
  EXPECT_NEAR(run.statistics.auxiliary_loss_sum, BalanceInDouble(run.routed, starts, 3, true), 1e-5);
  EXPECT_NEAR(run.statistics.z_sum, z, 1e-4);
}

TEST(MoeMlpTest, TheBiasMovesSelectionButNoWeight) {
  MoeChoices choices = kMixtral;
  choices.bias = true;
  choices.spec = {.scoring = Scoring::kSigmoid, .top_k = 2, .normalize = false};
  Compared run(choices, {}, {0, 6});
  std::vector<float> bias(choices.experts, 0.0f);
  bias[5] = 10;
  SetParameter(run.bench.backend(), run.bench.stream(), *run.subject.parameters().bias, 0, bias);
  run.Forward();
  EXPECT_EQ(run.statistics.counts[5], 6);
  run.ExpectOutputOfTheFormulas();
}

// One microbatch through all phases, with experts in chunks of `most` rows (0: in one piece).
struct Trained {
  Trained(const MoeChoices& choices, DType act, int64_t tokens, int64_t most, float bias_of_expert_1 = 0,
          Rounding rounding = Rounding::kNone)
      : subject(bench, set, slots, choices),
        layout(MakeLayout(bench, {0, static_cast<int32_t>(tokens)})),
        saved(bench.memory(), slots.count()) {
    set.Allocate(bench.backend(), bench.stream(), {.act = act});
    Randomize(bench, set, 1.5);
    if (choices.bias) {
      std::vector<float> bias(choices.experts, 0.0f);
      bias[1] = bias_of_expert_1;
      SetParameter(bench.backend(), bench.stream(), *subject.parameters().bias, 0, bias);
    }
    const auto rows = [&](const char* name) {
      return bench.Floats(act, {tokens, choices.hidden},
                          RoundedToBf16(Normals(name, tokens * choices.hidden)));
    };
    const Tensor x = rows("x"), dy = rows("dy");
    const Tensor y_tensor(bench.memory(), act, {tokens, choices.hidden});
    const Tensor dx_tensor(bench.memory(), act, {tokens, choices.hidden});
    const Pass pass{.context = bench.context(),
                    .layout = layout.layout,
                    .saved = saved,
                    .recompute = {.swiglu = true, .max_expert_rows = most},
                    .rounding = rounding};
    const std::vector<TensorView> xs = {x}, ys = {y_tensor}, dys = {dy}, dxs = {dx_tensor};
    subject.Forward(pass, xs, ys);
    kept_bytes = saved.activations().bytes();
    subject.BackwardInput(pass, dys, dxs);
    subject.BackwardWeight(pass);
    y = bench.Read(y_tensor);
    dx = bench.Read(dx_tensor);
    for (const auto& p : set.all()) {
      if (p->spec().trainable) gradients.push_back(bench.Read(p->grad()));
    }
    gradient_bytes = saved.gradients().bytes();
    scratch_bytes = bench.scratch().peak_bytes();
  }

  Bench bench;
  ParameterSet set;
  SlotCounter slots;
  MoeSubject subject;
  OwnedLayout layout;
  Saved saved;
  std::vector<float> y, dx;
  std::vector<std::vector<float>> gradients;
  int64_t kept_bytes = 0, gradient_bytes = 0, scratch_bytes = 0;
};

// The same experts are chosen: the router does not round.
TEST(MoeMlpTest, InFp8EveryGradientIsNearTheUnroundedOneInOnePieceAndInChunks) {
  for (const DType act : {DType::kF32, DType::kBF16}) {
    const Trained plain(kV3, act, 150, 0);
    for (const int64_t most : {0, 200}) {
      const Trained fp8(kV3, act, 150, most, 0, Rounding::kFp8);
      const auto expect_near = [&](const std::vector<float>& got, const std::vector<float>& want,
                                   const std::string& what) {
        EXPECT_GT(RelativeDistance(got, want), 0.01) << act << " " << most << " " << what;
        EXPECT_LT(RelativeDistance(got, want), 0.08) << act << " " << most << " " << what;
      };
      expect_near(fp8.y, plain.y, "y");
      expect_near(fp8.dx, plain.dx, "dx");
      for (size_t p = 0; p < plain.gradients.size(); ++p) {
        expect_near(fp8.gradients[p], plain.gradients[p], "gradient " + std::to_string(p));
      }
    }
  }
}

// The first microbatch's 51 rows go in chunks. The second's 27 do not: it must not add its weight gradients
// before the checker has read the first one's.
TEST(MoeMlpTest, PassesTheGradientCheckerInChunks) {
  CheckGradients([&](Bench& bench, ParameterSet& set,
                     SlotCounter& slots) { return std::make_unique<MoeSubject>(bench, set, slots, kV3, 30); },
                 {.balance = {.sequence = 3}, .matrix_scale = 1.5, .step = 0.01});
}

// Not to the bit: which kernel makes a product depends on how many rows a group has.
TEST(MoeMlpTest, ChunksOfExpertsGiveWhatOnePieceGivesToRounding) {
  for (const DType act : {DType::kF32, DType::kBF16}) {
    const double bound = act == DType::kF32 ? 1e-6 : 2e-6;
    const Trained whole(kV3, act, 50, 0);  // 150 rows
    for (const int64_t most : {1, 7, 64, 149, 150, 1000}) {
      const Trained chunks(kV3, act, 50, most);
      EXPECT_LE(RelativeDistance(chunks.y, whole.y), bound) << act << " " << most;
      EXPECT_LE(RelativeDistance(chunks.dx, whole.dx), bound) << act << " " << most;
      for (size_t p = 0; p < whole.gradients.size(); ++p) {
        EXPECT_LE(RelativeDistance(chunks.gradients[p], whole.gradients[p]), bound) << act << " " << most;
      }
      if (most >= 150) {
        EXPECT_EQ(chunks.gradients, whole.gradients);
      }
    }
  }
}

TEST(MoeMlpTest, ChunksBoundWhatIsKeptForEachRow) {
  MoeChoices choices = kMixtral;
  choices.bias = true;
  choices.hidden = 32;
  choices.intermediate = 64;
  choices.spec = {.scoring = Scoring::kSigmoid, .top_k = 1, .normalize = false};
  const int64_t tokens = 1000, most = 100, row = 4 * choices.hidden, wide = 4 * choices.intermediate;
  // Every token to expert 1.
  const Trained whole(choices, DType::kF32, tokens, 0, 10), chunks(choices, DType::kF32, tokens, most, 10);
  EXPECT_EQ(chunks.y, whole.y);
  // Kept: gate_up less, nothing more; h, d_gate_up and their rows' gradients are gone too.
  EXPECT_EQ(whole.kept_bytes - chunks.kept_bytes, tokens * 2 * wide);
  EXPECT_EQ(whole.gradient_bytes - chunks.gradient_bytes, tokens * 3 * wide);
  // Scratch of a chunk: gate_up and h; the router needs its share of all tokens in either run.
  EXPECT_LE(chunks.scratch_bytes, std::max(most * 3 * wide, tokens * (row + wide / 4)) + 4096);
  const auto most_of = [](const Trained& t) { return t.kept_bytes + t.gradient_bytes + t.scratch_bytes; };
  EXPECT_LE(most_of(chunks) + tokens * 5 * wide, most_of(whole));
}

}  // namespace
}  // namespace moebius
