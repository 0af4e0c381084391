#include "launch/verb_verify.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "core/base/nearest.h"
#include "core/base/strings.h"
#include "core/io/json.h"
#include "launch/ranks.h"
#include "launch/recipe.h"
#include "launch/recipe.pb.h"
#include "launch/train/resolve_model.h"
#include "launch/train/settings.h"
#include "optim/shrink.h"
#include "optim/verify.h"
#include "parallel/comm/agree.h"
#include "parallel/comm/process_job.h"
#include "parallel/comm/solo_world.h"
#include "parallel/pipeline/generate.h"

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

BatchSizes SizesOf(const VerifyConfig& c) {
  return {.sequences = c.sequences, .microbatch_sequences = c.train.microbatch_sequences};
}

// "pp=2,ep=2,dp=1,schedule=zbv,chunks=2", or the recipe's names (pipeline, expert, data).
absl::StatusOr<Layout> ParseLayout(const std::string& text) {
  Layout layout;
  const std::map<std::string, int*> sizes = {{"pp", &layout.pipeline},  {"pipeline", &layout.pipeline},
                                             {"ep", &layout.expert},    {"expert", &layout.expert},
                                             {"dp", &layout.data},      {"data", &layout.data},
                                             {"chunks", &layout.chunks}};
  std::istringstream parts(text);
  std::set<const void*> said;
  if (text.empty()) return UsageError("--layout is empty; write pp=2,ep=2,dp=1,schedule=zbv");
  for (std::string part; std::getline(parts, part, ',');) {
    const size_t equals = part.find('=');
    const std::string key = part.substr(0, equals);
    const std::string value = equals == std::string::npos ? "" : part.substr(equals + 1);
    const auto found = sizes.find(key);
    const void* const field = key == "schedule"      ? static_cast<const void*>(&layout.schedule)
                              : found == sizes.end() ? nullptr
                                                     : found->second;
    if (field != nullptr && !said.insert(field).second) {
      return UsageError(
          Concat("--layout ", Printable(text), ": says ", Printable(key), " twice; leave one out"));
    }
    if (key == "schedule") {
      layout.schedule = value;
    } else if (found == sizes.end()) {
      const std::string near = Nearest(key, {"pp", "ep", "dp", "schedule", "chunks"});
      return UsageError(Concat("--layout ", Printable(text), ": there is no \"", Printable(key), "\"; ",
                               near.empty() ? "" : Concat("did you mean ", near, "? "),
                               "write pp=2,ep=2,dp=1,schedule=zbv"));
    } else {
      char* end = nullptr;
      const long number = std::strtol(value.c_str(), &end, 10);
      if (value.empty() || *end != '\0' || number < 1 || number > 1024) {
        return UsageError(Concat("--layout ", Printable(text), ": ", key, " is \"", Printable(value),
                                 "\"; it must be a number from 1 to 1024; write pp=2,ep=2,dp=1"));
      }
      *found->second = static_cast<int>(number);
    }
  }
  return layout;
}

// What --layout asks for; every one that does not fit is named.
absl::StatusOr<std::vector<Layout>> AskedLayouts(const std::vector<std::string>& texts, const VerifyConfig& c,
                                                 int max_ranks, bool exactly) {
  std::vector<Layout> out;
  std::string wrong;
  for (const std::string& text : texts) {
    ASSIGN_OR_RETURN(Layout layout, ParseLayout(text));
    const absl::StatusOr<Layout> fits = FitLayout(layout, layout.ranks(), c.model, SizesOf(c));
    if (!fits.ok()) {
      wrong += Concat("--layout ", Printable(text), ": ", std::string(fits.status().message()), "\n");
    } else if (exactly && layout.ranks() != max_ranks) {
      wrong += Concat("--layout ", Printable(text), ": has ", layout.ranks(),
                      " ranks; under mpirun every layout has all ", max_ranks, "; start ", layout.ranks(),
                      " or leave mpirun out\n");
    } else if (layout.ranks() > max_ranks) {
      wrong += Concat("--layout ", Printable(text), ": has ", layout.ranks(), " ranks; --ranks allows ",
                      max_ranks, "; raise it\n");
    }
    out.push_back(layout);
  }
  if (wrong.empty()) return out;
  wrong.pop_back();
  return UsageError(wrong);
}

