// Figures of evaluation and of reward shaping that have a closed form.
#pragma once

#include <cstdint>
#include <span>

namespace moebius {

// The chance that k of n samples, drawn without putting back, hold at least one of the c right ones:
// 1 - C(n-c, k) / C(n, k). Unbiased for pass@k (Chen et al. 2021, "Evaluating large language models trained
// on code"). 0 <= c <= n, 1 <= k <= n.
double PassAtK(int64_t n, int64_t c, int64_t k);

// Mean of per-prompt scores and its 95 % interval by the normal approximation over prompts (1.96 standard
// errors); where all are alike, by the rule of three (3 / n, at most 1).
struct Estimate {
  double mean = 0;
  double half_width = 0;
};
Estimate MeanOverPrompts(std::span<const double> scores);

// The penalty of an answer that is too long: 0 up to maximum - margin tokens, then falling to -1 at maximum,
// and -1 beyond (Yu et al. 2025, DAPO, "soft overlong punishment"). 0 < margin <= maximum.
double SoftOverlong(int64_t length, int64_t maximum, int64_t margin);

}  // namespace moebius
