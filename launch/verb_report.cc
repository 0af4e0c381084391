#include "launch/verb_report.h"

#include <unistd.h>

#include <cstdio>

#include "core/base/status.h"
#include "core/base/strings.h"
#include "core/io/atomic_file.h"
#include "core/io/file.h"
#include "launch/progress.h"
#include "launch/report/report.h"
#include "launch/run_folder.h"

namespace moebius {
namespace {

// The page is the run's own, or of a pipeline, whose stages are compared; of several it lies in the current
// folder.
std::string DefaultPage(const std::vector<std::string>& named) {
  return named.size() == 1 ? JoinPath(named[0], "report.html") : "report.html";
}

absl::Status RunReport(const ParsedArgs& args) {
  std::vector<std::string> folders;
  for (const std::string& named : args.positional()) {
    const std::vector<std::string> stages = StageFoldersIn(named);
    if (stages.empty()) folders.push_back(named);
    folders.insert(folders.end(), stages.begin(), stages.end());
  }
  std::vector<RunData> runs;
  std::string without;
  for (const std::string& folder : folders) {
    ASSIGN_OR_RETURN(RunData run, ReadRun(folder));
    if (run.metrics.empty()) {
      without = folder;
    } else {
      runs.push_back(std::move(run));
    }
  }
  // The stage of a pipeline that has just begun has none.
  if (runs.empty() || (!without.empty() && folders.size() == args.positional().size())) {
    return MissingError(
        Concat(without, " has no metrics yet; metrics.jsonl is empty; run moebius train for a step first"));
  }
  const size_t columns = DetectTerminal(STDOUT_FILENO).columns;
  for (const RunData& run : runs) std::fputs(TerminalSummary(run, columns).c_str(), stdout);
  const std::string out = args.Given("out") ? args.Text("out") : DefaultPage(args.positional());
  RETURN_IF_ERROR(WriteFileAtomically(out, RenderReport(runs)).status());
  std::printf("report: %s\n", out.c_str());
  return absl::OkStatus();
}

}  // namespace

std::vector<Verb> ReportVerbs() {
  return {
      {.name = "report",
       .summary = "self-contained HTML with plots of a run; several runs are compared",
       .usage = "RUN... [flags]",
       .flags = {{.name = "out",
                  .placeholder = "FILE",
                  .help = "page to write; default: report.html in the folder of the run, or of the pipeline "
                          "whose stages are compared; in the current one of several"}},
       .examples = {"moebius report runs/quickstart",
                    "moebius report runs/small runs/large --out compared.html"},
       .min_positional = 1,
       .max_positional = 64,
       .run = RunReport}};
}

}  // namespace moebius
