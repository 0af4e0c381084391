#include "core/layers/mla_attention.h"

#include "gtest/gtest.h"
#include "tests/core/layers/gradient_check.h"

namespace moebius {
namespace {

// The layer and its rotary table.
class MlaSubject final : public Subject {
 public:
  MlaSubject(Bench& bench, ParameterSet& set, SlotCounter& slots, const MlaShape& shape)
      : hidden_(shape.hidden),
        rotary_(MakeRotaryTable(bench.backend(), bench.stream(), 32, shape.rope_dim, 100.0, {},
                                RopeStyle::kInterleaved)) {
    MlaParameters p;
    const bool lora = shape.q_lora_rank > 0;
    p.a = AddParameter(set, "a", {shape.a_dim(), shape.hidden});
    if (lora) p.q_norm = AddParameter(set, "q_norm", {shape.q_lora_rank}, Init::kOnes);
    p.q = AddParameter(set, "q", {shape.heads * shape.qk_dim(), lora ? shape.q_lora_rank : shape.hidden});
    p.kv_norm = AddParameter(set, "kv_norm", {shape.kv_lora_rank}, Init::kOnes);
    p.kv = AddParameter(set, "kv", {shape.heads * (shape.nope_dim + shape.v_dim), shape.kv_lora_rank});
    p.o = AddParameter(set, "o", {shape.hidden, shape.heads * shape.v_dim});
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
  std::optional<MlaAttention> layer_;
};

void Check(const MlaShape& shape) {
  CheckGradients([&](Bench& bench, ParameterSet& set,
                     SlotCounter& slots) { return std::make_unique<MlaSubject>(bench, set, slots, shape); },
                 {.matrix_scale = 1.3});
}

TEST(MlaAttentionTest, PassesTheGradientCheckerWithQueryCompression) {
  Check({.hidden = 32,
         .heads = 3,
         .q_lora_rank = 24,
         .kv_lora_rank = 16,
         .nope_dim = 8,
         .rope_dim = 4,
         .v_dim = 12,
         .scale = 0.3f});
}

TEST(MlaAttentionTest, PassesTheGradientCheckerWithoutQueryCompression) {
  Check({.hidden = 32,
         .heads = 2,
         .q_lora_rank = 0,
         .kv_lora_rank = 20,
         .nope_dim = 16,
         .rope_dim = 8,
         .v_dim = 16,
         .scale = 0.25f});
}

}  // namespace
}  // namespace moebius
