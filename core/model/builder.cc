#include "core/model/builder.h"

#include "core/base/strings.h"
#include "core/layers/gqa_attention.h"
#include "core/layers/local_exchange.h"
#include "core/layers/mla_attention.h"

namespace moebius {
namespace {

// How a family calls the parts of its experts.
struct ExpertNames {
  const char* block;
  const char* gate;
  const char* up;
  const char* down;
};
ExpertNames NamesOf(const std::string& model_type) {
  if (model_type == "mixtral") return {"block_sparse_moe.", "w1", "w3", "w2"};
  return {"mlp.", "gate_proj", "up_proj", "down_proj"};
}

}  // namespace

Parameter* ModelBuilder::Add(ParameterSpec spec) {
  spec.mtp = in_mtp_;
  return model_.parameters_.Add(std::move(spec));
}

Parameter* ModelBuilder::Vector(const std::string& name, int64_t size, Init init) {
  return Add({.name = name, .shape = {size}, .pieces = {{name, {size}, 0}}, .init = init, .keep_f32 = true});
}

Parameter* ModelBuilder::Matrix(const std::string& name, int64_t out, int64_t in) {
  return Add({.name = name, .shape = {out, in}, .pieces = {{name, {out, in}, 0}}});
}

Parameter* ModelBuilder::Fused(const std::string& name, int64_t in,
                               const std::vector<std::pair<std::string, int64_t>>& rows) {
  std::vector<Piece> pieces;
  int64_t out = 0;
  for (const auto& [piece, count] : rows) {
    if (count == 0) continue;
    pieces.push_back({piece, {count, in}, out * in});
    out += count;
  }
  return Add({.name = name, .shape = {out, in}, .pieces = std::move(pieces)});
}

std::unique_ptr<Layer> ModelBuilder::MakeMla(const std::string& prefix) {
  const std::string p = prefix + "self_attn.";
  const int64_t d = c_.hidden_size, heads = c_.num_attention_heads;
  const MlaShape shape{.hidden = d,
                       .heads = heads,
                       .q_lora_rank = c_.q_lora_rank,
                       .kv_lora_rank = c_.kv_lora_rank,
                       .nope_dim = c_.qk_nope_head_dim,
                       .rope_dim = c_.qk_rope_head_dim,
                       .v_dim = c_.v_head_dim,
                       .scale = c_.attention_scale()};
  MlaParameters parameters;
  parameters.a = Fused(p + "a_proj", d,
                       {{p + "q_a_proj.weight", c_.q_lora_rank},
                        {p + "kv_a_proj_with_mqa.weight", c_.kv_lora_rank + c_.qk_rope_head_dim}});
  if (c_.q_lora_rank > 0) {
    parameters.q_norm = Vector(p + "q_a_layernorm.weight", c_.q_lora_rank);
    parameters.q = Matrix(p + "q_b_proj.weight", heads * shape.qk_dim(), c_.q_lora_rank);
  } else {
    parameters.q = Matrix(p + "q_proj.weight", heads * shape.qk_dim(), d);
  }
  parameters.kv_norm = Vector(p + "kv_a_layernorm.weight", c_.kv_lora_rank);
  parameters.kv = Matrix(p + "kv_b_proj.weight", heads * (shape.nope_dim + shape.v_dim), c_.kv_lora_rank);
  parameters.o = Matrix(p + "o_proj.weight", d, heads * shape.v_dim);
  return std::make_unique<MlaAttention>(model_.slots_, shape, parameters, &model_.rotary_);
}

std::unique_ptr<Layer> ModelBuilder::MakeGqa(const std::string& prefix) {
  const std::string p = prefix + "self_attn.";
  const int64_t d = c_.hidden_size, q_out = c_.num_attention_heads * c_.head_dim,
                kv_out = c_.num_key_value_heads * c_.head_dim;
  const GqaShape shape{.hidden = d,
                       .heads = c_.num_attention_heads,
                       .kv_heads = c_.num_key_value_heads,
                       .head_dim = c_.head_dim,
                       .scale = c_.attention_scale(),
                       .norm_epsilon = static_cast<float>(c_.rms_norm_eps)};
  GqaParameters parameters;
  parameters.q = Matrix(p + "q_proj.weight", q_out, d);
  parameters.k = Matrix(p + "k_proj.weight", kv_out, d);
  parameters.v = Matrix(p + "v_proj.weight", kv_out, d);
  parameters.o = Matrix(p + "o_proj.weight", d, q_out);
  if (c_.attention_bias) {
    parameters.q_bias = Vector(p + "q_proj.bias", q_out, Init::kZeros);
    parameters.k_bias = Vector(p + "k_proj.bias", kv_out, Init::kZeros);
    parameters.v_bias = Vector(p + "v_proj.bias", kv_out, Init::kZeros);
  }
  if (c_.qk_norm) {
    parameters.q_norm = Vector(p + "q_norm.weight", c_.head_dim);
    parameters.k_norm = Vector(p + "k_norm.weight", c_.head_dim);
  }
  return std::make_unique<GqaAttention>(model_.slots_, shape, parameters, &model_.rotary_);
}

std::unique_ptr<SwiGluMlp> ModelBuilder::MakeDense(const std::string& prefix, int64_t intermediate) {
  Parameter* gate_up =
      Fused(prefix + "gate_up_proj", c_.hidden_size,
            {{prefix + "gate_proj.weight", intermediate}, {prefix + "up_proj.weight", intermediate}});
  Parameter* down = Matrix(prefix + "down_proj.weight", c_.hidden_size, intermediate);
  return std::make_unique<SwiGluMlp>(model_.slots_, gate_up, down);
}

std::unique_ptr<MoeMlp> ModelBuilder::MakeMoe(const std::string& prefix, int64_t layer) {
  const ExpertNames names = NamesOf(c_.model_type);
  const std::string p = prefix + names.block;
  const int64_t d = c_.hidden_size, i = c_.moe_intermediate_size, experts = c_.n_routed_experts;
  const ExpertRange& held = model_.options_.experts;
  const int64_t local = held.count < 0 ? experts : held.count;
  MoeParameters parameters;
  parameters.router = Matrix(p + "gate.weight", experts, d);
  parameters.router->KeepF32();
  if (c_.selection_bias) {
    const std::string name = p + "gate.e_score_correction_bias";
    parameters.bias = Add({.name = name,
                           .shape = {experts},
                           .pieces = {{name, {experts}, 0}},
                           .init = Init::kZeros,
                           .keep_f32 = true,
                           .trainable = false});
  }
  ParameterSpec gate_up{
      .name = p + "experts.gate_up_proj", .shape = {local, 2 * i, d}, .pieces = {}, .expert = true};
  ParameterSpec down{.name = p + "experts.down_proj", .shape = {local, d, i}, .pieces = {}, .expert = true};
  for (int64_t e = 0; e < local; ++e) {
    const std::string expert = Concat(p, "experts.", held.first + e, ".");
    gate_up.pieces.push_back({Concat(expert, names.gate, ".weight"), {i, d}, 2 * e * i * d});
    gate_up.pieces.push_back({Concat(expert, names.up, ".weight"), {i, d}, (2 * e + 1) * i * d});
    down.pieces.push_back({Concat(expert, names.down, ".weight"), {d, i}, e * d * i});
  }
  parameters.gate_up = Add(std::move(gate_up));
  parameters.down = Add(std::move(down));
  if (c_.n_shared_experts > 0) {
    const std::string s = p + "shared_experts.";
    const int64_t width = c_.n_shared_experts * i;
    parameters.shared_gate_up =
        Fused(s + "gate_up_proj", d, {{s + "gate_proj.weight", width}, {s + "up_proj.weight", width}});
    parameters.shared_down = Matrix(s + "down_proj.weight", d, width);
  }
  const ExchangeFactory& make = model_.options_.make_exchange;
  model_.exchanges_.push_back(make ? make(experts) : std::make_unique<LocalExchange>(experts));
  return std::make_unique<MoeMlp>(model_.slots_, c_.router(), parameters, model_.exchanges_.back().get(),
                                  c_.NumMoe(layer));
}

std::unique_ptr<Block> ModelBuilder::MakeBlock(int64_t layer) {
  const std::string prefix = Concat("model.layers.", layer, ".");
  Parameter* norm1 = Vector(prefix + "input_layernorm.weight", c_.hidden_size);
  auto attention = c_.attention == AttentionKind::kMla ? MakeMla(prefix) : MakeGqa(prefix);
  Parameter* norm2 = Vector(prefix + "post_attention_layernorm.weight", c_.hidden_size);
  std::unique_ptr<SwiGluMlp> dense;
  std::unique_ptr<MoeMlp> moe;
  if (c_.IsMoe(layer)) {
    moe = MakeMoe(prefix, layer);
  } else {
    dense = MakeDense(prefix + "mlp.", c_.intermediate_size);
  }
  return std::make_unique<Block>(model_.slots_, norm1, norm2, static_cast<float>(c_.rms_norm_eps),
                                 std::move(attention), std::move(dense), std::move(moe));
}

void ModelBuilder::MakeMtp(int64_t depth) {
  const int64_t layer = c_.num_hidden_layers + depth;
  in_mtp_ = true;
  const std::string prefix = Concat("model.layers.", layer, ".");
  const MtpParameters parameters{
      .embedding_norm = Vector(prefix + "enorm.weight", c_.hidden_size),
      .hidden_norm = Vector(prefix + "hnorm.weight", c_.hidden_size),
      .projection = Matrix(prefix + "eh_proj.weight", c_.hidden_size, 2 * c_.hidden_size),
      .output_norm = Vector(prefix + "shared_head.norm.weight", c_.hidden_size)};
  model_.mtp_.push_back(std::make_unique<MtpModule>(model_.slots_, parameters,
                                                    static_cast<float>(c_.rms_norm_eps), MakeBlock(layer)));
  model_.mtp_embeddings_.push_back(std::make_unique<TokenEmbedding>(model_.slots_, model_.embedding_table_));
  in_mtp_ = false;
}

void ModelBuilder::Build() {
  const StageRange& stage = model_.options_.stage;
  const int64_t last = stage.last_layer < 0 ? c_.num_hidden_layers : stage.last_layer;
  const bool mtp = stage.head && model_.options_.mtp && c_.num_nextn_predict_layers > 0;
  // MTP modules embed tokens too, and a tied head is the embedding.
  if (stage.embedding || mtp || (stage.head && c_.tie_word_embeddings)) {
    Parameter* shared = model_.options_.embedding_table;
    model_.embedding_table_ =
        shared != nullptr ? shared : Matrix("model.embed_tokens.weight", c_.vocab_size, c_.hidden_size);
  }
  if (stage.embedding) model_.embedding_.emplace(model_.slots_, model_.embedding_table_);
  const auto mark = [&] {
    model_.first_parameter_.push_back(static_cast<int>(model_.parameters_.all().size()));
  };
  mark();
  for (int64_t l = stage.first_layer; l < last; ++l) {
    model_.blocks_.push_back(MakeBlock(l));
    mark();
  }
  if (!stage.head) return;
  model_.final_norm_.emplace(model_.slots_, Vector("model.norm.weight", c_.hidden_size),
                             static_cast<float>(c_.rms_norm_eps));
  model_.head_.emplace(c_.tie_word_embeddings ? model_.embedding_table_
                                              : Matrix("lm_head.weight", c_.vocab_size, c_.hidden_size));
  if (!mtp) return;
  for (int64_t k = 0; k < c_.num_nextn_predict_layers; ++k) MakeMtp(k);
}

}  // namespace moebius
