#pragma once

#include <vector>

#include "launch/cli.h"

namespace moebius {

// `moebius grade --gold G --answer A` and `moebius grade --tsv FILE`.
std::vector<Verb> GradeVerbs();

}  // namespace moebius
