#include "launch/verb_train.h"

#include <cstdio>

#include "core/backend/measure.h"
#include "core/base/strings.h"
#include "core/io/file.h"
#include "launch/recipe.h"
#include "launch/recipe.pb.h"
#include "launch/run_folder.h"
#include "launch/train/loop.h"
#include "launch/train/setup.h"

namespace moebius {
namespace {

absl::StatusOr<Recipe> LoadRecipe(const ParsedArgs& args) {
  std::vector<std::string> sets = args.All("set");
  // --threads is the recipe's field by a shorter name.
  if (args.Given("threads")) sets.push_back(Concat("threads=", args.Integer("threads")));
  return Recipe::Load(args.positional()[0], sets);
}

absl::Status PrintPlan(const Recipe& recipe, const ModelConfig& config) {
  const std::unique_ptr<Backend> backend =
      MakeCpuBackend({.threads = static_cast<int>(recipe.proto().threads())});
  ASSIGN_OR_RETURN(const DType act, ComputeOf(recipe.proto(), *backend));
  std::fputs(DescribePlan(recipe.proto(), config, *backend, MeasureProductPeak(*backend, act)).c_str(),
             stdout);
  return absl::OkStatus();
}

absl::Status RunTrain(const ParsedArgs& args) {
  ASSIGN_OR_RETURN(Recipe recipe, LoadRecipe(args));
  ASSIGN_OR_RETURN(const ModelConfig config, ResolveModel(recipe));
  if (args.On("print-config")) {
    std::fputs(recipe.ToText().c_str(), stdout);
    return absl::OkStatus();
  }
  if (args.On("dry-run")) return PrintPlan(recipe, config);
  const std::string path = args.Given("out") ? args.Text("out") : Concat("runs/", recipe.proto().name());
  ASSIGN_OR_RETURN(RunFolder folder, RunFolder::Open(path));
  if (FileExists(folder.recipe_path())) {
    ASSIGN_OR_RETURN(const std::optional<std::string> latest, folder.LatestCheckpoint());
    // Without a checkpoint nothing depends on what an earlier try was told.
    if (latest) {
      ASSIGN_OR_RETURN(const Recipe saved, Recipe::LoadUnchecked(folder.recipe_path()));
      RETURN_IF_ERROR(Annotate(recipe.CheckResumable(saved), folder.path()));
    }
  }
  RETURN_IF_ERROR(RunTraining(recipe, config, folder));
  std::printf("run folder: %s   report: %s\n", folder.path().c_str(), folder.report_path().c_str());
  return absl::OkStatus();
}

}  // namespace

std::vector<Verb> TrainVerbs() {
  return {{.name = "train",
           .summary = "train what a recipe says; goes on by itself where the run folder has a checkpoint",
           .usage = "RECIPE [--set FIELD=VALUE]... [flags]",
           .flags = {SetFlag(),
                     {.name = "out",
                      .placeholder = "DIR",
                      .help = "run folder; default: runs/NAME of the recipe"},
                     {.name = "dry-run",
                      .kind = FlagKind::kSwitch,
                      .help = "print parameters, FLOPs, memory and time expected, and stop"},
                     PrintConfigFlag(),
                     ThreadsFlag()},
           .examples = {"moebius train recipes/quickstart.textproto",
                        "moebius train recipes/quickstart.textproto --set steps=50 --out runs/try --dry-run"},
           .min_positional = 1,
           .max_positional = 1,
           .run = RunTrain}};
}

}  // namespace moebius
