#include "tests/core/layers/layer_parts.h"

#include "core/backend/ops.h"

namespace moebius {

MoeParameters AddMoe(ParameterSet& set, const std::string& prefix, const MoeChoices& c) {
  MoeParameters p;
  p.router = set.Add({.name = prefix + "router",
                      .shape = {c.experts, c.hidden},
                      .pieces = {{prefix + "router", {c.experts, c.hidden}, 0}},
                      .keep_f32 = true});
  if (c.bias) {
    p.bias = set.Add({.name = prefix + "bias",
                      .shape = {c.experts},
                      .pieces = {{prefix + "bias", {c.experts}, 0}},
                      .init = Init::kZeros,
                      .keep_f32 = true,
                      .trainable = false});
  }
  p.gate_up = AddParameter(set, prefix + "gate_up", {c.experts, 2 * c.intermediate, c.hidden});
  p.down = AddParameter(set, prefix + "down", {c.experts, c.hidden, c.intermediate});
  if (c.shared > 0) {
    p.shared_gate_up = AddParameter(set, prefix + "shared_gate_up", {2 * c.shared, c.hidden});
    p.shared_down = AddParameter(set, prefix + "shared_down", {c.hidden, c.shared});
  }
  return p;
}

namespace {

std::unique_ptr<Layer> MakeMla(ParameterSet& set, SlotCounter& slots, const std::string& prefix,
                               int64_t hidden, const RotaryTable* rotary) {
  const MlaShape shape{.hidden = hidden,
                       .heads = 2,
                       .q_lora_rank = 12,
                       .kv_lora_rank = 10,
                       .nope_dim = 6,
                       .rope_dim = 4,
                       .v_dim = 8,
                       .scale = 0.4f};
  MlaParameters p;
  p.a = AddParameter(set, prefix + "a", {shape.a_dim(), hidden});
  p.q_norm = AddParameter(set, prefix + "q_norm", {shape.q_lora_rank}, Init::kOnes);
  p.q = AddParameter(set, prefix + "q", {shape.heads * shape.qk_dim(), shape.q_lora_rank});
  p.kv_norm = AddParameter(set, prefix + "kv_norm", {shape.kv_lora_rank}, Init::kOnes);
  p.kv = AddParameter(set, prefix + "kv", {shape.heads * (shape.nope_dim + shape.v_dim), shape.kv_lora_rank});
  p.o = AddParameter(set, prefix + "o", {hidden, shape.heads * shape.v_dim});
  return std::make_unique<MlaAttention>(slots, shape, p, rotary);
}

std::unique_ptr<Layer> MakeGqa(ParameterSet& set, SlotCounter& slots, const std::string& prefix,
                               int64_t hidden, const RotaryTable* rotary) {
  const GqaShape shape{
      .hidden = hidden, .heads = 4, .kv_heads = 2, .head_dim = 4, .scale = 0.5f, .norm_epsilon = 1e-6f};
  GqaParameters p;
  p.q = AddParameter(set, prefix + "q", {shape.heads * shape.head_dim, hidden});
  p.k = AddParameter(set, prefix + "k", {shape.kv_heads * shape.head_dim, hidden});
  p.v = AddParameter(set, prefix + "v", {shape.kv_heads * shape.head_dim, hidden});
  p.o = AddParameter(set, prefix + "o", {hidden, shape.heads * shape.head_dim});
  p.q_norm = AddParameter(set, prefix + "q_norm", {shape.head_dim}, Init::kOnes);
  p.k_norm = AddParameter(set, prefix + "k_norm", {shape.head_dim}, Init::kOnes);
  return std::make_unique<GqaAttention>(slots, shape, p, rotary);
}

}  // namespace

OwnedBlock::OwnedBlock(Bench& bench, ParameterSet& set, SlotCounter& slots, const std::string& prefix,
                       int64_t hidden, const MoeChoices* moe_choices)
    : rotary_(MakeRotaryTable(bench.backend(), bench.stream(), 32, 4, 100.0, {},
                              moe_choices ? RopeStyle::kInterleaved : RopeStyle::kHalf)) {
  Parameter* norm1 = AddParameter(set, prefix + "norm1", {hidden}, Init::kOnes);
  Parameter* norm2 = AddParameter(set, prefix + "norm2", {hidden}, Init::kOnes);
  auto attention = moe_choices ? MakeMla(set, slots, prefix, hidden, &rotary_)
                               : MakeGqa(set, slots, prefix, hidden, &rotary_);
  std::unique_ptr<SwiGluMlp> dense;
  std::unique_ptr<MoeMlp> moe;
  if (moe_choices != nullptr) {
    CHECK_EQ(moe_choices->hidden, hidden);
    exchange_ = std::make_unique<LocalExchange>(moe_choices->experts);
    moe = std::make_unique<MoeMlp>(slots, moe_choices->spec, AddMoe(set, prefix, *moe_choices),
                                   exchange_.get());
  } else {
    Parameter* gate_up = AddParameter(set, prefix + "gate_up", {2 * 20, hidden});
    dense = std::make_unique<SwiGluMlp>(slots, gate_up, AddParameter(set, prefix + "down", {hidden, 20}));
  }
  block_ = std::make_unique<Block>(slots, norm1, norm2, 1e-5f, std::move(attention), std::move(dense),
                                   std::move(moe));
}

RoutingStatistics StatisticsOf(const Pass& pass, const MoeMlp& moe) {
  const Context& context = pass.context;
  std::vector<int64_t> words(
      RoutingRecord::Words(moe.parameters().router->shape()[0], pass.layout.sequences()));
  ArenaScope scope(context.scratch);
  const TensorView on_device = context.scratch.New(DType::kI64, {std::ssize(words)});
  Zero(context, on_device);
  const RoutingRecord record = moe.Record(pass, on_device);
  context.backend.CopyToHost(context.stream, on_device, words.data());
  context.stream.Synchronize();
  return record.Read(words.data());
}

double TermsOf(const Pass& pass, const MoeMlp& moe) {
  const RoutingStatistics statistics = StatisticsOf(pass, moe);
  return static_cast<double>(pass.balance.sequence) * statistics.balance_loss_sum +
         static_cast<double>(pass.balance.auxiliary) * statistics.auxiliary_loss_sum +
         static_cast<double>(pass.balance.z) * statistics.z_sum;
}

}  // namespace moebius
