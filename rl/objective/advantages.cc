#include "rl/objective/advantages.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <map>

#include "core/base/check.h"

namespace moebius {
namespace {

constexpr double kDeviationFloor = 1e-6;
constexpr double kWhitenFloor = 1e-8;

struct Moments {
  int64_t count = 0;
  double mean = 0;
  double squares = 0;  // sum of squared differences from the mean
  double low = std::numeric_limits<double>::infinity();
  double high = -std::numeric_limits<double>::infinity();

  bool flat() const { return low == high; }
  double SampleDeviation() const { return count > 1 ? std::sqrt(squares / (count - 1)) : 0; }
  double Deviation() const { return count > 0 ? std::sqrt(squares / count) : 0; }
};

template <typename Range>
Moments MomentsOf(const Range& values) {
  Moments m;
  for (const double v : values) {
    if (std::isnan(v)) continue;
    ++m.count;
    m.mean += v;
    m.low = std::min(m.low, v);
    m.high = std::max(m.high, v);
  }
  if (m.count > 0) m.mean /= m.count;
  for (const double v : values) {
    if (!std::isnan(v)) m.squares += (v - m.mean) * (v - m.mean);
  }
  return m;
}

std::map<int64_t, Moments> GroupMoments(const RewardedAnswers& answers) {
  std::map<int64_t, std::vector<double>> rewards;
  for (size_t i = 0; i < answers.groups.size(); ++i) rewards[answers.groups[i]].push_back(answers.rewards[i]);
  std::map<int64_t, Moments> out;
  for (const auto& [group, values] : rewards) out[group] = MomentsOf(values);
  return out;
}

// One number an answer; NaN stays.
std::vector<double> AnswerAdvantages(AdvantageKind kind, const RewardedAnswers& answers) {
  const std::map<int64_t, Moments> groups = GroupMoments(answers);
  const double batch_deviation = MomentsOf(answers.rewards).SampleDeviation();
  std::vector<double> out(answers.rewards.size());
  for (size_t i = 0; i < out.size(); ++i) {
    const Moments& group = groups.at(answers.groups[i]);
    const double centred = answers.rewards[i] - group.mean;
    if (std::isnan(centred)) {
      out[i] = centred;
    } else if (group.flat()) {
      out[i] = 0;  // exactly: a mean's rounding over a tiny deviation would be noise of any size
    } else if (kind == AdvantageKind::kGrpo) {
      out[i] = centred / (group.SampleDeviation() + kDeviationFloor);
    } else if (kind == AdvantageKind::kBatchStd) {
      out[i] = centred / (batch_deviation + kDeviationFloor);
    } else if (kind == AdvantageKind::kRloo) {
      out[i] = centred * group.count / (group.count - 1);
    } else {
      out[i] = centred;
    }
  }
  return out;
}

// Mean 0 and deviation 1 over the tokens that are numbers; the others 0.
void Whiten(std::vector<double>& tokens) {
  const Moments m = MomentsOf(tokens);
  for (double& t : tokens) {
    t = std::isnan(t) || m.flat() ? 0 : (t - m.mean) / (m.Deviation() + kWhitenFloor);
  }
}

// Each token's sum of what it and the later ones earn: the reward at the end, less the penalties.
std::vector<double> Returns(const RewardedAnswers& answers) {
  std::vector<double> out;
  for (size_t i = 0; i < answers.lengths.size(); ++i) {
    const size_t first = out.size(), count = answers.lengths[i];
    out.resize(first + count);
    double sum = answers.rewards[i];
    for (size_t t = count; t-- > 0;) {
      if (!answers.token_penalties.empty()) sum -= answers.token_penalties[first + t];
      out[first + t] = sum;
    }
  }
  return out;
}

}  // namespace

std::string_view AdvantageKindName(AdvantageKind kind) {
  switch (kind) {
    case AdvantageKind::kGrpo:
      return "grpo";
    case AdvantageKind::kDrGrpo:
      return "dr_grpo";
    case AdvantageKind::kRloo:
      return "rloo";
    case AdvantageKind::kBatchStd:
      return "batch_std";
    case AdvantageKind::kReinforcePlusPlus:
      return "reinforce_pp";
    case AdvantageKind::kReinforcePlusPlusBaseline:
      return "reinforce_pp_baseline";
  }
  return "";
}

std::vector<double> TokenAdvantages(AdvantageKind kind, const RewardedAnswers& answers) {
  CHECK_EQ(answers.groups.size(), answers.rewards.size());
  CHECK_EQ(answers.groups.size(), answers.lengths.size());
  if (kind == AdvantageKind::kReinforcePlusPlus) {
    std::vector<double> tokens = Returns(answers);
    Whiten(tokens);
    return tokens;
  }
  const std::vector<double> of_answers = AnswerAdvantages(kind, answers);
  std::vector<double> tokens;
  for (size_t i = 0; i < of_answers.size(); ++i) {
    const bool whitened = kind == AdvantageKind::kReinforcePlusPlusBaseline;
    const double value = std::isnan(of_answers[i]) && !whitened ? 0 : of_answers[i];
    tokens.insert(tokens.end(), answers.lengths[i], value);
  }
  if (kind == AdvantageKind::kReinforcePlusPlusBaseline) Whiten(tokens);
  return tokens;
}

GroupSignal MeasureSignal(const RewardedAnswers& answers) {
  GroupSignal signal;
  for (const auto& [group, moments] : GroupMoments(answers)) {
    if (moments.count == 0) continue;
    ++signal.groups;
    signal.flat += moments.flat();
  }
  signal.left_out = std::count_if(answers.rewards.begin(), answers.rewards.end(),
                                  [](double reward) { return std::isnan(reward); });
  return signal;
}

}  // namespace moebius
