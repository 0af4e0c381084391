// What a run comes to in a few figures: tiles of one run, tables of several, lines on the terminal.
#pragma once

#include <string>

#include "launch/report/lines.h"

namespace moebius {

std::string Tiles(const RunData& run);
// A row a run; columns that no run has a figure for are left out.
std::string ComparisonTable(const Runs& runs);
// The recipe fields in which the runs differ.
std::string DifferenceTable(const Runs& runs);

}  // namespace moebius
