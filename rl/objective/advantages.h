// From rewards to advantages. Answers to one prompt are a group; all numbers are double on the host, since a
// batch has thousands of them, not millions.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace moebius {

// R_i: reward of answer i; mean and deviation are those of its group unless said otherwise.
enum class AdvantageKind {
  kGrpo,                       // (R_i - mean) / (sample deviation + 1e-6); Shao et al. 2024, DeepSeekMath
  kDrGrpo,                     // R_i - mean; Liu et al. 2025, "Understanding R1-Zero-like training"
  kRloo,                       // R_i - mean of the group's others; Ahmadian et al. 2024
  kBatchStd,                   // (R_i - mean) / (sample deviation of the batch's rewards + 1e-6)
  kReinforcePlusPlus,          // returns over tokens, whitened over the batch's tokens; Hu 2025
  kReinforcePlusPlusBaseline,  // R_i - mean, whitened over the batch's tokens
};
std::string_view AdvantageKindName(AdvantageKind kind);

// Answers of one batch, on every rank the same.
struct RewardedAnswers {
  std::span<const int64_t> groups;   // of each answer; any numbers
  std::span<const double> rewards;   // NaN: could not be judged, so the answer is left out of everything
  std::span<const int64_t> lengths;  // tokens
  // For kReinforcePlusPlus: what is taken off the reward of each token (coefficient * k1), answers one after
  // another; empty for none.
  std::span<const double> token_penalties = {};
};

// Of every token, answers one after another. Exactly 0 for a group of equal rewards (whitened kinds excepted,
// whose mean is the batch's), for a group of one, and for answers that could not be judged.
std::vector<double> TokenAdvantages(AdvantageKind kind, const RewardedAnswers& answers);

// What says whether there is anything to learn.
struct GroupSignal {
  int64_t groups = 0;    // with at least one judged answer
  int64_t flat = 0;      // of these: all rewards equal
  int64_t left_out = 0;  // answers that could not be judged
};
GroupSignal MeasureSignal(const RewardedAnswers& answers);

}  // namespace moebius
