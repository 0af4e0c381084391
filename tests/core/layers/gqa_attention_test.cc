#include "core/layers/gqa_attention.h"

#include "gtest/gtest.h"
#include "tests/core/layers/gradient_check.h"

namespace moebius {
namespace {

struct Choices {
  bool biases = false;
  bool norms = false;
};

class GqaSubject final : public Subject {
 public:
  GqaSubject(Bench& bench, ParameterSet& set, SlotCounter& slots, const GqaShape& shape,
             const Choices& choices)
      : hidden_(shape.hidden),
        rotary_(MakeRotaryTable(bench.backend(), bench.stream(), 32, shape.head_dim, 100.0, {},
                                RopeStyle::kHalf)) {
    const int64_t q_out = shape.heads * shape.head_dim, kv_out = shape.kv_heads * shape.head_dim;
    GqaParameters p;
    p.q = AddParameter(set, "q", {q_out, shape.hidden});
    p.k = AddParameter(set, "k", {kv_out, shape.hidden});
    p.v = AddParameter(set, "v", {kv_out, shape.hidden});
    p.o = AddParameter(set, "o", {shape.hidden, q_out});
    if (choices.biases) {
      p.q_bias = AddParameter(set, "q_bias", {q_out}, Init::kZeros);
      // Without rotation a key's bias would move every score of a query alike and have no gradient.
      p.k_bias = AddParameter(set, "k_bias", {kv_out}, Init::kZeros);
      p.v_bias = AddParameter(set, "v_bias", {kv_out}, Init::kZeros);
    }
    if (choices.norms) {
      p.q_norm = AddParameter(set, "q_norm", {shape.head_dim}, Init::kOnes);
      p.k_norm = AddParameter(set, "k_norm", {shape.head_dim}, Init::kOnes);
    }
    layer_.emplace(slots, shape, p, &rotary_);
  }
  std::vector<int64_t> input_widths() const override { return {hidden_}; }
  std::vector<int64_t> output_widths() const override { return {hidden_}; }
  void Forward(const Pass& pass, std::span<const TensorView> x,
               std::span<const TensorView> y) const override {
    layer_->Forward(pass, x[0], y[0]);
  }
  void BackwardInput(const Pass& pass, std::span<const TensorView> dy,
                     std::span<const TensorView> dx) const override {
    layer_->BackwardInput(pass, dy[0], dx[0]);
  }
  void BackwardWeight(const Pass& pass) const override { layer_->BackwardWeight(pass); }

 private:
  int64_t hidden_;
  RotaryTable rotary_;
  std::optional<GqaAttention> layer_;
};

void Check(const GqaShape& shape, const Choices& choices) {
  CheckGradients(
      [&](Bench& bench, ParameterSet& set, SlotCounter& slots) {
        return std::make_unique<GqaSubject>(bench, set, slots, shape, choices);
      },
      {.matrix_scale = 1.3});
}

constexpr GqaShape kShape = {
    .hidden = 24, .heads = 4, .kv_heads = 2, .head_dim = 8, .scale = 0.4f, .norm_epsilon = 1e-6f};

TEST(GqaAttentionTest, PassesTheGradientChecker) { Check(kShape, {}); }

TEST(GqaAttentionTest, PassesTheGradientCheckerWithBiases) { Check(kShape, {.biases = true}); }

TEST(GqaAttentionTest, PassesTheGradientCheckerWithNormalisedHeads) { Check(kShape, {.norms = true}); }

TEST(GqaAttentionTest, PassesTheGradientCheckerWithOneKeyHeadForAll) {
  GqaShape shape = kShape;
  shape.kv_heads = 1;
  shape.heads = 3;
  Check(shape, {.norms = true});
}

TEST(GqaAttentionTest, PassesTheGradientCheckerWithAsManyKeyHeads) {
  GqaShape shape = kShape;
  shape.kv_heads = shape.heads;
  Check(shape, {.biases = true});
}

}  // namespace
}  // namespace moebius
