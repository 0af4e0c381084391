// Which fields of a recipe only some choices read: the family of a model, the schedule of the learning rate,
// the task. A new field that is not for all of them gets its line here.
#include "launch/recipe.h"

namespace moebius {
namespace {

using Names = std::vector<std::string>;

const Names kMla = {"deepseek_v3", "deepseek_v2"};
const Names kGqa = {"qwen3_moe", "mixtral", "llama", "qwen2", "qwen3"};
const Names kWithExperts = {"deepseek_v3", "deepseek_v2", "qwen3_moe", "mixtral"};

const Names kStepping = {"PRETRAIN", "SFT", "DPO", "GRPO", "DISTILL", "REJECTION"};  // all but PIPELINE
const Names kTraining = {"PRETRAIN", "SFT", "DPO", "GRPO", "DISTILL"};
const Names kAnswering = {"SFT", "DPO", "GRPO", "DISTILL", "REJECTION"};
const Names kSampling = {"GRPO", "REJECTION"};
const Names kImitating = {"SFT", "DISTILL"};

void Add(const Names& fields, const std::string& section, const std::string& chooser, const Names& choices,
         std::vector<FieldReaders>* out) {
  for (const std::string& field : fields) out->push_back({section + field, chooser, choices});
}

void AddModel(std::vector<FieldReaders>* out) {
  const std::string family = "model.model_type";
  Add({"kv_lora_rank", "q_lora_rank", "qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim",
       "n_shared_experts", "n_group", "topk_group", "routed_scaling_factor", "first_k_dense_replace",
       "num_nextn_predict_layers"},
      "model.", family, kMla, out);
  Add({"num_key_value_heads", "head_dim"}, "model.", family, kGqa, out);
  Add({"n_routed_experts", "moe_intermediate_size", "num_experts_per_tok", "norm_topk_prob", "scoring_func"},
      "model.", family, kWithExperts, out);
  Add({"decoder_sparse_step", "mlp_only_layers"}, "model.", family, {"qwen3_moe"}, out);
  const std::string scaling = "model.rope_scaling.";
  Add({"beta_fast", "beta_slow", "mscale", "mscale_all_dim"}, scaling, scaling + "rope_type", {"yarn"}, out);
  Add({"low_freq_factor", "high_freq_factor"}, scaling, scaling + "rope_type", {"llama3"}, out);
}

void AddTraining(std::vector<FieldReaders>* out) {
  Add({"init",
       "model",
       "batch",
       "steps",
       "balance",
       "precision",
       "recompute",
       "checkpoint",
       "sample",
       "fork",
       "log",
       "max_minutes",
       "max_bad_steps",
       "parallel.pipeline",
       "parallel.expert",
       "parallel.data",
       "parallel.schedule",
       "parallel.chunks",
       "parallel.exchange",
       "parallel.dispatch",
       "parallel.combine",
       "parallel.max_expert_rows"},
      "", "task", kStepping, out);
  Add({"optimizer"}, "", "task", kTraining, out);
  Add({"data", "batch.ramp", "mtp", "validate"}, "", "task", {"PRETRAIN"}, out);
  Add({"stage"}, "", "task", {"PIPELINE"}, out);
  const std::string schedule = "optimizer.schedule";
  Add({"min_lr", "decay_steps"}, "optimizer.", schedule, {"COSINE", "WSD"}, out);
  Add({"decay_shape"}, "optimizer.", schedule, {"WSD"}, out);
  Add({"phase"}, "optimizer.", schedule, {"V3_PIECEWISE"}, out);
  Add({"chunks"}, "parallel.", "parallel.schedule", {"interleaved"}, out);
}

void AddAnswers(std::vector<FieldReaders>* out) {
  Add({"tokenizer", "chat_template", "open_answer", "new_token", "problems", "answer", "reward", "evaluate",
       "rl"},
      "", "task", kAnswering, out);
  Add({"sft"}, "", "task", kImitating, out);
  Add({"shuffle", "too_long"}, "sft.", "sft.data", {kGiven}, out);
  for (const char* task : {"DPO", "REJECTION", "DISTILL"}) {
    std::string section = task;
    for (char& c : section) c = static_cast<char>(c - 'A' + 'a');
    Add({section}, "", "task", {task}, out);
  }
  Add({"group_size", "show_samples"}, "rl.", "task", kSampling, out);
  Add({"advantage",
       "surrogate",
       "clip_low",
       "clip_high",
       "dual_clip",
       "normaliser",
       "updates",
       "kl",
       "kl_coefficient",
       "kl_in_reward",
       "reference_refresh_steps",
       "entropy_coefficient",
       "entropy_floor",
       "entropy_guard",
       "correct_mismatch",
       "truncate_at",
       "keep_from",
       "keep_to",
       "refill_rounds",
       "no_signal_steps",
       "router_bias",
       "routing_replay",
       "archive_every_steps"},
      "rl.", "task", {"GRPO"}, out);
  Add({"clip_low", "clip_high"}, "rl.", "rl.surrogate", {"CLIPPED", "GSPO", "CISPO"}, out);
  Add({"dual_clip"}, "rl.", "rl.surrogate", {"CLIPPED", "GSPO"}, out);
  Add({"truncate_at", "keep_from", "keep_to"}, "rl.", "rl.correct_mismatch", {"true"}, out);
  Add({"kl_coefficient", "kl_in_reward", "reference_refresh_steps"}, "rl.", "rl.kl", {kGiven}, out);
  Add({"entropy_guard"}, "rl.", "rl.entropy_floor", {kGiven}, out);
  Add({"part"}, "reward.", "task", {"GRPO"}, out);
  Add({"judge_again"}, "reward.", "problems.jsonl_kind", {"CODE"}, out);
  Add({"answer_tag"}, "answer.", "answer.where", {"TAGS"}, out);
  Add({"partial_credit"}, "reward.part.", "reward.part.name", {"format"}, out);
  Add({"script"}, "reward.part.", "reward.part.name", {"language"}, out);
  Add({"words"}, "reward.part.", "reward.part.name", {"repetition"}, out);
  Add({"max_tokens", "margin_tokens"}, "reward.part.", "reward.part.name", {"overlong"}, out);
}

void AddProblems(std::vector<FieldReaders>* out) {
  static const std::vector<std::pair<std::string, Names>> kKnobs = {
      {"sort", {"sort_length"}},
      {"add", {"add_digits"}},
      {"multiply", {"multiply_low", "multiply_high"}},
      {"countdown",
       {"countdown_numbers", "countdown_highest", "countdown_target", "countdown_division",
        "countdown_scratchpad", "scratchpad_tries", "scratchpad_patient"}},
      {"maze", {"maze_rows", "maze_cols", "maze_walls", "maze_distance", "maze_shortest"}},
      {"logic", {"logic_persons", "logic_statements"}}};
  for (const auto& [kind, knobs] : kKnobs) {
    Add(knobs, "problems.", "problems.kind", {kind}, out);
    Add(knobs, "problems.", "problems.jsonl", {kNotGiven}, out);
  }
  Add({"answer", "reward", "evaluate"}, "", "problems", {kGiven}, out);
  Add({"seed", "style"}, "problems.", "problems.jsonl", {kNotGiven}, out);
  Add({"jsonl_kind", "held_out_jsonl"}, "problems.", "problems.jsonl", {kGiven}, out);
  Add({"held_out"}, "problems.", "problems.held_out_jsonl", {kNotGiven}, out);
  Add({"scratchpad_tries", "scratchpad_patient"}, "problems.", "problems.countdown_scratchpad", {kGiven},
      out);
}

}  // namespace

const std::vector<FieldReaders>& RecipeReaders() {
  static const std::vector<FieldReaders> readers = [] {
    std::vector<FieldReaders> out;
    AddTraining(&out);
    AddModel(&out);
    AddAnswers(&out);
    AddProblems(&out);
    return out;
  }();
  return readers;
}

}  // namespace moebius