// Everything that fits: sizes in powers of two, all schedules.
std::vector<Layout> AllLayouts(const VerifyConfig& c, int max_ranks, bool exactly) {
  std::vector<Layout> out;
  for (int pipeline = 1; pipeline <= max_ranks; pipeline *= 2) {
    for (const std::string& schedule : ScheduleNames()) {
      for (int expert = 1; pipeline * expert <= max_ranks; expert *= 2) {
        for (int data = 1; pipeline * expert * data <= max_ranks; data *= 2) {
          const Layout layout{.pipeline = pipeline, .data = data, .expert = expert, .schedule = schedule};
          if (exactly && layout.ranks() != max_ranks) continue;
          // On one pipeline rank schedules differ by when W runs and by overlap: once each is enough.
          const bool plain = pipeline == 1 && schedule != "1f1b";
          if (plain && (data > 1 || (expert > 1 && schedule != "dualpipev"))) continue;
          if (layout.ranks() == 1 && schedule == "1f1b" && !exactly) continue;  // the reference
          if (FitLayout(layout, layout.ranks(), c.model, SizesOf(c)).ok()) out.push_back(layout);
        }
      }
    }
  }
  return out;
}

const char* Word(Verdict verdict) {
  switch (verdict) {
    case Verdict::kEqual:
      return "equal";
    case Verdict::kFlip:
      return "flip";
    case Verdict::kDifferent:
      return "DIFFERENT";
  }
  return "";
}

std::string Short(const Layout& l) { return Concat("pp ", l.pipeline, " dp ", l.data, " ep ", l.expert); }

// Names of experts are long: "model.layers.3.mlp.experts.5.up_proj.weight" from its end.
std::string Tail(const std::string& name, size_t width) {
  return name.size() <= width ? name : "..." + name.substr(name.size() - width + 3);
}

// Prints what is found, on rank 0, and keeps count.
class Report {
 public:
  Report(const VerifyConfig& config, bool json) : config_(config), json_(json) {}

  void Begin(const ModelConfig& from, const ShrunkModel& shrunk, const LayoutResult& reference,
             double seconds) {
    margin_ = SmallestMargin(reference);
    if (json_) return;
    const ModelConfig& m = shrunk.config;
    std::printf("model      %s, shrunk: %s\n", from.model_type.c_str(),
                shrunk.changes.empty() ? "nothing" : Join(shrunk.changes).c_str());
    std::printf("kept       %s, %s%s%s%s%s%s\n", m.attention == AttentionKind::kMla ? "MLA" : "GQA",
                m.n_routed_experts == 0          ? "no experts"
                : m.scoring == Scoring::kSigmoid ? "experts by sigmoid"
                                                 : "experts by softmax",
                m.n_group > 1 ? ", groups" : "", m.selection_bias ? ", selection bias" : "",
                m.n_shared_experts > 0 ? ", shared experts" : "",
                m.num_nextn_predict_layers > 0
                    ? (config_.train.mtp_loss_weight != 0 ? ", MTP" : ", MTP modules at rest")
                    : "",
                m.tie_word_embeddings ? ", tied embedding" : ", untied embedding");
    std::printf("run        %lld steps of %lld x %lld random tokens, fp32, AdamW with ZeRO-1, seed %llu\n",
                static_cast<long long>(config_.steps), static_cast<long long>(config_.sequences),
                static_cast<long long>(config_.length), static_cast<unsigned long long>(config_.seed));
    std::printf("reference  one rank, %.2f s; smallest routing margin %.2g%s\n", seconds, margin_,
                margin_ < bounds_.flip_margin
                    ? Concat(" is below ", bounds_.flip_margin, ": a flip may excuse ", bounds_.flip).c_str()
                    : "");
    std::printf(
        "bounds     gradients of step 1: %.0e of the tensor's norm; expert counts and selection biases: "
        "equal; "
        "losses of all steps: %.0e\n\n",
        bounds_.gradient, bounds_.loss);
    std::printf("%-16s %-11s %9s  %-34s %6s %9s %4s %7s  %s\n", "layout", "schedule", "gradient",
                "worst tensor", "counts", "loss", "step", "time", "verdict");
    std::fflush(stdout);
  }

