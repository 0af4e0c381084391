#include "launch/verb_plan.h"

#include <cstdio>

#include "core/backend/measure.h"
#include "core/base/strings.h"
#include "core/io/atomic_file.h"
#include "launch/recipe.h"
#include "launch/recipe.pb.h"
#include "launch/train/setup.h"
#include "parallel/mesh.h"
#include "parallel/pipeline/bubble.h"
#include "parallel/pipeline/lower.h"
#include "parallel/pipeline/schedule_text.h"
#include "parallel/pipeline/simulate.h"
#include "parallel/pipeline/timeline.h"

namespace moebius {
namespace {

struct Plan {
  Layout layout;
  Schedule schedule;
  std::vector<StageRange> ranges;
  PipelineCosts costs;  // seconds
  Simulation run;
};

// Half of the product peak is what the benchmark model reaches at least; small models come lower.
constexpr double kShareOfPeak = 0.5;

absl::StatusOr<Plan> MakePlan(const proto::Recipe& r, const ModelConfig& config, int ranks,
                              double peak_flops) {
  Plan plan;
  ASSIGN_OR_RETURN(plan.layout, LayoutOf(r, config, ranks));
  const BatchSizes batch{.sequences = r.batch().sequences(),
                         .microbatch_sequences = r.batch().microbatch_sequences()};
  const int64_t microbatches = MicrobatchesOf(plan.layout, batch);
  ASSIGN_OR_RETURN(plan.schedule, ScheduleOf(plan.layout, microbatches));
  if (plan.schedule.ComputeOnly()) {
    ASSIGN_OR_RETURN(plan.schedule, Lower(plan.schedule, {.shared_embedding = SharesEmbedding(config)}));
  }
  ASSIGN_OR_RETURN(plan.ranges, PlanStages(config, plan.schedule.stages));
  const int64_t length = r.batch().sequence_length();
  const double tokens = static_cast<double>(batch.sequences) / plan.layout.batch_shards() /
                        static_cast<double>(microbatches) * static_cast<double>(length);
  plan.costs.stages.clear();
  for (const double flops : StageFlops(config, plan.ranges, length)) {
    const double phase = flops / 3 * tokens / (kShareOfPeak * peak_flops);
    plan.costs.stages.push_back({.forward = phase, .backward_input = phase, .backward_weight = phase});
  }
  ASSIGN_OR_RETURN(plan.run, Simulate(plan.schedule, plan.costs));
  return plan;
}

// Bytes of weights, gradients and moments of a rank (ZeRO-1: moments are shared out).
double StateBytes(const proto::Recipe& r, const ModelConfig& config, const Plan& plan, int pipeline,
                  DType act, Backend& backend, Stream& stream) {
  double dense = 0, experts = 0;
  for (const int stage : plan.schedule.StagesOf(pipeline)) {
    ModelOptions options{.stage = plan.ranges[stage], .allocate = false};
    if (plan.layout.expert > 1) options.experts.count = config.n_routed_experts / plan.layout.expert;
    const Model model(config, backend, stream, options);
    for (const auto& p : model.parameters().all()) {
      (p->spec().expert ? experts : dense) += static_cast<double>(p->shape().elements());
    }
  }
  const double holders = plan.schedule.directions();
  const double moments = (r.optimizer().moments() == proto::Optimizer::BF16 ? 2 : 4) * 2 +
                         (r.optimizer().ema_decay() > 0 ? 4 : 0);
  const double copy = act == DType::kBF16 ? 2 : 0;
  return (dense + experts) * (8 + copy) + dense * moments / (plan.layout.batch_shards() * holders) +
         experts * moments / (plan.layout.data * holders);
}

void Print(const proto::Recipe& r, const ModelConfig& config, const Plan& plan, DType act,
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
  const std::unique_ptr<Backend> backend = MakeCpuBackend({.threads = 1});
  const std::unique_ptr<Stream> stream = backend->NewStream(StreamKind::kCompute);
  std::printf("\npipeline rank  stages  idle    peak live activations  weights, gradients, moments\n");
  for (int p = 0; p < s.ranks; ++p) {
    std::string stages;
    for (const int stage : s.StagesOf(p)) stages += Concat(stages.empty() ? "" : " ", stage);
    std::printf("%13d  %-6s  %5.1f%%  %21.0f  %s\n", p, stages.c_str(), 100 * plan.run.ranks[p].bubble,
                plan.run.ranks[p].peak_activations,
                HumanBytes(StateBytes(r, config, plan, p, act, *backend, *stream)).c_str());
  }
  std::printf("\nstep        %s, bubble %.1f%% on the worst rank", HumanSeconds(plan.run.makespan).c_str(),
              100 * plan.run.bubble());
  if (const auto formula = PublishedBubble(s, plan.costs)) {
    std::printf(" = %s idle; the published %s gives %s%s", HumanSeconds(plan.run.worst_idle()).c_str(),
                formula->text.c_str(), HumanSeconds(formula->value).c_str(),
                formula->exact ? ", exactly" : " (equal stages)");
  }
  std::printf("\n");
}

absl::Status RunPlan(const ParsedArgs& args) {
  ASSIGN_OR_RETURN(Recipe recipe, Recipe::Load(args.positional()[0], args.All("set")));
  ASSIGN_OR_RETURN(const ModelConfig config, ResolveModel(recipe));
  const proto::Recipe& r = recipe.proto();
  const std::unique_ptr<Backend> backend = MakeCpuBackend({.threads = 1});
  const DType act = ComputeOf(r, *backend);
  const double peak = MeasureProductPeak(*backend, act);
  int ranks = static_cast<int>(args.Integer("ranks"));
  if (!args.Given("ranks")) {
    const proto::Parallel& p = r.parallel();
    ranks = static_cast<int>(p.pipeline() * p.expert() * std::max<int64_t>(1, p.data()));
  }
  ASSIGN_OR_RETURN(const Plan plan, MakePlan(r, config, ranks, peak));
  if (args.On("text")) {
    std::fputs(ToText(plan.schedule).c_str(), stdout);
    return absl::OkStatus();
  }
  Print(r, config, plan, act, peak);
  if (!args.Given("timeline")) return absl::OkStatus();
  const std::string path = args.Text("timeline");
  const std::vector<Timeline> timelines{TimelineOf(plan.run, "predicted", "s")};
  RETURN_IF_ERROR(
      WriteFileAtomically(path, path.ends_with(".json") ? ChromeTrace(timelines) : TimelineHtml(timelines))
          .status());
  std::printf("timeline    %s\n", path.c_str());
  return absl::OkStatus();
}

}  // namespace

std::vector<Verb> PlanVerbs() {
  return {
      {.name = "plan",
       .summary = "a layout on paper: stages, bubble, memory of every rank, and the timeline of a step",
       .usage = "RECIPE [--ranks N] [flags]",
       .flags = {SetFlag(),
                 {.name = "ranks",
                  .kind = FlagKind::kInteger,
                  .placeholder = "N",
                  .fallback = "0",
                  .help = "ranks of the job; default: pipeline x expert x data of the recipe",
                  .min = 1,
                  .max = 1 << 20},
                 {.name = "timeline",
                  .placeholder = "FILE",
                  .help = "write the predicted step, as a page (.html) or a Chrome trace (.json)"},
                 {.name = "text",
                  .kind = FlagKind::kSwitch,
                  .help =
                      "print the schedule as text, which parallel.schedule takes back as a file NAME.txt"}},
       .examples = {"moebius plan recipes/deepseek_v3.textproto --set parallel.pipeline=16 --set "
                    "parallel.schedule=dualpipe --ranks 2048",
                    "moebius plan recipes/quickstart.textproto --set parallel.pipeline=2 --set "
                    "batch.microbatch_sequences=1 --timeline plan.html"},
       .min_positional = 1,
       .max_positional = 1,
       .details = "Times assume half of this machine's measured product peak and F = I = W; exchange costs "
                  "nothing here.",
       .run = RunPlan}};
}

}  // namespace moebius
