// Texts of a run on the page: what a language model wrote over time, and the judged answers of every step.
#pragma once

#include <cstddef>
#include <string>

#include "launch/report/lines.h"

namespace moebius {

// Continuations of the recipe's prompts at up to a dozen steps; "" where nothing was sampled so.
std::string RenderTexts(const Runs& runs);

// Every step's judged answers, a step at a time (the script adds the slider; without it all stand one below
// the other): answers to the same prompt side by side, alike ones once with their number, thoughts told apart
// from what was judged. Takes about `max_bytes`: the middles of long texts go first, then steps; the page
// says so.
std::string RenderAnswers(const Runs& runs, size_t max_bytes = 1'450'000);

}  // namespace moebius
