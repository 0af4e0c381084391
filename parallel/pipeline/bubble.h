// The bubble formulas of the literature, to set beside what Simulate finds.
#pragma once

#include <optional>
#include <string>

#include "parallel/pipeline/schedule.h"
#include "parallel/pipeline/simulate.h"

namespace moebius {

// Idle time of the worst rank over a step. PP: pipeline ranks; F, I, W, B = I + W and F&B of one stage; for
// dualpipe and dualpipev PP counts as in DeepSeek-V3's table (DualPipeV runs "PP" on PP/2 ranks).
struct BubbleFormula {
  std::string text;        // "(PP-1)(F+B-2W)"
  double value = 0;        // with the stages' mean costs
  std::string exact_when;  // besides equal stages and instant transfers: "W <= F, W <= I, microbatches >= PP"
  bool exact = false;      // all of that holds: Simulate's worst_idle() is `value`
};

// By the schedule's name; nullopt for one that has no published formula. `costs` as Simulate takes them.
std::optional<BubbleFormula> PublishedBubble(const Schedule& schedule, const PipelineCosts& costs);

}  // namespace moebius
