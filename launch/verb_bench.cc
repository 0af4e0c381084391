#include "launch/verb_bench.h"

#include <algorithm>
#include <cstdio>
#include <utility>

#include "core/backend/device.h"
#include "core/backend/measure.h"
#include "core/backend/profile.h"
#include "core/base/random.h"
#include "core/base/strings.h"
#include "core/model/cost.h"
#include "launch/ranks.h"
#include "launch/recipe.h"
#include "launch/recipe.pb.h"
#include "launch/train/host_talk.h"
#include "launch/train/resolve_model.h"
#include "launch/train/settings.h"
#include "launch/train/setup.h"
#include "launch/verb_bench_kernels.h"
#include "parallel/comm/solo_world.h"

namespace moebius {
namespace {

// Kernels by falling share of the time, then what no kernel accounts for.
void PrintKernels(const KernelProfile& profile, double total_s, double peak_flops, double bandwidth) {
  std::vector<std::pair<std::string, KernelProfile::Entry>> rows(profile.entries().begin(),
                                                                 profile.entries().end());
  std::sort(rows.begin(), rows.end(),
            [](const auto& a, const auto& b) { return a.second.seconds > b.second.seconds; });
  std::printf("%-20s %7s %9s %7s %9s %7s %8s %7s\n", "kernel", "calls", "ms", "share", "GFLOP/s", "of peak",
              "GB/s", "of read");
  double inside = 0;
  for (const auto& [name, e] : rows) {
    inside += e.seconds;
    const double flops = e.flops / e.seconds, bytes = e.bytes / e.seconds;
    std::printf("%-20s %7lld %9.2f %6.1f%% %9.1f %6.0f%% %8.1f %6.0f%%\n", name.c_str(),
                static_cast<long long>(e.calls), e.seconds * 1e3, 100 * e.seconds / total_s, flops / 1e9,
                100 * flops / peak_flops, bytes / 1e9, 100 * bytes / bandwidth);
  }
  std::printf("%-20s %7s %9.2f %6.1f%%\n", "outside kernels", "", (total_s - inside) * 1e3,
              100 * (total_s - inside) / total_s);
}

struct StepTimes {
  double best_s = 0;
  double first_s = 0;
  KernelProfile profile;  // of one more step
  double profiled_s = 0;
};

template <typename NextBatch>
absl::StatusOr<StepTimes> TimeSteps(Trainer& trainer, int64_t steps, bool kernels, const NextBatch& next) {
  StepTimes times;
  for (int64_t i = 0; i < steps; ++i) {
    ASSIGN_OR_RETURN(const StepBatch batch, next());
    ASSIGN_OR_RETURN(const StepMetrics m, trainer.Step(batch));
    if (i == 0) times.first_s = m.seconds;
    // The first step fills caches and makes primitives; it counts only when it is alone.
    if (i <= 1 || m.seconds < times.best_s) times.best_s = m.seconds;
  }
  if (!kernels) return times;
  trainer.set_profile(&times.profile);
  ASSIGN_OR_RETURN(const StepBatch batch, next());
  ASSIGN_OR_RETURN(const StepMetrics m, trainer.Step(batch));
  times.profiled_s = m.seconds;
  trainer.set_profile(nullptr);
  return times;
}

const char* NameOf(DType act) { return act == DType::kF32 ? "fp32" : "bf16"; }

// The line that scripts read. gflops counts as the benchmark programs in PyTorch do: every parameter but the
// embedding as a matrix, attention at its causal half, MTP modules not counted.
void PrintJson(const ModelConfig& config, int64_t sequences, int64_t length, const char* compute,
               const StepTimes& times) {
  const double tokens = static_cast<double>(sequences * length);
  const double flops = CostOf(config, length).train_flops_all_parameters;
  std::printf("{\"tokens_per_s\":%.1f,\"step_s\":%.4f,\"gflops\":%.1f,\"first_s\":%.3f,\"compute\":\"%s\"}\n",
              tokens / times.best_s, times.best_s, flops * tokens / times.best_s / 1e9, times.first_s,
              compute);
}

absl::Status BenchTrainRank(const Recipe& recipe, const ModelConfig& config, bool kernels, Rank& rank) {
  const proto::Recipe& r = recipe.proto();
  HostTalk talk(rank.world);
  RETURN_IF_ERROR(talk.Agree(LayoutOf(r, config, rank.world.size()).status()));
  RETURN_IF_ERROR(talk.Agree(CheckSameEverywhere(recipe.ToText(), rank.world, talk)));
  ASSIGN_OR_RETURN(const LoaderOptions options, LoaderOptionsOf(r, config));
  absl::StatusOr<std::unique_ptr<Loader>> loader = Loader::Open(options);
  RETURN_IF_ERROR(talk.Agree(loader.status()));
  ASSIGN_OR_RETURN(Training training, BuildTraining(r, config, rank.world, rank.Threads(r.threads())));
  WorldGuard guard(&rank.world);
  RETURN_IF_ERROR(InitializeWeights(r, training));
  const DType act = ComputeOf(r, *training.backend);
  Batch batch;
  int64_t sample = 0;
  const int64_t sequences = BatchPhasesOf(r).back().sequences;
  const auto next = [&]() -> absl::StatusOr<StepBatch> {
    RETURN_IF_ERROR((*loader)->GetBatch(sample, sequences, &batch));
    sample += sequences;
    return StepBatchOf(batch, r);
  };
  ASSIGN_OR_RETURN(const StepTimes times, TimeSteps(*training.trainer, r.steps(), kernels, next));
  RETURN_IF_ERROR(training.trainer->Close());
  guard.Dismiss();
  if (rank.world.rank() != 0) return absl::OkStatus();
  if (kernels) {
    training.trainer = nullptr;  // its memory is wanted
    PrintKernels(times.profile, times.profiled_s, MeasureProductPeak(*training.backend, act),
                 MeasureReadBandwidth(*training.backend));
  }
  PrintJson(config, sequences, r.batch().sequence_length(),
            RoundingOf(r) == Rounding::kFp8 ? "fp8" : NameOf(act), times);
  return absl::OkStatus();
}

// A step takes as long at any learning rate: a warm-up or decay longer than the few steps to time must not
// refuse them. What the user says of the optimizer stands as it is.
std::vector<std::string> WithoutSchedule(std::vector<std::string> sets) {
  if (std::any_of(sets.begin(), sets.end(),
                  [](const std::string& set) { return set.starts_with("optimizer"); })) {
    return sets;
  }
  sets.insert(sets.begin(), {"optimizer.schedule=CONSTANT", "optimizer.warmup_steps=0"});
  return sets;
}

absl::StatusOr<std::pair<Recipe, ModelConfig>> LoadToTime(const std::string& path,
                                                          const std::vector<std::string>& sets) {
  ASSIGN_OR_RETURN(Recipe recipe, Recipe::Load(path, sets));
  ASSIGN_OR_RETURN(ModelConfig config, ResolveModel(recipe));
  const proto::Recipe& r = recipe.proto();
  if (r.task() != proto::PRETRAIN) {
    return UsageError(Concat("task is ", proto::Task_Name(r.task()),
                             "; bench train times steps of PRETRAIN, on token files; the other tasks write "
                             "perf/step_s of every step to their metrics.jsonl"));
  }
  if (r.steps() < 1) return UsageError("steps is 0; there is nothing to time; set it to 1 or more");
  return std::make_pair(std::move(recipe), std::move(config));
}

absl::Status RunBenchTrain(const ParsedArgs& args) {
  std::vector<std::string> sets = WithoutSchedule(args.All("set"));
  if (args.Given("threads")) sets.push_back(Concat("threads=", args.Integer("threads")));
  RankOptions options{.ranks = static_cast<int>(args.Integer("ranks"))};
  const auto loaded = LoadToTime(args.positional()[0], sets);
  if (!loaded.ok()) return RefuseOnAllRanks(options, loaded.status());
  const Recipe& recipe = loaded->first;
  const ModelConfig& config = loaded->second;
  options.world = WorldOptionsOf(recipe.proto());
  options.hang_limit_s = recipe.proto().parallel().hang_limit_s();
  return RunAsRanks(options,
                    [&](Rank& rank) { return BenchTrainRank(recipe, config, args.On("kernels"), rank); });
}

// The DeepSeek-V3-style model of 8 layers that the project measures itself with (29M active parameters).
ModelConfig BenchModel() {
  ModelConfig c;
  c.vocab_size = 8192;
  c.hidden_size = 512;
  c.intermediate_size = 1408;
  c.moe_intermediate_size = 256;
  c.num_hidden_layers = 8;
  c.num_attention_heads = c.num_key_value_heads = 8;
  c.q_lora_rank = 256;
  c.kv_lora_rank = 128;
  c.qk_nope_head_dim = 64;
  c.qk_rope_head_dim = 32;
  c.v_head_dim = 64;
  c.n_routed_experts = 32;
  c.n_shared_experts = 1;
  c.num_experts_per_tok = 4;
  c.n_group = 4;
  c.topk_group = 2;
  c.routed_scaling_factor = 2.5;
  c.selection_bias = true;
  c.first_k_dense_replace = 1;
  c.max_position_embeddings = 2048;
  return c;
}

absl::Status RunBench(const ParsedArgs& args) {
  constexpr int64_t kSequences = 8, kLength = 512;
  ASSIGN_OR_RETURN(const std::unique_ptr<Backend> backend,
                   MakeBackend({.device = *DeviceFromName(args.Text("device")),
                                .threads = static_cast<int>(args.Integer("threads"))}));
  const std::string compute = args.Text("compute");
  const DType automatic = backend->AutoCompute();
  const DType act = compute == "auto" ? automatic : compute == "fp32" ? DType::kF32 : DType::kBF16;
  std::printf("backend    %s, compute AUTO is %s\n", backend->Name().c_str(), NameOf(automatic));
  double peak = MeasureProductPeak(*backend, act, 1.0), bandwidth = MeasureReadBandwidth(*backend);
  const ModelConfig config = BenchModel();
  const std::unique_ptr<Stream> stream = backend->NewStream(StreamKind::kCompute);
  ModelOptions options;
  options.storage = {.act = act, .training = true};
  TrainConfig train;
  train.recompute.swiglu = false;
  train.microbatch_sequences = args.Integer("microbatch");
  SoloWorld world;
  ASSIGN_OR_RETURN(const std::unique_ptr<Trainer> trainer,
                   Trainer::New(*world, *backend, *stream, config, options, {}, train));
  trainer->InitializeWeights(1);
  const RandomStream random(1, "bench");
  std::vector<int32_t> tokens(kSequences * (kLength + 1));
  for (size_t i = 0; i < tokens.size(); ++i)
    tokens[i] = static_cast<int32_t>(random.Below(i, config.vocab_size));
  const auto next = [&]() -> absl::StatusOr<StepBatch> {
    return StepBatch{.tokens = tokens, .sequences = kSequences, .length = kLength, .document_starts = {}};
  };
  ASSIGN_OR_RETURN(const StepTimes times, TimeSteps(*trainer, args.Integer("steps"), true, next));
  // Again: a machine that others share is slow for seconds.
  peak = std::max(peak, MeasureProductPeak(*backend, act, 1.0));
  bandwidth = std::max(bandwidth, MeasureReadBandwidth(*backend));
  std::printf("products   %.0f GFLOP/s (%s, large squares)\n", peak / 1e9, NameOf(act));
  std::printf("memory     %.1f GB/s read\n\n", bandwidth / 1e9);
  std::printf("one training step of a DeepSeek-V3-style model, %lld x %lld tokens, kernel by kernel\n",
              static_cast<long long>(kSequences), static_cast<long long>(kLength));
  PrintKernels(times.profile, times.profiled_s, peak, bandwidth);
  const double flops = CostOf(config, kLength).train_flops_all_parameters * kSequences * kLength;
  std::printf("\nbest of %lld steps: %.3f s, %.0f tokens/s, %.1f GFLOP/s = %.0f%% of the product peak\n",
              static_cast<long long>(args.Integer("steps")), times.best_s,
              kSequences * kLength / times.best_s, flops / times.best_s / 1e9,
              100 * flops / times.best_s / peak);
  PrintJson(config, kSequences, kLength, NameOf(act), times);
  return absl::OkStatus();
}

}  // namespace

std::vector<Verb> BenchVerbs() {
  return {{.name = "bench",
           .summary = "this machine's limits and a training step, kernel by kernel",
           .usage = "[flags]",
           .flags = {{.name = "steps",
                      .kind = FlagKind::kInteger,
                      .placeholder = "N",
                      .fallback = "4",
                      .help = "steps to time",
                      .min = 1,
                      .max = 1000},
                     {.name = "microbatch",
                      .kind = FlagKind::kInteger,
                      .placeholder = "N",
                      .fallback = "8",
                      .help = "sequences a microbatch, of 8",
                      .min = 1,
                      .max = 8},
                     {.name = "compute",
                      .placeholder = "TYPE",
                      .fallback = "auto",
                      .help = "dtype of weights and activations; auto: bf16 where the device multiplies it",
                      .choices = {"auto", "fp32", "bf16"}},
                     DeviceFlag(),
                     ThreadsFlag()},
           .examples = {"moebius bench", "moebius bench --compute bf16 --steps 2"},
           .run = RunBench},
          BenchKernelsVerb(),
          {.name = "bench train",
           .summary = "time the steps of a recipe, without checkpoints",
           .usage = "RECIPE [--set FIELD=VALUE]... [flags]",
           .flags = {SetFlag(),
                     {.name = "kernels",
                      .kind = FlagKind::kSwitch,
                      .help = "print where a step's time goes, kernel by kernel"},
                     RanksFlag(),
                     ThreadsFlag()},
           .examples = {"moebius bench train recipes/quickstart.textproto --set steps=5",
                        "moebius bench train recipes/quickstart.textproto --set steps=3 --kernels"},
           .min_positional = 1,
           .max_positional = 1,
           .details = "The last line is JSON: tokens_per_s and step_s of the best step, and its gflops. The "
                      "learning rate is constant, so any number of steps will do; --set optimizer... keeps "
                      "the recipe's schedule.",
           .run = RunBenchTrain}};
}

}  // namespace moebius
