#include "core/layers/mtp_module.h"

#include "gtest/gtest.h"
#include "tests/core/layers/gradient_check.h"
#include "tests/core/layers/layer_parts.h"

namespace moebius {
namespace {

constexpr int64_t kHidden = 16;
const MoeChoices kMoe = {.spec = {.scoring = Scoring::kSigmoid, .top_k = 2, .normalize = true},
                         .experts = 4,
                         .hidden = kHidden,
                         .bias = true,
                         .shared = 8};

MtpParameters AddParameters(ParameterSet& set) {
  return {.embedding_norm = AddParameter(set, "enorm", {kHidden}, Init::kOnes),
          .hidden_norm = AddParameter(set, "hnorm", {kHidden}, Init::kOnes),
          .projection = AddParameter(set, "eh_proj", {kHidden, 2 * kHidden}),
          .output_norm = AddParameter(set, "norm", {kHidden}, Init::kOnes)};
}

// Two inputs: the previous hidden state, then the embedding.
class MtpSubject final : public Subject {
 public:
  MtpSubject(Bench& bench, ParameterSet& set, SlotCounter& slots, const MoeChoices* moe)
      : owned_(bench, set, slots, "block/", kHidden, moe),
        module_(slots, AddParameters(set), 1e-6f, owned_.Take()),
        experts_(moe ? moe->experts : 0) {}
  std::vector<int64_t> input_widths() const override { return {kHidden, kHidden}; }
  std::vector<int64_t> output_widths() const override { return {kHidden}; }
  int64_t experts() const override { return experts_; }
  void Forward(const Pass& pass, std::span<const TensorView> x,
               std::span<const TensorView> y) const override {
    module_.Forward(pass, x[0], x[1], y[0]);
  }
  void BackwardInput(const Pass& pass, std::span<const TensorView> dy,
                     std::span<const TensorView> dx) const override {
    module_.BackwardInput(pass, dy[0], dx[0], dx[1]);
  }
  void BackwardWeight(const Pass& pass) const override { module_.BackwardWeight(pass); }
  double Terms(const Pass& pass) const override {
    return experts_ > 0 ? TermsOf(pass, *module_.block().moe()) : 0;
  }

 private:
  OwnedBlock owned_;
  MtpModule module_;
  int64_t experts_;
};

TEST(MtpModuleTest, PassesTheGradientChecker) {
  CheckGradients([](Bench& bench, ParameterSet& set,
                    SlotCounter& slots) { return std::make_unique<MtpSubject>(bench, set, slots, &kMoe); },
                 {.balance = {.sequence = 1}, .step = 0.01});
}

TEST(MtpModuleTest, PassesTheGradientCheckerWithADenseBlock) {
  CheckGradients([](Bench& bench, ParameterSet& set,
                    SlotCounter& slots) { return std::make_unique<MtpSubject>(bench, set, slots, nullptr); },
                 {.step = 0.01, .bf16_tolerance = 0.1, .bf16_difference_tolerance = 0});
}

// With a projection that reads one half only, the output depends on that input only.
TEST(MtpModuleTest, TheEmbeddingComesFirstInTheProjection) {
  Bench bench;
  ParameterSet set;
  SlotCounter slots;
  MtpSubject subject(bench, set, slots, nullptr);
  set.Allocate(bench.backend(), bench.stream(), {});
  Randomize(bench, set);
  Parameter* projection = nullptr;
  for (const auto& parameter : set.all()) {
    if (parameter->name() == "eh_proj") projection = parameter.get();
  }
  std::vector<float> values = bench.Read(projection->weight());
  for (int64_t i = 0; i < kHidden; ++i) {
    for (int64_t j = kHidden; j < 2 * kHidden; ++j) values[i * 2 * kHidden + j] = 0;
  }
  SetParameter(bench.backend(), bench.stream(), *projection, 0, values);
  const OwnedLayout layout = MakeLayout(bench, {0, 6});
  const auto output = [&](const char* hidden, const char* embedding) {
    Saved saved(bench.memory(), slots.count());
    const Tensor h = bench.Floats(DType::kF32, {6, kHidden}, Normals(hidden, 6 * kHidden));
    const Tensor e = bench.Floats(DType::kF32, {6, kHidden}, Normals(embedding, 6 * kHidden));
    const Tensor y(bench.memory(), DType::kF32, {6, kHidden});
    const std::vector<TensorView> xs = {h, e}, ys = {y};
    subject.Forward({bench.context(), layout.layout, saved}, xs, ys);
    return bench.Read(y);
  };
  EXPECT_EQ(output("one hidden", "an embedding"), output("another hidden", "an embedding"));
  EXPECT_NE(output("one hidden", "an embedding"), output("one hidden", "another embedding"));
}

}  // namespace
}  // namespace moebius
