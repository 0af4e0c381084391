#include "launch/verb_plan.h"

#include <cstdio>

#include "core/backend/measure.h"
#include "core/base/strings.h"
#include "core/io/atomic_file.h"
#include "launch/plan/cluster_plan.h"
#include "launch/recipe.h"
#include "launch/recipe.pb.h"
#include "launch/train/memory.h"
#include "launch/train/resolve_model.h"
#include "launch/train/settings.h"
#include "parallel/pipeline/bubble.h"
#include "parallel/pipeline/schedule_text.h"
#include "parallel/pipeline/simulate.h"
#include "parallel/pipeline/timeline.h"
#include "parallel/stages.h"

namespace moebius {
namespace {

// Half of the product peak is what the benchmark model reaches at least; small models come lower.
constexpr double kShareOfPeak = 0.5;
constexpr int kMostRanks = 1 << 20;

absl::StatusOr<LayoutPlan> PlanForThisMachine(const proto::Recipe& r, const ModelConfig& config, int ranks,
                                              double peak_flops) {
  ASSIGN_OR_RETURN(LayoutPlan plan, FitPlan(r, config, ranks, BatchPhasesOf(r).back().sequences,
                                            r.parallel().ranks_per_node()));
  plan.costs.stages.clear();
  ModelConfig trained = config;
  if (!TrainsMtp(r)) trained.num_nextn_predict_layers = 0;
  for (const double flops : StageFlops(trained, plan.ranges, r.batch().sequence_length())) {
    const double phase = flops / 3 * plan.microbatch_tokens / (kShareOfPeak * peak_flops);
    plan.costs.stages.push_back({.forward = phase, .backward_input = phase, .backward_weight = phase});
  }
  ASSIGN_OR_RETURN(plan.run, Simulate(plan.schedule, plan.costs));
  return plan;
}

// Steps of small models take milliseconds.
std::string ShortSeconds(double seconds) {
  char text[32];
  std::snprintf(text, sizeof text, "%.3g ms", 1e3 * seconds);
  return seconds < 1 ? text : HumanSeconds(seconds);
}

absl::Status Print(const proto::Recipe& r, const ModelConfig& config, const LayoutPlan& plan, DType act,
                   double peak_flops) {
  const Schedule& s = plan.schedule;
  std::printf("layout      %s: %d ranks, %d stages, %d microbatches a step\n", ToText(plan.layout).c_str(),
              plan.layout.ranks(), s.stages, s.microbatches);
  std::printf("compute     %s\n", ComputeText(r, act).c_str());
  std::printf("costs       half of this machine's measured %.0f GFLOP/s a rank, F = I = W\n\n",
              peak_flops / 1e9);
  std::printf("stage  layers    on rank  F + B a microbatch\n");
  for (int i = 0; i < s.stages; ++i) {
    std::string holders;
    for (const int h : s.HoldersOf(i)) holders += Concat(holders.empty() ? "" : " ", h);
    const StageRange& range = plan.ranges[i];
    const std::string layers = Concat(range.first_layer, "-", range.last_layer - 1);
    std::printf("%5d  %-8s  %-7s  %.4g ms%s%s\n", i, layers.c_str(), holders.c_str(),
                3e3 * plan.costs.stages[i].forward, range.embedding ? ", embedding" : "",
                range.head ? ", head" : "");
  }
  std::printf("\npipeline rank  stages  idle    peak live activations  weights, gradients, moments\n");
  for (int p = 0; p < s.ranks; ++p) {
    std::string stages;
    for (const int stage : s.StagesOf(p)) stages += Concat(stages.empty() ? "" : " ", stage);
    ASSIGN_OR_RETURN(const RankState state, StateOf(r, config, plan.layout, p, act));
    std::printf("%13d  %-6s  %5.1f%%  %21.0f  %s\n", p, stages.c_str(), 100 * plan.run.ranks[p].bubble,
                plan.run.ranks[p].peak_activations, HumanBytes(state.bytes).c_str());
  }
  std::printf("\nstep        %s, bubble %.1f%% on the worst rank", ShortSeconds(plan.run.makespan).c_str(),
              100 * plan.run.bubble());
  // A file may be called after what it was made from.
  const auto formula = IsScheduleFile(plan.layout) ? std::nullopt : PublishedBubble(s, plan.costs);
  if (formula) {
    std::printf(" = %s idle; the published %s gives %s%s", ShortSeconds(plan.run.worst_idle()).c_str(),
                formula->text.c_str(), ShortSeconds(formula->value).c_str(),
                formula->exact ? ", exactly" : " (equal stages)");
  }
  std::printf("\n");
  return absl::OkStatus();
}

absl::StatusOr<int> RanksOf(const ParsedArgs& args, const proto::Recipe& r) {
  if (args.Given("ranks")) return static_cast<int>(args.Integer("ranks"));
  const proto::Parallel& p = r.parallel();
  const int64_t ranks = p.pipeline() * p.expert() * std::max<int64_t>(1, p.data());
  if (ranks <= kMostRanks) return static_cast<int>(ranks);
  return UsageError(Concat("parallel.pipeline x expert x data is ", ranks, " ranks; a plan has ", kMostRanks,
                           " at most; choose smaller sizes"));
}

absl::Status WriteTimeline(const ParsedArgs& args, const LayoutPlan& plan) {
  if (!args.Given("timeline")) return absl::OkStatus();
  const std::string path = args.Text("timeline");
  const std::vector<Timeline> timelines{TimelineOf(plan.run, "predicted", "s")};
  RETURN_IF_ERROR(
      WriteFileAtomically(path, path.ends_with(".json") ? ChromeTrace(timelines) : TimelineHtml(timelines))
          .status());
  std::printf("timeline    %s\n", path.c_str());
  return absl::OkStatus();
}

absl::Status PlanForCluster(const ParsedArgs& args, const proto::Recipe& r, const ModelConfig& config) {
  ASSIGN_OR_RETURN(const std::shared_ptr<proto::Cluster> cluster, LoadCluster(args.Text("cluster")));
  ClusterPlanner planner(config, *cluster);
  ASSIGN_OR_RETURN(const int ranks, RanksOf(args, r));
  if (args.On("search")) {
    ASSIGN_OR_RETURN(const ClusterPlanner::Found found, planner.Search(r, ranks));
    std::printf("%s", planner.Describe(found, 20).c_str());
    if (found.plans.empty())
      return UnavailableError(Concat("--search: no layout of ", ranks, " ranks fits; give more --ranks"));
    std::printf("\nthe first of them\n%s", planner.Describe(found.plans[0]).c_str());
    return WriteTimeline(args, found.plans[0].layout);
  }
  ASSIGN_OR_RETURN(const ClusterPlan plan, planner.Predict(r, ranks));
  std::printf("%s", planner.Describe(plan).c_str());
  return WriteTimeline(args, plan.layout);
}

// What the costs of a cluster know nothing of.
absl::Status CheckPriced(const proto::Recipe& r) {
  if (r.task() != proto::PRETRAIN && r.task() != proto::SFT) {
    return UsageError(Concat("task: ", proto::Task_Name(r.task()),
                             "; --cluster prices forward and backward of texts, not sampling and not other "
                             "models; see what a step runs over with moebius train --dry-run"));
  }
  if (r.precision().compute() == proto::Precision::FP32) {
    return UsageError(
        "precision.compute: FP32; a cluster file has no peak for it; set precision.compute=BF16 or FP8");
  }
  return absl::OkStatus();
}

absl::Status RunPlan(const ParsedArgs& args) {
  ASSIGN_OR_RETURN(Recipe recipe, Recipe::Load(args.positional()[0], args.All("set")));
  ASSIGN_OR_RETURN(const ModelConfig config, ResolveModel(recipe));
  const proto::Recipe& r = recipe.proto();
  if (args.On("search") && !args.Given("cluster")) {
    return UsageError("--search needs --cluster FILE, the machines to search for; see recipes/clusters");
  }
  if (args.On("text") && (args.Given("cluster") || args.Given("timeline"))) {
    return UsageError(
        "--text prints the schedule and nothing else; leave out --cluster, --search and --timeline");
  }
  if (args.Given("cluster")) {
    RETURN_IF_ERROR(CheckPriced(r));
    return PlanForCluster(args, r, config);
  }
  const std::unique_ptr<Backend> backend = MakeCpuBackend({.threads = 1});
  const DType act = ComputeOf(r, *backend);
  // What a GPU keeps, which is not what this machine is measured by.
  const bool halves = r.device() == proto::CUDA && r.precision().compute() != proto::Precision::FP32;
  const DType kept = halves ? DType::kBF16 : act;
  const double peak = MeasureProductPeak(*backend, act);
  ASSIGN_OR_RETURN(const int ranks, RanksOf(args, r));
  ASSIGN_OR_RETURN(const LayoutPlan plan, PlanForThisMachine(r, config, ranks, peak));
  if (args.On("text")) {
    std::fputs(ToText(plan.schedule).c_str(), stdout);
    return absl::OkStatus();
  }
  RETURN_IF_ERROR(Print(r, config, plan, kept, peak));
  return WriteTimeline(args, plan);
}

}  // namespace

std::vector<Verb> PlanVerbs() {
  return {
      {.name = "plan",
       .summary =
           "a run on paper: stages, bubble, memory, the timeline of a step; on a cluster hours and dollars",
       .usage = "RECIPE [--ranks N] [--cluster FILE [--search]] [flags]",
       .flags = {SetFlag(),
                 {.name = "cluster",
                  .placeholder = "FILE",
                  .help =
                      "predict step time, memory, hours and dollars on these machines (recipes/clusters)"},
                 {.name = "search",
                  .kind = FlagKind::kSwitch,
                  .help = "with --cluster: try the layouts of this many ranks and list the fastest that fit"},
                 {.name = "ranks",
                  .kind = FlagKind::kInteger,
                  .placeholder = "N",
                  .help = "ranks of the job; default: pipeline x expert x data of the recipe",
                  .min = 1,
                  .max = kMostRanks},
                 {.name = "timeline",
                  .placeholder = "FILE",
                  .help = "write the predicted step, as a page (.html) or a Chrome trace (.json)",
                  .endings = {".html", ".json"}},
                 {.name = "text",
                  .kind = FlagKind::kSwitch,
                  .help =
                      "print the schedule as text, which parallel.schedule takes back as a file NAME.txt"}},
       .examples = {"moebius plan recipes/deepseek_v3.textproto --cluster recipes/clusters/h800.textproto "
                    "--ranks 2048 "
                    "--search",
                    "moebius plan recipes/quickstart.textproto --set parallel.pipeline=2 --set "
                    "batch.microbatch_sequences=1 --timeline plan.html"},
       .min_positional = 1,
       .max_positional = 1,
       .details =
           "Without --cluster times assume half of this machine's measured product peak and F = I = W; "
           "exchange costs nothing there.",
       .run = RunPlan}};
}

}  // namespace moebius
