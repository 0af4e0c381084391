// Charts of runs that learn to answer: what held-out problems say, and what reinforcement logs of rewards,
// answers and policy.
#pragma once

#include <string>

#include "launch/report/lines.h"

namespace moebius {

// Share of right answers, held out (with 95 % intervals) and in training.
std::string AccuracyCharts(const Runs& runs);
std::string RewardCharts(const Runs& runs);
// Length and faults of sampled answers.
std::string AnswerCharts(const Runs& runs);
// Entropy, KL, clipping and signal; what never changed is said in a sentence in place of a flat chart.
std::string PolicyCharts(const Runs& runs);
// Of DPO.
std::string PreferenceCharts(const Runs& runs);

}  // namespace moebius
