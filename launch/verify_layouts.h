// Which layouts `moebius verify` compares with one rank.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "optim/verify.h"
#include "parallel/layout.h"

namespace moebius {

// What --layout asks for, each as "pp=2,ep=2,dp=1,schedule=zbv,chunks=2" or with the recipe's names
// (pipeline, expert, data). `exactly`: of max_ranks ranks, else of as many at most. UsageError names every
// one that does not fit.
absl::StatusOr<std::vector<Layout>> AskedLayouts(const std::vector<std::string>& texts, const VerifyConfig& c,
                                                 int max_ranks, bool exactly);

// Everything that fits: sizes in powers of two, all schedules.
std::vector<Layout> AllLayouts(const VerifyConfig& c, int max_ranks, bool exactly);

}  // namespace moebius
