// The allowed values of every number in a recipe. A test walks the messages: a new number without a line here
// fails.
#include "launch/recipe.h"

namespace moebius {
namespace {

constexpr double kMaxCount = 1e12;
constexpr double kMaxSize = 1 << 24;
constexpr double kMaxSeed = 18446744073709551615.0;

}  // namespace

const std::vector<NumberRange>& RecipeRanges() {
  static const std::vector<NumberRange> ranges = {
      {"model.vocab_size", 1, 1 << 24},
      {"model.hidden_size", 1, kMaxSize},
      {"model.intermediate_size", 0, kMaxSize},
      {"model.moe_intermediate_size", 0, kMaxSize},
      {"model.num_hidden_layers", 1, 10000},
      {"model.num_attention_heads", 1, 65536},
      {"model.num_key_value_heads", 0, 65536},
      {"model.head_dim", 0, 65536},
      {"model.n_shared_experts", 0, 1024},
      {"model.n_routed_experts", 0, 65536},
      {"model.num_experts_per_tok", 0, 1024},
      {"model.n_group", 0, 65536},
      {"model.topk_group", 0, 65536},
      {"model.routed_scaling_factor", 0, 1e4},
      {"model.first_k_dense_replace", 0, 10000},
      {"model.kv_lora_rank", 0, kMaxSize},
      {"model.q_lora_rank", 0, kMaxSize},
      {"model.qk_rope_head_dim", 0, 65536},
      {"model.qk_nope_head_dim", 0, 65536},
      {"model.v_head_dim", 0, 65536},
      {"model.num_nextn_predict_layers", 0, 64},
      {"model.max_position_embeddings", 1, 1 << 30},
      {"model.rope_theta", 1, 1e12},
      {"model.rope_scaling.factor", 1, 1e6},
      {"model.rope_scaling.original_max_position_embeddings", 1, 1 << 30},
      {"model.rope_scaling.beta_fast", 0, 1e6},
      {"model.rope_scaling.beta_slow", 0, 1e6},
      {"model.rope_scaling.mscale", 0, 100},
      {"model.rope_scaling.mscale_all_dim", 0, 100},
      {"model.rope_scaling.low_freq_factor", 0, 1e6},
      {"model.rope_scaling.high_freq_factor", 0, 1e6},
      {"model.rms_norm_eps", 0, 1},
      {"model.initializer_range", 0, 10},
      {"model.bos_token_id", -1, 1 << 24},
      {"model.eos_token_id", -1, 1 << 24},
      {"model.decoder_sparse_step", 0, 10000},
      {"model.mlp_only_layers", 0, 10000},
      {"data.mixture.weight", 0, 1e9},
      {"data.fim_rate", 0, 1},
      {"data.prefetch_batches", 0, 1024},
      {"batch.sequences", 1, 1 << 24},
      {"batch.sequence_length", 2, 1 << 24},
      {"batch.microbatch_sequences", 0, 1 << 24},
      {"batch.ramp.at_step", 0, kMaxCount},
      {"batch.ramp.to_sequences", 1, 1 << 24},
      {"steps", 0, kMaxCount},
      {"seed", 0, kMaxSeed},
      {"optimizer.lr", 0, 100},
      {"optimizer.min_lr", 0, 100},
      {"optimizer.warmup_steps", 0, kMaxCount},
      {"optimizer.decay_steps", 0, kMaxCount},
      {"optimizer.phase.steps", 1, kMaxCount},
      {"optimizer.phase.from_lr", 0, 100},
      {"optimizer.phase.to_lr", 0, 100},
      {"optimizer.beta1", 0, 1, true},
      {"optimizer.beta2", 0, 1, true},
      {"optimizer.epsilon", 1e-30, 1},
      {"optimizer.weight_decay", 0, 100},
      {"optimizer.clip_norm", 0, 1e9},
      {"optimizer.ema_decay", 0, 1, true},
      {"balance.bias_update_speed", 0, 10},
      {"balance.sequence_loss", 0, 1000},
      {"balance.auxiliary_loss", 0, 1000},
      {"balance.router_z_loss", 0, 1000},
      {"mtp.loss_weight", 0, 1000},
      {"parallel.pipeline", 1, 65536},
      {"parallel.expert", 1, 65536},
      {"parallel.data", 0, 65536},
      {"checkpoint.every_steps", 0, kMaxCount},
      {"checkpoint.keep", 1, 1e6},
      {"validate.every_steps", 0, kMaxCount},
      {"validate.max_tokens", 0, kMaxCount},
      {"sample.every_steps", 0, kMaxCount},
      {"sample.max_new", 1, 1 << 20},
      {"sample.temperature", 0, 100},
      {"sample.top_k", 0, 1 << 24},
      {"sample.top_p", 0, 1},
      {"fork.step", 0, kMaxCount},
      {"log.every_steps", 1, kMaxCount},
      {"log.expert_load_every_steps", 1, kMaxCount},
      {"max_minutes", 0, 1e7},
      {"max_bad_steps", 1, 1e6},
      {"threads", 0, 4096},
  };
  return ranges;
}

}  // namespace moebius
