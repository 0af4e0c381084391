#include "launch/verb_verify.h"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/base/strings.h"
#include "launch/ranks.h"
#include "launch/recipe.h"
#include "launch/recipe.pb.h"
#include "launch/train/host_talk.h"
#include "launch/train/resolve_model.h"
#include "launch/train/settings.h"
#include "launch/verify_layouts.h"
#include "launch/verify_report.h"
#include "optim/shrink.h"
#include "optim/verify.h"
#include "parallel/comm/process_job.h"

namespace moebius {
namespace {

constexpr int kDefaultRanks = 8;
constexpr int kSeedsTried = 16;
constexpr double kLongestWait_s = 300;  // of a rank for another one, in models this small

// What the recipe trains, small: its model shrunk, its losses, its optimizer; random tokens, fp32.
VerifyConfig ConfigOf(const proto::Recipe& r, const ModelConfig& shrunk, int64_t steps) {
  VerifyConfig c;
  c.model = shrunk;
  c.train = TrainConfigOf(r);
  c.train.steps = c.steps = steps;
  c.train.microbatch_sequences = 1;
  // Of the schedule's warm-up the few steps would see nothing.
  c.train.schedule = {};
  c.train.schedule.lr = 1e-3;
  c.train.optimizer.moments = DType::kF32;
  c.train.rounding = Rounding::kNone;
  c.sequences = 16;
  c.length = 12;
  c.seed = r.seed();
  c.document_mask = r.data().document_mask();
  return c;
}

class Stopwatch {
 public:
  double Seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

struct Job {
  const ModelConfig& model;  // the recipe's
  ShrunkModel shrunk;
  VerifyConfig config;
  std::vector<Layout> layouts;
  int64_t threads = 0;
  bool json = false;
  RankOptions ranks;
};

// Ranks are threads: a world for every layout.
absl::Status VerifyHere(Job& job) {
  VerifyReport report(job.config, job.json);
  const Stopwatch alone;
  LayoutResult reference;
  RankOptions one = job.ranks;
  one.ranks = 1;
  RETURN_IF_ERROR(RunAsRanks(one, [&](Rank& rank) -> absl::Status {
    ASSIGN_OR_RETURN(reference, RunReference(job.config, rank.Threads(job.threads),
                                             VerifyBounds().flip_margin, kSeedsTried));
    return absl::OkStatus();
  }));
  report.Begin(job.model, job.shrunk, reference, alone.Seconds());
  for (const Layout& layout : job.layouts) {
    const Stopwatch watch;
    LayoutResult result;
    RankOptions options = job.ranks;
    options.ranks = layout.ranks();
    RETURN_IF_ERROR(RunAsRanks(options, [&](Rank& rank) -> absl::Status {
      rank.watchdog.Describe([&] { return Concat("verify, ", ToText(layout)); });
      ASSIGN_OR_RETURN(LayoutResult mine,
                       RunLayout(rank.world, job.config, layout, rank.Threads(job.threads)));
      rank.watchdog.Forget();
      if (rank.world.rank() == 0) result = std::move(mine);
      return absl::OkStatus();
    }));
    report.Add(layout, result, reference, watch.Seconds());
  }
  return report.End();
}

// Ranks are processes: one world for all layouts. The reference runs on rank 0 while the others wait.
absl::Status VerifyRank(Job& job, Rank& rank) {
  World& world = rank.world;
  const bool leads = world.rank() == 0;
  HostTalk talk(world);
  WorldGuard guard(&world);
  VerifyReport report(job.config, job.json);
  LayoutResult reference;
  absl::Status status;
  rank.watchdog.Suspend(true);
  if (leads) {
    const Stopwatch alone;
    absl::StatusOr<LayoutResult> run =
        RunReference(job.config, rank.Threads(job.threads), VerifyBounds().flip_margin, kSeedsTried);
    status = run.status();
    if (run.ok()) reference = std::move(*run);
    if (status.ok()) report.Begin(job.model, job.shrunk, reference, alone.Seconds());
  }
  RETURN_IF_ERROR(talk.Agree(status));
  ASSIGN_OR_RETURN(const std::vector<std::string> seeds, talk.Gather(Concat(job.config.seed)));
  rank.watchdog.Suspend(false);
  job.config.seed = std::strtoull(seeds[0].c_str(), nullptr, 10);
  for (const Layout& layout : job.layouts) {
    const Stopwatch watch;
    rank.watchdog.Describe([&] { return Concat("verify, ", ToText(layout)); });
    const absl::StatusOr<LayoutResult> result =
        RunLayout(world, job.config, layout, rank.Threads(job.threads));
    rank.watchdog.Forget();
    RETURN_IF_ERROR(result.status());
    if (leads) report.Add(layout, *result, reference, watch.Seconds());
  }
  const absl::Status verdict = talk.Agree(leads ? report.End() : absl::OkStatus());
  guard.Dismiss();
  return verdict;
}

absl::Status RunVerifyJob(const ParsedArgs& args, const Recipe& recipe, const ModelConfig& model,
                          const RankOptions& options) {
  const bool mpi = ProcessJob::Launched();
  const auto make = [&](int max_ranks) -> absl::StatusOr<Job> {
    ASSIGN_OR_RETURN(ShrunkModel shrunk, Shrink(model));
    Job job{.model = model,
            .shrunk = shrunk,
            .config = ConfigOf(recipe.proto(), shrunk.config, args.Integer("steps")),
            .layouts = {},
            .threads = args.Integer("threads"),
            .json = args.On("json"),
            .ranks = options};
    job.config.device = *DeviceFromName(args.Text("device"));
    if (args.Given("layout")) {
      ASSIGN_OR_RETURN(job.layouts, AskedLayouts(args.All("layout"), job.config, max_ranks, mpi));
    } else {
      job.layouts = AllLayouts(job.config, max_ranks, mpi);
    }
    // How tokens travel follows from ranks_per_node; what they look like on the way is fp32 here.
    const ExchangeKind kind = ExchangeKindOf(recipe.proto(), job.config.device);
    for (Layout& layout : job.layouts) {
      if (kind != ExchangeKind::kTwoLevel) layout.exchange.kind = kind;
    }
    if (!job.layouts.empty()) return job;
    return UsageError(Concat("no layout of ", max_ranks,
                             " ranks fits the model and its 16 sequences; without "
                             "--layout powers of two are tried; start 2, 4 or 8, or name one (--layout pp=",
                             max_ranks, ")"));
  };
  if (mpi) {
    return RunAsRanks(options, [&](Rank& rank) -> absl::Status {
      absl::StatusOr<Job> job = make(rank.world.size());
      HostTalk talk(rank.world);
      RETURN_IF_ERROR(talk.Agree(job.status()));
      std::string text = Concat(recipe.ToText(), args.Integer("steps"));
      for (const Layout& layout : job->layouts) text += ToText(layout);
      RETURN_IF_ERROR(talk.Agree(CheckSameEverywhere(text, rank.world, talk)));
      return VerifyRank(*job, rank);
    });
  }
  ASSIGN_OR_RETURN(Job job, make(static_cast<int>(args.Integer("ranks"))));
  return VerifyHere(job);
}

absl::Status RunVerify(const ParsedArgs& args) {
  RankOptions options;
  const auto load = [&]() -> absl::StatusOr<std::pair<Recipe, ModelConfig>> {
    if (ProcessJob::Launched() && args.Given("ranks")) {
      return UsageError(Concat("--ranks ", args.Integer("ranks"),
                               " under mpirun; one process is one rank there; leave --ranks out"));
    }
    ASSIGN_OR_RETURN(Recipe recipe, Recipe::Load(args.positional()[0], args.All("set")));
    ASSIGN_OR_RETURN(ModelConfig model, ResolveModel(recipe));
    return std::make_pair(std::move(recipe), std::move(model));
  };
  const absl::StatusOr<std::pair<Recipe, ModelConfig>> loaded = load();
  if (!loaded.ok()) return RefuseOnAllRanks(options, loaded.status());
  const proto::Recipe& r = loaded->first.proto();
  options.world.ranks_per_node = static_cast<int>(r.parallel().ranks_per_node());
  const double limit_s = r.parallel().hang_limit_s();
  options.hang_limit_s = limit_s > 0 ? std::min(limit_s, kLongestWait_s) : 0;
  return RunVerifyJob(args, loaded->first, loaded->second, options);
}

}  // namespace

std::vector<Verb> VerifyVerbs() {
  Flag ranks = RanksFlag();
  ranks.fallback = Concat(kDefaultRanks);
  ranks.help = "the most ranks of a layout, as threads of this process; leave it out under mpirun";
  ranks.max = 16;
  return {
      {.name = "verify",
       .summary = "prove on this machine that layouts and schedules compute what one rank computes",
       .usage = "RECIPE [--set FIELD=VALUE]... [flags]",
       .flags = {SetFlag(),
                 {.name = "layout",
                  .kind = FlagKind::kRepeatedText,
                  .placeholder = "pp=P,ep=E,dp=D,schedule=S,chunks=C",
                  .help = "only this layout (of those what differs from 1, 1f1b and 2); without it: "
                          "everything that fits"},
                 {.name = "steps",
                  .kind = FlagKind::kInteger,
                  .placeholder = "N",
                  .fallback = "10",
                  .help = "training steps to compare",
                  .min = 1,
                  .max = 1000},
                 {.name = "json", .kind = FlagKind::kSwitch, .help = "one JSON line a layout, nothing else"},
                 ranks,
                 DeviceFlag(),
                 ThreadsFlag()},
       .examples =
           {"moebius verify recipes/deepseek_v3.textproto --layout pp=2,ep=2,schedule=dualpipev",
            "launch/moebius-mpirun -np 4 --oversubscribe moebius verify recipes/quickstart.textproto"},
       .min_positional = 1,
       .max_positional = 1,
       .details =
           "The recipe's model is shrunk (what was changed is printed), its losses, balance bias, MTP and "
           "recomputation stay on; data is random, compute is fp32. Gradients of step 1, the tokens of "
           "every expert and the losses of all steps must agree with one rank's. Under mpirun only layouts "
           "of exactly its ranks run. parallel.ranks_per_node declares nodes, so that tokens take two "
           "levels. Exit 71: a layout differs.",
       .run = RunVerify}};
}

}  // namespace moebius
