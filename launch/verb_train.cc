#include "launch/verb_train.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "core/backend/measure.h"
#include "core/base/log.h"
#include "core/base/strings.h"
#include "core/io/file.h"
#include "core/io/hash.h"
#include "launch/environment.h"
#include "launch/ranks.h"
#include "launch/recipe.h"
#include "launch/recipe.pb.h"
#include "launch/run_folder.h"
#include "launch/stages.h"
#include "launch/train/dry_run.h"
#include "launch/train/host_talk.h"
#include "launch/train/loop.h"
#include "launch/train/resolve_model.h"
#include "launch/train/settings.h"
#include "launch/train/setup.h"
#include "optim/schedule.h"
#include "parallel/comm/solo_world.h"
#include "rl/loop/policy_source.h"
#include "rl/sandbox/sandbox.h"

namespace moebius {
namespace {

absl::StatusOr<Recipe> LoadRecipe(const ParsedArgs& args) {
  std::vector<std::string> sets = args.All("set");
  // --threads is the recipe's field by a shorter name.
  if (args.Given("threads")) sets.push_back(Concat("threads=", args.Integer("threads")));
  return Recipe::Load(args.positional()[0], sets);
}

// What a run with this model would be refused for at its start. ranks 0: not known yet.
absl::Status CheckStart(const proto::Recipe& r, const ModelConfig& config, int64_t ranks) {
  if (ranks > 0) RETURN_IF_ERROR(LayoutOf(r, config, static_cast<int>(ranks)).status());
  if (const std::string& file = r.parallel().schedule(); file.ends_with(".txt"))
    RETURN_IF_ERROR(Annotate(ReadFile(file).status(), "parallel.schedule"));
  if (r.fork().has_from()) {
    const auto step = r.fork().has_step() ? std::optional<int64_t>(r.fork().step()) : std::nullopt;
    RETURN_IF_ERROR(CheckpointToFork(r.fork().from(), step).status());
  }
  if (r.task() == proto::PRETRAIN) return absl::OkStatus();
  RETURN_IF_ERROR(CheckRl(r.rl(), config));
  return r.task() == proto::GRPO ? CheckPolicy(r.rl()) : absl::OkStatus();
}

absl::Status PrintPlan(const Recipe& recipe, const ModelConfig& config, int64_t ranks) {
  const proto::Recipe& r = recipe.proto();
  RETURN_IF_ERROR(CheckStart(r, config, ranks));
  SoloWorld world;
  absl::StatusOr<std::unique_ptr<Backend>> backend =
      MakeBackend(DeviceOf(r, *world, static_cast<int>(r.threads())));
  double peak = 0;
  if (!backend.ok() && r.device() == proto::CUDA) {
    std::printf("note: %s; planned without it\n", std::string(backend.status().message()).c_str());
    backend = MakeCpuBackend({.threads = static_cast<int>(r.threads())});
  } else {
    RETURN_IF_ERROR(backend.status());
    peak = MeasureProductPeak(**backend, ComputeOf(r, **backend));
  }
  std::fputs(DescribePlan(r, config, **backend, peak).c_str(), stdout);
  return absl::OkStatus();
}

// Where another length moves the learning rate of the next step, "" elsewhere.
std::string MovedLearningRate(const proto::Recipe& now, const proto::Recipe& before, int64_t step) {
  const auto rate = [](const proto::Recipe& r, int64_t at) {
    return LearningRate(TrainConfigOf(r).schedule, std::min<int64_t>(at, r.steps()), r.steps());
  };
  const double was = rate(before, step + 1), is = rate(now, step + 1);
  if (step >= now.steps() || std::fabs(is - was) <= 0.05 * std::max(is, was)) return "";
  return Concat(
      "steps was ", before.steps(), " and is now ", now.steps(), ", over which optimizer.schedule ",
      proto::Optimizer::Schedule_Name(now.optimizer().schedule()), " is laid: the learning rate of step ",
      step + 1, " is ", is, " and would have been ", was,
      "; for another course fork the run: another --out and --set fork.from with an optimizer of its own");
}

// The run folder, on rank 0: locked, and of the same recipe.
absl::StatusOr<RunFolder> OpenFolder(const Recipe& recipe, const std::string& path) {
  ASSIGN_OR_RETURN(RunFolder folder, RunFolder::Open(path));
  if (!FileExists(folder.recipe_path())) return folder;
  ASSIGN_OR_RETURN(const std::optional<std::string> latest, folder.LatestCheckpoint());
  // Without a checkpoint nothing depends on what an earlier try was told.
  if (!latest) return folder;
  ASSIGN_OR_RETURN(const Recipe saved, Recipe::LoadUnchecked(folder.recipe_path()));
  RETURN_IF_ERROR(Annotate(recipe.CheckResumable(saved), folder.path()));
  const std::string moved =
      MovedLearningRate(recipe.proto(), saved.proto(), StepOfName(FileName(*latest)).value_or(0));
  if (!moved.empty()) LogLine("warning: " + moved);
  const proto::Fork &fork = recipe.proto().fork(), &before = saved.proto().fork();
  if (fork.has_from() && (fork.from() != before.from() || fork.step() != before.step())) {
    LogLine(Concat("warning: fork.from ", Printable(fork.from()), " is not looked at, as ", folder.path(),
                   " goes on from its own checkpoint; to fork, name another folder with --out"));
  }
  return folder;
}

// In the run folder, which rank 0 has and the others do not.
absl::Status TrainInFolder(const Recipe& recipe, const ModelConfig& config, const std::string& path,
                           std::optional<RunFolder>& folder, const StopSignals& signals,
                           const LoopOptions& options, Rank& rank) {
  World& world = rank.world;
  // A rank on a host that does not see the folder has stderr alone.
  AlsoLogTo(world.rank(), Concat(path, "/log/rank-", world.rank(), ".log"));
  ASSIGN_OR_RETURN(Training training,
                   BuildTraining(recipe.proto(), config, world, rank.Threads(recipe.proto().threads())));
  WorldGuard guard(&world);
  rank.watchdog.Describe([&trainer = *training.trainer] {
    const std::string action = trainer.At();
    return action.empty() ? Concat("after step ", trainer.state().step)
                          : Concat("step ", trainer.state().step + 1, ", action ", action);
  });
  LoopOptions with_watchdog = options;
  with_watchdog.wait_for_rank_0 = [&](bool begins) { rank.watchdog.Suspend(begins); };
  const absl::Status status =
      RunTraining(recipe, config, folder ? &*folder : nullptr, training, signals, with_watchdog);
  rank.watchdog.Forget();
  if (EndsTogether(status)) {
    guard.Dismiss();
  } else {
    // The others hear why, not only that this rank has left.
    world.Abort(Annotate(status, Concat("rank ", world.rank())));
  }
  return status;
}

// Before a run that would find it out when its step is drawn.
absl::Status CheckTimeline(const std::string& timeline) {
  const std::string folder = ParentPath(timeline);
  const char* why = FolderExists(timeline)              ? "it is a folder"
                    : !FolderExists(folder)             ? "its folder is not there"
                    : access(folder.c_str(), W_OK) != 0 ? "its folder cannot be written"
                                                        : nullptr;
  if (why == nullptr) return absl::OkStatus();
  return CannotWriteError(
      Concat("--timeline: cannot write ", Printable(timeline), "; ", why, "; name another file"));
}

// A client of a network file system trusts for a minute what it has not found; to make the folder it has to
// ask. One that can be made is not there, and goes again.
void LookAgainFor(const std::string& path) {
  for (size_t end = 0; end != path.npos;) {
    end = path.find('/', end + 1);
    const std::string folder = path.substr(0, end);
    if (FolderExists(folder)) continue;
    if (mkdir(folder.c_str(), 0777) == 0) rmdir(folder.c_str());
    if (!FolderExists(folder)) return;
  }
}

// Every rank writes its part of a checkpoint into rank 0's folder: found out now, not at the first one.
absl::Status CheckSeenByAll(const std::string& path, const World& world, HostTalk& talk) {
  const auto holder = [&] { return ReadFile(JoinPath(path, "lock"), 4096).value_or(""); };
  ASSIGN_OR_RETURN(const std::vector<std::string> all, talk.Gather(holder()));
  if (holder() != all[0]) LookAgainFor(path);
  for (int i = 0; i < 50 && holder() != all[0]; ++i) usleep(100000);
  const std::string seen = holder();
  if (seen == all[0]) return absl::OkStatus();
  return CannotWriteError(
      Concat("this rank does not see rank 0's run folder ", Printable(path),
             seen.empty() ? "" : ", but another one of that name", "; checkpoints of rank ", world.rank(),
             " go there; put --out on a folder that all hosts share, as an absolute path"));
}

absl::Status TrainRank(const Recipe& recipe, const ModelConfig& config, const std::string& path,
                       const StopSignals& signals, const LoopOptions& options, Rank& rank) {
  World& world = rank.world;
  HostTalk talk(world);
  absl::Status fits = LayoutOf(recipe.proto(), config, world.size()).status();
  fits.Update(CheckTextsExist(recipe.proto()));
  RETURN_IF_ERROR(talk.Agree(fits));
  RETURN_IF_ERROR(talk.Agree(CheckSameEverywhere(recipe.ToText(), world, talk)));
  std::optional<RunFolder> folder;
  absl::Status status;
  if (world.rank() == 0) {
    if (!options.timeline.empty()) status = CheckTimeline(options.timeline);
    if (status.ok()) {
      absl::StatusOr<RunFolder> opened = OpenFolder(recipe, path);
      status = opened.status();
      if (opened.ok()) folder.emplace(std::move(*opened));
    }
  }
  status = talk.Agree(status);
  if (status.ok()) status = talk.Agree(CheckSeenByAll(path, world, talk));
  if (status.ok()) status = TrainInFolder(recipe, config, path, folder, signals, options, rank);
  if (folder) folder->DiscardIfUnused();
  RETURN_IF_ERROR(status);
  if (folder && FileExists(folder->report_path())) {
    std::printf("run folder: %s   report: %s\n", folder->path().c_str(), folder->report_path().c_str());
  }
  return absl::OkStatus();
}

// Of each stage whose model is known before the others have run.
absl::Status PrintStagePlans(const Recipe& pipeline, const std::string& recipe_path, const std::string& path,
                             int64_t ranks) {
  const proto::Recipe& r = pipeline.proto();
  for (int i = 0; i < r.stage_size(); ++i) {
    ASSIGN_OR_RETURN(Recipe recipe, LoadStage(pipeline, recipe_path, path, i));
    const std::string& from = recipe.proto().init().from();
    std::printf("%sstage %d of %d: %s (%s)\n", i > 0 ? "\n" : "", i + 1, r.stage_size(),
                r.stage(i).name().c_str(), r.stage(i).recipe().c_str());
    if (!from.empty() && from.starts_with(path + "/") && !FolderExists(from)) {
      std::printf("model        of an earlier stage, %s\n", from.c_str());
      continue;
    }
    ASSIGN_OR_RETURN(const ModelConfig config, ResolveModel(recipe));
    RETURN_IF_ERROR(Annotate(PrintPlan(recipe, config, ranks), Concat("stage ", r.stage(i).name())));
  }
  return absl::OkStatus();
}

// "t.html" and "01-sft" -> "t-01-sft.html".
std::string WithSuffix(const std::string& path, const std::string& suffix) {
  const size_t dot = path.rfind('.');
  return Concat(path.substr(0, dot), "-", suffix, path.substr(dot));
}

// One stage after the other; those that are done find nothing to do.
absl::Status TrainStages(const Recipe& pipeline, const std::string& recipe_path, const std::string& path,
                         const StopSignals& signals, const LoopOptions& options, Rank& rank) {
  const proto::Recipe& r = pipeline.proto();
  std::string table;
  for (int i = 0; i < r.stage_size(); ++i) {
    ASSIGN_OR_RETURN(Recipe recipe, LoadStage(pipeline, recipe_path, path, i));
    const std::string folder = StageFolder(r, path, i);
    ASSIGN_OR_RETURN(const ModelConfig config, ResolveModelOfRun(recipe, folder));
    if (rank.world.rank() == 0) {
      std::printf("stage %d of %d: %s\n", i + 1, r.stage_size(), r.stage(i).name().c_str());
      std::fflush(stdout);
    }
    LoopOptions of_stage = options;
    if (!options.timeline.empty()) of_stage.timeline = WithSuffix(options.timeline, FileName(folder));
    RETURN_IF_ERROR(TrainRank(recipe, config, folder, signals, of_stage, rank));
    if (rank.world.rank() == 0) table += StageLine(r.stage(i).name(), folder);
  }
  if (rank.world.rank() == 0) std::printf("\n%s", table.c_str());
  return absl::OkStatus();
}

std::string FolderOf(const Recipe& recipe, const ParsedArgs& args) {
  return args.Given("out") ? args.Text("out") : Concat("runs/", recipe.proto().name());
}

absl::StatusOr<std::pair<Recipe, ModelConfig>> LoadRecipeAndModel(const ParsedArgs& args) {
  ASSIGN_OR_RETURN(Recipe recipe, LoadRecipe(args));
  // Stages have their own.
  if (recipe.proto().task() == proto::PIPELINE) return std::make_pair(std::move(recipe), ModelConfig());
  ASSIGN_OR_RETURN(ModelConfig config, ResolveModelOfRun(recipe, FolderOf(recipe, args)));
  return std::make_pair(std::move(recipe), std::move(config));
}

// A pipeline's folder holds the run folders of its stages and no run of its own. UsageError where `path` is
// the other kind of folder, or a model's or a data build's, whose files later verbs would take for the run's.
absl::Status CheckFolderKind(const proto::Recipe& r, const std::string& path) {
  for (const char* name : {"config.json", "manifest.json"}) {
    if (!FileExists(JoinPath(path, name)) || IsRunFolder(path)) continue;
    return UsageError(Concat(path, " holds ", name,
                             ", so it is a model or a data folder and no run; choose "
                             "another folder with --out"));
  }
  const bool pipeline = r.task() == proto::PIPELINE;
  const bool other = pipeline ? IsRunFolder(path) : !StageFoldersIn(path).empty();
  if (!other) return absl::OkStatus();
  return UsageError(Concat(path,
                           pipeline ? " is the folder of a run, and the recipe is a pipeline"
                                    : " is the folder of a pipeline, and the recipe is no pipeline",
                           "; choose another folder with --out"));
}

bool JudgesPrograms(const proto::Recipe& r) {
  return !r.problems().jsonl().empty() && r.problems().jsonl_kind() == proto::Problems::CODE;
}

// For problems whose answers are programs, of any stage; null where there are none. Before MPI and threads.
absl::StatusOr<std::unique_ptr<sandbox::Sandbox>> StartSandbox(const Recipe& recipe,
                                                               const std::string& recipe_path,
                                                               const std::string& path, bool unsafe) {
  const proto::Recipe& r = recipe.proto();
  bool judges = JudgesPrograms(r), allows_unsafe = r.unsafe_sandbox();
  for (int i = 0; i < r.stage_size(); ++i) {
    ASSIGN_OR_RETURN(const Recipe stage, LoadStage(recipe, recipe_path, path, i));
    if (!JudgesPrograms(stage.proto())) continue;
    // One sandbox for all: each stage that uses it must allow what it is.
    allows_unsafe = (!judges || allows_unsafe) && stage.proto().unsafe_sandbox();
    judges = true;
  }
  if (!judges) return nullptr;
  return sandbox::Sandbox::Start(
      {.runner = {}, .recipe_allows_unsafe = allows_unsafe, .switch_allows_unsafe = unsafe});
}

absl::Status RunTrain(const ParsedArgs& args) {
  const bool prints = args.On("print-config"), plans = args.On("dry-run");
  if (prints && plans)
    return UsageError("--print-config and --dry-run both print and stop; give one of them");
  if ((prints || plans) && args.Given("timeline"))
    return UsageError("--timeline draws a step, and --print-config and --dry-run run none; leave one out");
  const absl::StatusOr<std::pair<Recipe, ModelConfig>> loaded = LoadRecipeAndModel(args);
  RankOptions options{.ranks = static_cast<int>(args.Integer("ranks"))};
  if (!loaded.ok()) return RefuseOnAllRanks(options, loaded.status());
  const auto& [recipe, config] = *loaded;
  if (prints) {
    std::fputs(recipe.ToText().c_str(), stdout);
    return absl::OkStatus();
  }
  const proto::Recipe& r = recipe.proto();
  options.world = WorldOptionsOf(r);
  options.hang_limit_s = r.parallel().hang_limit_s();
  const std::string path = FolderOf(recipe, args);
  if (plans) {
    const int64_t ranks = args.Given("ranks") ? args.Integer("ranks") : 0;
    options.ranks = 1;  // one measures and prints, under MPI too
    return RunAsRanks(options, [&, &recipe = recipe, &config = config](Rank& rank) -> absl::Status {
      if (rank.world.rank() != 0) return absl::OkStatus();
      return r.task() == proto::PIPELINE ? PrintStagePlans(recipe, args.positional()[0], path, ranks)
                                         : PrintPlan(recipe, config, ranks);
    });
  }
  if (const absl::Status kind = CheckFolderKind(r, path); !kind.ok()) return RefuseOnAllRanks(options, kind);
  const StopSignals signals;
  absl::StatusOr<std::unique_ptr<sandbox::Sandbox>> programs =
      StartSandbox(recipe, args.positional()[0], path, args.On("unsafe"));
  if (!programs.ok()) return RefuseOnAllRanks(options, programs.status());
  const LoopOptions loop{.timeline = args.Given("timeline") ? args.Text("timeline") : "",
                         .sandbox = programs->get()};
  return RunAsRanks(options, [&, &recipe = recipe, &config = config](Rank& rank) {
    return r.task() == proto::PIPELINE ? TrainStages(recipe, args.positional()[0], path, signals, loop, rank)
                                       : TrainRank(recipe, config, path, signals, loop, rank);
  });
}

}  // namespace

std::vector<Verb> TrainVerbs() {
  return {
      {.name = "train",
       .summary = "train what a recipe says; goes on by itself where the run folder has a checkpoint",
       .usage = "RECIPE [--set FIELD=VALUE]... [flags]",
       .flags =
           {SetFlag(),
            {.name = "out", .placeholder = "DIR", .help = "run folder; default: runs/NAME of the recipe"},
            {.name = "dry-run",
             .kind = FlagKind::kSwitch,
             .help = "print parameters, FLOPs, memory and time expected, and stop"},
            PrintConfigFlag(),
            {.name = "timeline",
             .placeholder = "FILE",
             .help =
                 "write what every rank did in the third step, as a page (.html) or a Chrome trace (.json)",
             .endings = {".html", ".json"}},
            {.name = "unsafe",
             .kind = FlagKind::kSwitch,
             .help = "with the recipe's unsafe_sandbox: judge programs even where they cannot be isolated"},
            RanksFlag(),
            ThreadsFlag()},
       .examples = {"moebius train recipes/quickstart.textproto",
                    "launch/moebius-mpirun -np 4 --oversubscribe moebius train recipes/quickstart.textproto "
                    "--set parallel.expert=4"},
       .min_positional = 1,
       .max_positional = 1,
       .run = RunTrain}};
}

}  // namespace moebius
