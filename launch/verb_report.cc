#include "launch/verb_report.h"

#include <unistd.h>

#include <cstdio>

#include "core/base/status.h"
#include "core/base/strings.h"
#include "core/io/atomic_file.h"
#include "core/io/file.h"
#include "launch/progress.h"
#include "launch/report/report.h"

namespace moebius {
namespace {

absl::Status RunReport(const ParsedArgs& args) {
  std::vector<RunData> runs;
  for (const std::string& folder : args.positional()) {
    ASSIGN_OR_RETURN(runs.emplace_back(), ReadRun(folder));
    if (runs.back().metrics.empty()) {
      return MissingError(
          Concat(folder, " has no metrics yet; metrics.jsonl is empty; run moebius train for a step first"));
    }
  }
  const size_t columns = DetectTerminal(STDOUT_FILENO).columns;
  for (const RunData& run : runs) std::fputs(TerminalSummary(run, columns).c_str(), stdout);
  std::string out = args.Text("out");
  if (out.empty()) out = runs.size() == 1 ? JoinPath(runs[0].path, "report.html") : "report.html";
  RETURN_IF_ERROR(WriteFileAtomically(out, RenderReport(runs)).status());
  std::printf("report: %s\n", out.c_str());
  return absl::OkStatus();
}

}  // namespace

std::vector<Verb> ReportVerbs() {
  return {{.name = "report",
           .summary = "self-contained HTML with plots of a run; several runs are compared",
           .usage = "RUN... [flags]",
           .flags = {{.name = "out",
                      .placeholder = "FILE",
                      .help = "page to write; default: report.html in the run's folder, or in the current "
                              "one when several runs are compared"}},
           .examples = {"moebius report runs/quickstart",
                        "moebius report runs/small runs/large --out compared.html"},
           .min_positional = 1,
           .max_positional = 64,
           .run = RunReport}};
}

}  // namespace moebius
