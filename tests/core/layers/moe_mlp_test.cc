#include "core/layers/moe_mlp.h"

#include <cmath>

#include "gtest/gtest.h"
#include "tests/core/layers/gradient_check.h"
#include "tests/core/layers/layer_parts.h"
#include "tests/core/layers/moe_reference.h"

namespace moebius {
namespace {

class MoeSubject final : public Subject {
 public:
  MoeSubject(Bench& bench, ParameterSet& set, SlotCounter& slots, const MoeChoices& choices)
      : bench_(bench),
        choices_(choices),
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
    layer_.Forward(pass, x[0], y[0]);
  }
  void BackwardInput(const Pass& pass, std::span<const TensorView> dy,
                     std::span<const TensorView> dx) const override {
    layer_.BackwardInput(pass, dy[0], dx[0]);
  }
  void BackwardWeight(const Pass& pass) const override { layer_.BackwardWeight(pass); }

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
  Bench& bench_;
  MoeChoices choices_;
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
    statistics = subject.moe().ReadStatistics(pass);
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

}  // namespace
}  // namespace moebius
