#pragma once

#include <vector>

#include "launch/cli.h"

namespace moebius {

// `moebius report RUN...`: report.html and a summary on the terminal.
std::vector<Verb> ReportVerbs();

}  // namespace moebius