  void Add(const Layout& layout, const LayoutResult& result, const LayoutResult& reference, double seconds) {
    const LayoutDifference d = Compare(result, reference);
    const Verdict verdict = Judge(d, reference, bounds_);
    ++total_;
    ++by_verdict_[verdict];
    worst_gradient_ = std::max(worst_gradient_, d.gradient);
    worst_loss_ = std::max(worst_loss_, d.loss);
    if (json_) {
      PrintJson(layout, d, verdict, seconds);
    } else {
      std::printf("%-16s %-11s %9.1e  %-34s %6lld %9.1e %4lld %6.2fs  %s%s%s\n", Short(layout).c_str(),
                  layout.schedule.c_str(), d.gradient, Tail(d.tensor, 34).c_str(),
                  static_cast<long long>(d.counts + d.later_counts), d.loss, static_cast<long long>(d.step),
                  seconds, Word(verdict), d.bias.empty() ? "" : Concat("; another ", d.bias).c_str(),
                  d.torn_replica.empty() ? "" : Concat("; ranks disagree on ", d.torn_replica).c_str());
    }
    std::fflush(stdout);
  }

  absl::Status End() {
    const int equal = by_verdict_[Verdict::kEqual], flips = by_verdict_[Verdict::kFlip];
    const int different = by_verdict_[Verdict::kDifferent];
    char worst[96];
    std::snprintf(worst, sizeof worst, "worst gradient %.1e, worst loss %.1e", worst_gradient_, worst_loss_);
    if (!json_) {
      std::printf("\n%d of %d layouts equal one rank%s; %s\n", equal, total_,
                  flips > 0 ? Concat(", ", flips, " after a flip of a choice").c_str() : "", worst);
    }
    if (different == 0) return absl::OkStatus();
    return ComparisonError(Concat(different, " of ", total_, " layouts differ from one rank; ", worst,
                                  "; this is a bug: report it with this output, and train with a layout "
                                  "that is equal"));
  }

 private:
  void PrintJson(const Layout& layout, const LayoutDifference& d, Verdict verdict, double seconds) const {
    nlohmann::ordered_json o;
    o["pipeline"] = layout.pipeline;
    o["data"] = layout.data;
    o["expert"] = layout.expert;
    o["schedule"] = layout.schedule;
    o["ranks"] = layout.ranks();
    o["gradient"] = d.gradient;
    o["tensor"] = d.tensor;
    o["counts"] = d.counts + d.later_counts;
    o["selection_bias"] = d.bias;
    o["loss"] = d.loss;
    o["step"] = d.step;
    o["evaluation"] = d.step == config_.steps + 1;  // the one after the last step
    o["torn_replica"] = d.torn_replica;
    o["routing_margin"] = margin_;
    o["gradient_bound"] = bounds_.gradient;
    o["loss_bound"] = bounds_.loss;
    o["seconds"] = seconds;
    o["verdict"] = verdict == Verdict::kDifferent ? "different" : Word(verdict);
    std::printf("%s\n", DumpJson(o).c_str());
  }

  const VerifyConfig& config_;
  const bool json_;
  const VerifyBounds bounds_;
  double margin_ = INFINITY;
  int total_ = 0;
  std::map<Verdict, int> by_verdict_;
  double worst_gradient_ = 0, worst_loss_ = 0;
};

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
  Report report(job.config, job.json);
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
  const std::unique_ptr<Backend> talker = MakeCpuBackend({.threads = 1});
  const std::unique_ptr<Stream> stream = talker->NewStream(StreamKind::kExchange);
  WorldGuard guard(&world);
  Report report(job.config, job.json);
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
  RETURN_IF_ERROR(Agree(world.all(), *stream, status));
  ASSIGN_OR_RETURN(const std::vector<std::string> seeds,
                   GatherText(world.all(), *stream, Concat(job.config.seed)));
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
  const absl::Status verdict = Agree(world.all(), *stream, leads ? report.End() : absl::OkStatus());
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
      const std::unique_ptr<Backend> backend = MakeCpuBackend({.threads = 1});
      const std::unique_ptr<Stream> stream = backend->NewStream(StreamKind::kExchange);
      RETURN_IF_ERROR(Agree(rank.world.all(), *stream, job.status()));
      std::string text = Concat(recipe.ToText(), args.Integer("steps"));
      for (const Layout& layout : job->layouts) text += ToText(layout);
      RETURN_IF_ERROR(Agree(rank.world.all(), *stream, CheckSameEverywhere(text, rank.world, *stream)));
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
