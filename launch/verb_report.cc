#include "launch/verb_report.h"

#include <unistd.h>

#include <cstdio>

#include "core/base/log.h"
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
  if (args.Given("out") &&
      (args.Text("out").empty() || args.Text("out") == "-" || args.Text("out").ends_with('/'))) {
    return UsageError(Concat("--out \"", Printable(args.Text("out")),
                             "\" names no file; a page is written to one; "
                             "give --out FILE.html"));
  }
  std::vector<RunData> runs;
  for (const std::string& named : args.positional()) {
    const std::vector<std::string> stages = StageFoldersIn(named);
    const size_t before = runs.size();
    for (const std::string& folder : stages.empty() ? std::vector<std::string>{named} : stages) {
      ASSIGN_OR_RETURN(RunData run, ReadRun(folder));
      if (!run.metrics.empty()) {
        runs.push_back(std::move(run));
      } else if (!stages.empty()) {
        LogLine(Concat("note: ", folder, " has no metrics yet and is left out"));
      }
    }
    if (runs.size() == before) {
      return MissingError(Concat(
          named, " has no metrics yet; no step is in its metrics.jsonl; run moebius train for a step first"));
    }
  }
  // Runs of one name, as stages of two pipelines have, are told apart by their folders.
  std::map<std::string, int> times;
  for (const RunData& run : runs) ++times[run.name];
  for (RunData& run : runs) {
    if (times[run.name] > 1) run.name = run.path;
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
