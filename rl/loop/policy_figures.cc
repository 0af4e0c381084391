#include "rl/loop/policy_figures.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <optional>

#include "rl/reward/text_reward.h"

namespace moebius {
namespace {

struct Running {
  double sum = 0;
  double low = std::numeric_limits<double>::infinity(), high = -std::numeric_limits<double>::infinity();
  int64_t n = 0;
  void Add(double x) {
    sum += x;
    low = std::min(low, x);
    high = std::max(high, x);
    ++n;
  }
  double mean() const { return sum / static_cast<double>(n); }
};

void AddMean(const std::string& name, const Running& of, NamedValues& values) {
  if (of.n > 0) values.emplace_back(name, of.mean());
}

}  // namespace

GroupSignal SignalOf(std::span<const RolloutGroup> groups) {
  std::vector<int64_t> group_of, lengths;
  std::vector<double> rewards;
  for (size_t g = 0; g < groups.size(); ++g) {
    for (const RolloutSample& s : groups[g].samples) {
      group_of.push_back(static_cast<int64_t>(g));
      lengths.push_back(std::ssize(s.tokens));
      rewards.push_back(s.score.reward.value_or(std::numeric_limits<double>::quiet_NaN()));
    }
  }
  return MeasureSignal({.groups = group_of, .rewards = rewards, .lengths = lengths});
}

// Whether all that was judged is right and has earned the same.
bool IsSolved(const RolloutGroup& group) {
  std::optional<double> earned;
  for (const RolloutSample& s : group.samples) {
    if (!s.score.reward) continue;
    if (s.score.correct != 1 || *s.score.reward != earned.value_or(*s.score.reward)) return false;
    earned = s.score.reward;
  }
  return earned.has_value();
}

void AddSampleFigures(std::span<const RolloutGroup> groups, const GroupSignal& signal, NamedValues& values) {
  Running reward, square, correct, length, right_length, wrong_length, unfinished, repetition;
  std::map<std::string, Running> parts;
  double drafts = 0, accepted = 0;
  for (const RolloutGroup& group : groups) {
    for (const RolloutSample& s : group.samples) {
      const auto n = static_cast<double>(s.tokens.size());
      length.Add(n);
      unfinished.Add(s.finished ? 0 : 1);
      drafts += static_cast<double>(s.drafts);
      accepted += static_cast<double>(s.accepted_drafts);
      repetition.Add(RepeatedTokens(3, s.tokens).value_or(0));
      for (const auto& [name, value] : s.score.parts) parts[name].Add(value);
      if (s.score.correct) {
        correct.Add(*s.score.correct);
        (*s.score.correct == 1 ? right_length : wrong_length).Add(n);
      }
      if (!s.score.reward) continue;
      reward.Add(*s.score.reward);
      square.Add(*s.score.reward * *s.score.reward);
    }
  }
  AddMean("rl/reward_mean", reward, values);
  if (reward.n > 0) {
    // Equal rewards have exactly none, whatever their mean rounds to.
    const bool equal = reward.low == reward.high;
    const double variance = equal ? 0 : square.mean() - reward.mean() * reward.mean();
    values.emplace_back("rl/reward_std", std::sqrt(std::max(0.0, variance)));
  }
  for (const auto& [name, value] : parts) AddMean("rl/reward_" + name, value, values);
  AddMean("rl/accuracy", correct, values);
  AddMean("rl/response_tokens_mean", length, values);
  values.emplace_back("rl/response_tokens_max", length.high);
  AddMean("rl/response_tokens_right", right_length, values);
  AddMean("rl/response_tokens_wrong", wrong_length, values);
  AddMean("rl/unfinished", unfinished, values);
  if (drafts > 0) values.emplace_back("rl/draft_acceptance", accepted / drafts);
  AddMean("rl/repetition", repetition, values);
  if (signal.groups > 0 && groups[0].samples.size() > 1) {  // one answer has nothing to differ from
    const auto all = static_cast<double>(signal.groups);
    values.emplace_back("rl/zero_variance_groups", static_cast<double>(signal.flat) / all);
    if (correct.n > 0) {
      const auto solved = std::count_if(groups.begin(), groups.end(), IsSolved);
      values.emplace_back("rl/zero_variance_all_best", static_cast<double>(solved) / all);
    }
  }
  values.emplace_back("rl/left_out", static_cast<double>(signal.left_out));
  values.emplace_back("rl/left_out_share",
                      static_cast<double>(signal.left_out) / static_cast<double>(length.n));
}

std::vector<ShownSample> ShowSamples(const ProblemSet& problems, std::span<const RolloutGroup> groups,
                                     std::span<const double> advantages, int64_t most) {
  std::vector<ShownSample> shown;
  for (const RolloutGroup& group : groups) {
    if (most == 0 || (!shown.empty() && std::ssize(shown) + std::ssize(group.samples) > most)) return shown;
    const Problem problem = problems.At(group.problem);
    for (const RolloutSample& s : group.samples) {
      const size_t answer = shown.size();
      ShownSample& to = shown.emplace_back();
      to.prompt = problem.messages.back().content;
      to.text = s.text;
      to.gold = problem.gold;
      to.verdict = s.score.verdict;
      if (s.score.reward) to.values.emplace_back("reward", *s.score.reward);
      for (const auto& [name, value] : s.score.parts) to.values.emplace_back(name, value);
      to.values.emplace_back("advantage", advantages[answer]);
    }
  }
  return shown;
}

}  // namespace moebius
