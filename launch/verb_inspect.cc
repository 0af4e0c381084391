#include "launch/verb_inspect.h"

#include <cstdio>

#include "core/base/status.h"
#include "core/base/strings.h"
#include "core/io/file.h"
#include "launch/inspect_files.h"
#include "launch/progress.h"
#include "launch/report/report.h"
#include "launch/run_folder.h"

namespace moebius {
namespace {

struct Kind {
  const char* what;
  bool (*is)(const std::string& path);
  absl::Status (*print)(const std::string& path);
};

absl::Status PrintRun(const std::string& path) {
  ASSIGN_OR_RETURN(const RunFolder folder, RunFolder::OpenForReading(path));
  ASSIGN_OR_RETURN(const RunData run, ReadRun(path));
  std::fputs(TerminalSummary(run, DetectTerminal(1).columns).c_str(), stdout);
  std::vector<int64_t> steps;
  if (FolderExists(folder.File("checkpoints"))) {
    ASSIGN_OR_RETURN(steps, folder.CheckpointSteps());
  }
  std::string list;
  for (const int64_t step : steps) list += Concat(list.empty() ? "" : " ", step);
  std::printf("  checkpoints at steps: %s\n", list.empty() ? "none" : list.c_str());
  for (const char* link : {"latest", "best"}) {
    const auto target = ReadSymlink(folder.File(Concat("checkpoints/", link)));
    if (target.ok()) std::printf("  %s: %s\n", link, Printable(*target).c_str());
  }
  std::printf("  samples: %zu   expert loads: %zu steps\n", run.samples.size(), run.loads.size());
  for (const auto& [key, value] : run.environment) {
    if (key == "cpu_model" || key == "version" || key == "backend" || key == "perf/mfu_basis") {
      std::printf("  %s: %s\n", key.c_str(), Printable(value, 200).c_str());
    }
  }
  return absl::OkStatus();
}

bool IsPipelineFolder(const std::string& path) { return !StageFoldersIn(path).empty(); }

absl::Status PrintStages(const std::string& path) {
  for (const std::string& stage : StageFoldersIn(path)) RETURN_IF_ERROR(PrintRun(stage));
  return absl::OkStatus();
}

const std::vector<Kind>& Kinds() {
  static const std::vector<Kind> kinds = {{"a run folder", IsRunFolder, PrintRun},
                                          {"a pipeline of runs", IsPipelineFolder, PrintStages},
                                          {"a data folder", IsDataFolder, PrintDataFolder},
                                          {"a checkpoint or model folder", IsModelFolder, PrintModelFolder},
                                          {"a recipe", IsRecipeFile, PrintRecipeFile},
                                          {"a token file", IsTokenFile, PrintTokenFile}};
  return kinds;
}

absl::Status RunInspect(const ParsedArgs& args) {
  const std::string& path = args.positional()[0];
  if (!FileExists(path) && !FolderExists(path)) {
    return MissingError(Concat("cannot inspect ", path, "; ", WhyAbsent(path), "; check the name"));
  }
  std::vector<std::string> names;
  for (const Kind& kind : Kinds()) {
    if (kind.is(path)) return kind.print(path);
    names.push_back(kind.what);
  }
  return UsageError(
      Concat("cannot inspect ", path, "; it is not ", Join(names, " or "), "; name one of these"));
}

}  // namespace

std::vector<Verb> InspectVerbs() {
  return {
      {.name = "inspect",
       .summary = "what is in a run, checkpoint, model folder, data folder, token file or recipe",
       .usage = "PATH",
       .flags = {},
       .examples = {"moebius inspect runs/quickstart", "moebius inspect runs/quickstart/checkpoints/latest"},
       .min_positional = 1,
       .max_positional = 1,
       .run = RunInspect}};
}

}  // namespace moebius
