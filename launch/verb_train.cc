#include "launch/verb_train.h"

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
#include "launch/train/loop.h"
#include "launch/train/setup.h"
#include "parallel/comm/agree.h"
#include "parallel/comm/solo_world.h"

namespace moebius {
namespace {

absl::StatusOr<Recipe> LoadRecipe(const ParsedArgs& args) {
  std::vector<std::string> sets = args.All("set");
  // --threads is the recipe's field by a shorter name.
  if (args.Given("threads")) sets.push_back(Concat("threads=", args.Integer("threads")));
  return Recipe::Load(args.positional()[0], sets);
}

absl::Status PrintPlan(const Recipe& recipe, const ModelConfig& config) {
  SoloWorld world;
  ASSIGN_OR_RETURN(const std::unique_ptr<Backend> backend,
                   MakeBackend(DeviceOf(recipe.proto(), *world, static_cast<int>(recipe.proto().threads()))));
  const DType act = ComputeOf(recipe.proto(), *backend);
  std::fputs(DescribePlan(recipe.proto(), config, *backend, MeasureProductPeak(*backend, act)).c_str(),
             stdout);
  return absl::OkStatus();
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
  return folder;
}

// Ranks that run different recipes or programs would compute nonsense, or hang.
absl::Status CheckSameEverywhere(const Recipe& recipe, World& world, Stream& stream) {
  const std::string mine = Concat(Sha256Hex(recipe.ToText()), " ", ReadEnvironment().commit);
  ASSIGN_OR_RETURN(const std::vector<std::string> all, GatherText(world.all(), stream, mine));
  for (int r = 1; r < world.size(); ++r) {
    if (all[r] == all[0]) continue;
    const bool recipes = all[r].substr(0, all[r].find(' ')) != all[0].substr(0, all[0].find(' '));
    return UsageError(
        Concat("rank ", r, recipes ? " has another recipe" : " runs another build of moebius",
               " than rank 0; all ranks must have the same; start them from one folder that all hosts see"));
  }
  return absl::OkStatus();
}

absl::Status TrainRank(const Recipe& recipe, const ModelConfig& config, const std::string& path,
                       const StopSignals& signals, const LoopOptions& options, Rank& rank) {
  World& world = rank.world;
  const std::unique_ptr<Backend> talker = MakeCpuBackend({.threads = 1});
  const std::unique_ptr<Stream> stream = talker->NewStream(StreamKind::kExchange);
  RETURN_IF_ERROR(Agree(world.all(), *stream, LayoutOf(recipe.proto(), config, world.size()).status()));
  RETURN_IF_ERROR(Agree(world.all(), *stream, CheckSameEverywhere(recipe, world, *stream)));
  std::optional<RunFolder> folder;
  absl::Status status;
  if (world.rank() == 0) {
    absl::StatusOr<RunFolder> opened = OpenFolder(recipe, path);
    status = opened.status();
    if (opened.ok()) folder.emplace(std::move(*opened));
  }
  RETURN_IF_ERROR(Agree(world.all(), *stream, status));
  // A rank on a host that does not see the folder has stderr alone.
  AlsoLogTo(world.rank(), Concat(path, "/log/rank-", world.rank(), ".log"));
  ASSIGN_OR_RETURN(Training training,
                   BuildTraining(recipe.proto(), config, world, rank.Threads(recipe.proto().threads())));
  WorldGuard guard(&world);
  rank.watchdog.Describe([&trainer = *training.trainer] {
    return Concat("step ", trainer.state().step + 1, ", action ", trainer.At());
  });
  status = RunTraining(recipe, config, folder ? &*folder : nullptr, training, signals, options);
  rank.watchdog.Forget();
  // Stopping is something that all ranks do together.
  if (status.ok() || ExitCode(status) == kExitStopped) guard.Dismiss();
  RETURN_IF_ERROR(status);
  if (folder)
    std::printf("run folder: %s   report: %s\n", folder->path().c_str(), folder->report_path().c_str());
  return absl::OkStatus();
}

absl::StatusOr<std::pair<Recipe, ModelConfig>> LoadRecipeAndModel(const ParsedArgs& args) {
  ASSIGN_OR_RETURN(Recipe recipe, LoadRecipe(args));
  ASSIGN_OR_RETURN(ModelConfig config, ResolveModel(recipe));
  return std::make_pair(std::move(recipe), std::move(config));
}

absl::Status RunTrain(const ParsedArgs& args) {
  const absl::StatusOr<std::pair<Recipe, ModelConfig>> loaded = LoadRecipeAndModel(args);
  RankOptions options{.ranks = static_cast<int>(args.Integer("ranks"))};
  if (!loaded.ok()) return RefuseOnAllRanks(options, loaded.status());
  const auto& [recipe, config] = *loaded;
  if (args.On("print-config")) {
    std::fputs(recipe.ToText().c_str(), stdout);
    return absl::OkStatus();
  }
  if (args.On("dry-run")) return PrintPlan(recipe, config);
  const proto::Recipe& r = recipe.proto();
  options.world = WorldOptionsOf(r);
  options.hang_limit_s = r.parallel().hang_limit_s();
  const std::string path = args.Given("out") ? args.Text("out") : Concat("runs/", r.name());
  const StopSignals signals;
  const LoopOptions loop{.timeline = args.Given("timeline") ? args.Text("timeline") : ""};
  return RunAsRanks(options, [&, &recipe = recipe, &config = config](Rank& rank) {
    return TrainRank(recipe, config, path, signals, loop, rank);
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
                 "write what every rank did in the third step, as a page (.html) or a Chrome trace (.json)"},
            RanksFlag(),
            ThreadsFlag()},
       .examples = {"moebius train recipes/quickstart.textproto",
                    "mpirun -np 4 moebius train recipes/quickstart.textproto --set parallel.expert=4"},
       .min_positional = 1,
       .max_positional = 1,
       .run = RunTrain}};
}

}  // namespace moebius
