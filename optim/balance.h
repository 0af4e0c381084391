// How evenly a step's tokens were spread over the experts, and what follows for the router's selection biases
// (aux-loss-free balancing: arXiv:2408.15664, DeepSeek-V3's report 2.1.2).
#pragma once

#include <cstdint>
#include <vector>

namespace moebius {

// Of one layer's counts of tokens by expert.
double MaxViolation(const std::vector<int64_t>& counts);  // (max - mean) / mean; 0 where nothing was counted
double LoadEntropy(const std::vector<int64_t>& counts);  // entropy / ln(experts); 1 where nothing was counted

// By how much each expert's bias moves: up by `speed` where it got fewer tokens than the mean, down where
// more.
std::vector<float> BiasMoves(const std::vector<int64_t>& counts, double speed);

}  // namespace moebius
