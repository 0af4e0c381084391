#include "tests/rl/loop/tiny_run.h"

#include "core/backend/device.h"
#include "core/base/strings.h"
#include "data/tokenizer/byte_tokenizer.h"
#include "gtest/gtest.h"
#include "parallel/node_map.h"

namespace moebius {
namespace {

constexpr int64_t kMaxLength = 24;

}  // namespace

ModelConfig TinyDense() {
  ModelConfig c;
  c.model_type = "qwen3";
  c.attention = AttentionKind::kGqa;
  c.hidden_size = 32;
  c.intermediate_size = 64;
  c.num_hidden_layers = 2;
  c.num_attention_heads = 4;
  c.num_key_value_heads = 2;
  c.head_dim = 8;
  c.qk_norm = true;
  c.max_position_embeddings = 64;
  c.initializer_range = 0.08;
  return c;
}

ModelConfig TinyMoe() {
  ModelConfig c;
  c.hidden_size = 32;
  c.intermediate_size = 64;
  c.moe_intermediate_size = 32;
  c.num_hidden_layers = 2;
  c.num_attention_heads = c.num_key_value_heads = 4;
  c.q_lora_rank = 0;
  c.kv_lora_rank = 16;
  c.qk_nope_head_dim = 8;
  c.qk_rope_head_dim = 4;
  c.v_head_dim = 8;
  c.n_routed_experts = 4;
  c.n_shared_experts = 1;
  c.num_experts_per_tok = 2;
  c.n_group = c.topk_group = 1;
  c.selection_bias = true;
  c.first_k_dense_replace = 1;
  c.max_position_embeddings = 64;
  c.initializer_range = 0.08;
  return c;
}

TinyRunOptions SortTwo(const ModelConfig& model) {
  TinyRunOptions o;
  o.model = model;
  o.problems.set_kind("sort");
  o.problems.set_sort_length(2);
  o.problems.set_held_out(0.3);
  o.rl.set_group_size(8);
  o.rl.set_max_new(3);
  o.rl.set_show_samples(1000);
  return o;
}

TinyRun::TinyRun(World& world, const Layout& layout, const TinyRunOptions& options)
    : options_(options), tokenizer_(*MakeTokenizer("symbols:0123456789sort =")) {
  const bool exact = options_.rl.rollout() == proto::Rl::EXACT;
  backend_ = *MakeBackend({.threads = std::max(1, options_.threads / layout.ranks()),
                           .rank = world.rank(),
                           .batch_invariant = exact,
                           .host_rows = HostTouchesRows(layout, world.node_of_rank())});
  stream_ = backend_->NewStream(StreamKind::kCompute);
  options_.model.vocab_size = tokenizer_.vocab_size();
  ModelOptions model;
  model.storage = {.act = options_.act, .training = true};
  model.max_positions = kMaxLength + 1;
  TrainConfig train;
  train.schedule.lr = options_.lr;
  train.optimizer.weight_decay = 0;
  train.bias_update_speed = 0;
  train.mtp_loss_weight = 0;
  train.microbatch_sequences = options_.microbatch_sequences;
  train.recompute = options_.recompute;
  train.rounding = options_.rounding;
  trainer_ = *Trainer::New(world, *backend_, *stream_, options_.model, model, layout, train);
  trainer_->InitializeWeights(options_.seed);
  codec_ = *PromptCodec::Create(tokenizer_, {.open_answer = options_.open_answer});
  problems_ = *MakeProblemSet(options_.problems, TaskSplit::kTrain);
  held_out_ = *MakeProblemSet(options_.problems, TaskSplit::kHeldOut);
  const proto::Answer whole;
  scorer_ = *Scorer::Make(options_.reward, whole, *problems_);
  held_out_scorer_ = *Scorer::Make(options_.reward, whole, *held_out_);
  evaluate_.set_problems(100);
}

SourceContext TinyRun::context() {
  return {.trainer = *trainer_,
          .codec = *codec_,
          .seed = options_.seed,
          .sequences = options_.sequences,
          .max_length = kMaxLength,
          .eval_name = "sort",
          .held_out = held_out_.get(),
          .held_out_scorer = &*held_out_scorer_,
          .evaluate = evaluate_,
          .rl = options_.rl};
}

std::unique_ptr<PolicySource> TinyRun::NewPolicySource(std::unique_ptr<Journal> journal,
                                                       const std::string& samples_folder) {
  const absl::Status fine = CheckRl(options_.rl, options_.model);
  EXPECT_TRUE(fine.ok()) << fine;
  const absl::Status learns = CheckPolicy(options_.rl);
  EXPECT_TRUE(learns.ok()) << learns;
  return std::make_unique<PolicySource>(context(), *problems_, *scorer_, std::move(journal), samples_folder);
}

std::vector<float> TinyRun::Weights() const {
  std::vector<float> all;
  for (const auto& parameter : trainer_->model().parameters().all()) {
    const std::vector<float> values =
        GetParameter(*backend_, *stream_, *parameter, 0, parameter->shape().elements());
    all.insert(all.end(), values.begin(), values.end());
  }
  return all;
}

absl::Status OnRanks(const Layout& layout, const TinyRunOptions& options,
                     const std::function<absl::Status(TinyRun&, int rank)>& body) {
  return RunRanks(layout.ranks(), {}, [&](World& world) -> absl::Status {
    TinyRun run(world, layout, options);
    WorldGuard guard(&world);
    RETURN_IF_ERROR(body(run, world.rank()));
    RETURN_IF_ERROR(run.trainer().Close());
    guard.Dismiss();
    return absl::OkStatus();
  });
}

double ValueOf(const StepReport& report, const std::string& key) {
  for (const auto& [name, value] : report.values) {
    if (name == key) return value;
  }
  ADD_FAILURE() << "no " << key;
  return 0;
}

absl::StatusOr<std::vector<StepReport>> RunSteps(StepSource& source, int64_t steps) {
  std::vector<StepReport> reports;
  for (int64_t i = 0; i < steps; ++i) {
    ASSIGN_OR_RETURN(StepReport report, source.Step());
    reports.push_back(std::move(report));
  }
  return reports;
}

}  // namespace moebius
