// report.html of one run, or of several compared: one self-contained page without network, and the few lines
// that `moebius report` prints on the terminal.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "launch/report/run_data.h"

namespace moebius {

// The whole page. At least one run: CHECK.
std::string RenderReport(const std::vector<RunData>& runs);

// Reads the run folders and writes the page atomically. 66, 65 or 73 naming the file.
absl::Status WriteReport(const std::vector<std::string>& run_folders, const std::string& out_path);

// Loss or reward as a sparkline with the figures that matter; several lines, the last one with its line end.
std::string TerminalSummary(const RunData& run, size_t columns);

// <style> and <script> of the page (page_style.cc, page_script.cc).
extern const char kPageStyle[];
extern const char kPageScript[];

}  // namespace moebius
