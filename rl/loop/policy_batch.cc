#include "rl/loop/policy_batch.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "core/base/strings.h"

namespace moebius {
namespace {

int64_t TokensOf(const RolloutGroup& group) {
  int64_t n = 0;
  for (const RolloutSample& sample : group.samples) n += std::ssize(sample.tokens);
  return n;
}

bool IsJudged(const RolloutGroup& group) {
  return std::any_of(group.samples.begin(), group.samples.end(),
                     [](const RolloutSample& s) { return s.score.reward.has_value(); });
}

}  // namespace

PolicyBatch::PolicyBatch(const PolicyOptions& options, std::span<const RolloutGroup> groups, int64_t least)
    : options_(options) {
  SetAdvantages(groups);
  // A group without advantages teaches nothing, unless every token has a term of its own.
  const PolicyObjective& o = options.objective;
  const bool all_count = (o.kl != KlKind::kNone && o.kl_coefficient != 0) || options.entropy_coefficient != 0;
  std::vector<int64_t> chosen, others;
  int64_t token = 0;
  for (int64_t g = 0; g < std::ssize(groups); ++g) {
    const int64_t end = token + TokensOf(groups[g]);
    const bool teaches = std::any_of(token_advantages_.begin() + token, token_advantages_.begin() + end,
                                     [](double a) { return a != 0; });
    (teaches || (all_count && IsJudged(groups[g])) ? chosen : others).push_back(g);
    token = end;
  }
  // Which groups an update learns from does not depend on how many it must have; those that fill it up come
  // from the others. Fewer updates where there are too few groups of both.
  const int64_t room = std::ssize(groups) / std::max<int64_t>(least, 1);
  const int64_t parts = std::clamp<int64_t>(std::min(std::ssize(chosen), room), 1, options.updates);
  // What the batch's means are over: answers that were judged, those without advantage included.
  BatchTotals totals;
  for (const RolloutGroup& group : groups) {
    for (const RolloutSample& sample : group.samples) {
      if (!sample.score.reward) continue;
      ++totals.answers;
      totals.tokens += static_cast<double>(sample.tokens.size());
    }
  }
  if (totals.answers == 0) {
    options_.entropy_coefficient = 0;
    totals = {.answers = 1, .tokens = 1};
  }
  totals.answers /= static_cast<double>(parts);
  totals.tokens /= static_cast<double>(parts);
  for (int64_t u = 0; u < parts; ++u) {
    const auto [begin, end] = ShareOf(std::ssize(chosen), static_cast<int>(u), static_cast<int>(parts));
    std::vector<int64_t> part(chosen.begin() + begin, chosen.begin() + end);
    for (; std::ssize(part) < least && !others.empty(); others.erase(others.begin()))
      part.push_back(others.front());
    std::sort(part.begin(), part.end());
    AddPart(groups, part, chosen, totals, u == 0);
  }
}

void PolicyBatch::SetAdvantages(std::span<const RolloutGroup> groups) {
  std::vector<int64_t> group_of, lengths;
  std::vector<double> earned, penalties;
  for (int64_t g = 0; g < std::ssize(groups); ++g) {
    for (const RolloutSample& s : groups[g].samples) {
      group_of.push_back(g);
      lengths.push_back(std::ssize(s.tokens));
      earned.push_back(s.score.reward.value_or(std::numeric_limits<double>::quiet_NaN()));
      if (options_.kl_in_reward == 0) continue;
      const std::vector<float>& now = s.proximal.empty() ? s.logprobs : s.proximal;
      for (size_t t = 0; t < s.tokens.size(); ++t)
        penalties.push_back(options_.kl_in_reward * (static_cast<double>(now[t]) - s.reference[t]));
    }
  }
  std::vector<double> rewards = earned;
  if (options_.advantage != AdvantageKind::kReinforcePlusPlus) {
    // A whole answer's penalty comes off its reward.
    auto next = penalties.begin();
    for (size_t i = 0; i < rewards.size() && !penalties.empty(); ++i) {
      for (const auto end = next + lengths[i]; next != end; ++next) rewards[i] -= *next;
    }
    penalties.clear();
  }
  const auto advantages = [&](const std::vector<double>& of, std::span<const double> token_penalties) {
    return TokenAdvantages(
        options_.advantage,
        {.groups = group_of, .rewards = of, .lengths = lengths, .token_penalties = token_penalties});
  };
  token_advantages_ = advantages(rewards, penalties);
  // A penalty tells answers apart, but it is no reward.
  const std::vector<double> signal = options_.kl_in_reward == 0 ? token_advantages_ : advantages(earned, {});
  has_signal_ = std::any_of(signal.begin(), signal.end(), [](double a) { return a != 0; });
  int64_t token = 0;
  for (size_t i = 0; i < lengths.size(); ++i) {
    answer_advantages_.push_back(std::isnan(rewards[i]) ? rewards[i] : token_advantages_[token]);
    token += lengths[i];
  }
}

// Whether the weights follow from what the samples say, before the model has run.
bool PolicyBatch::KnowsWeights(const Part& part) const { return options_.exact && part.first; }

void PolicyBatch::AddPart(std::span<const RolloutGroup> groups, std::span<const int64_t> of,
                          std::span<const int64_t> chosen, const BatchTotals& totals, bool first) {
  parts_.push_back(std::make_unique<Part>());
  Part& part = *parts_.back();
  part.totals = totals;
  part.first = first;
  std::vector<int64_t> first_token{0};  // of all groups
  for (const RolloutGroup& group : groups) first_token.push_back(first_token.back() + TokensOf(group));
  for (const int64_t g : of) {
    AnswerGroup& to = part.groups.emplace_back();
    to.prompt = groups[g].prompt;
    if (options_.replays_routes) to.prompt_routes = groups[g].prompt_routes;
    part.first_token.push_back(std::ssize(part.behaviour));
    part.first_answer.push_back(std::ssize(part.lengths));
    int64_t token = first_token[g];
    to.balances = std::binary_search(chosen.begin(), chosen.end(), g);
    const bool fills = chosen.empty() ? !IsJudged(groups[g]) : !to.balances;
    part.fills.push_back(fills);
    for (const RolloutSample& s : groups[g].samples) {
      const auto n = std::ssize(s.tokens);
      const auto begin = token_advantages_.begin() + std::exchange(token, token + n);
      // What could not be judged is left out. A group that was not chosen fills a rank's batch and predicts
      // nothing: how many do depends on the layout, and nothing else may. Where none was, they are measured.
      if (!s.score.reward && !fills) continue;
      to.answers.push_back({.tokens = s.tokens, .weights = {}});
      if (options_.replays_routes) to.answers.back().routes = s.routes;
      if (fills) {
        to.answers.back().counts.assign(n, false);
        continue;
      }
      part.lengths.push_back(n);
      part.advantages.insert(part.advantages.end(), begin, begin + n);
      part.behaviour.insert(part.behaviour.end(), s.logprobs.begin(), s.logprobs.end());
      const std::vector<float>& drawn = options_.cuts ? s.sampling_logprobs : s.logprobs;
      part.sampling.insert(part.sampling.end(), drawn.begin(), drawn.end());
      const std::vector<float>& proximal = s.proximal.empty() ? s.logprobs : s.proximal;
      part.proximal.insert(part.proximal.end(), proximal.begin(), proximal.end());
      part.reference.insert(part.reference.end(), s.reference.begin(), s.reference.end());
    }
  }
  part.first_token.push_back(std::ssize(part.behaviour));
  part.first_answer.push_back(std::ssize(part.lengths));
  if (KnowsWeights(part)) {
    for (int64_t g = 0; g < std::ssize(part.groups); ++g) {
      if (part.fills[g]) continue;
      const int64_t begin = part.first_token[g], n = part.first_token[g + 1] - begin;
      const std::vector<double> gradient =
          LossOf(part, g, std::span<const double>(part.behaviour).subspan(begin, n)).gradient;
      size_t t = 0;
      for (AnswerGroup::Answer& answer : part.groups[g].answers) {
        for (size_t i = 0; i < answer.tokens.size(); ++i)
          answer.weights.push_back(static_cast<float>(-gradient[t++]));
      }
    }
  }
  GroupBatch& batch = batches_.emplace_back();
  batch.groups = part.groups;
  batch.predictions = std::ssize(part.behaviour);
  batch.scale = 1;
  batch.temperature = options_.temperature;
  batch.entropies = true;
  batch.entropy_scale = options_.entropy_coefficient / totals.tokens;
  if (!KnowsWeights(part)) {
    batch.weigh = [this, &part](int64_t g, int64_t count, std::span<const float> losses,
                                std::span<float> weights) {
      const std::vector<double> gradient = Observe(part, g, count, losses);
      for (size_t i = 0; i < losses.size(); ++i) weights[i] = static_cast<float>(-gradient[i]);
    };
    return;
  }
  batch.observe = [this, &part](int64_t g, int64_t count, std::span<const float> losses,
                                std::span<const float>) { Observe(part, g, count, losses); };
}

PolicyLoss PolicyBatch::LossOf(const Part& part, int64_t group, std::span<const double> live) const {
  const int64_t begin = part.first_token[group], n = part.first_token[group + 1] - begin;
  CHECK_EQ(std::ssize(live), n);
  if (part.fills[group]) return {.gradient = std::vector<double>(n)};
  const auto of = [&](const std::vector<double>& x) { return std::span<const double>(x).subspan(begin, n); };
  const int64_t answer = part.first_answer[group], answers = part.first_answer[group + 1] - answer;
  return ComputePolicyLoss(
      options_.objective, part.totals,
      {.lengths = std::span<const int64_t>(part.lengths).subspan(answer, answers),
       .advantages = of(part.advantages),
       .live = live,
       // With the live policy for the proximal one, ratios are 1 whatever the samples say.
       .proximal = part.first ? live : of(part.proximal),
       .behaviour = of(part.sampling),
       .reference = part.reference.empty() ? std::span<const double>() : of(part.reference)});
}

std::vector<double> PolicyBatch::Observe(const Part& part, int64_t first, int64_t count,
                                         std::span<const float> losses) {
  std::vector<double> live(losses.size()), gradient;
  const int64_t begin = part.first_token[first];
  for (size_t i = 0; i < live.size(); ++i) {
    live[i] = -static_cast<double>(losses[i]);
    const double proximal = part.first ? live[i] : part.proximal[begin + i];
    sums_.mismatch_high = std::max(sums_.mismatch_high, std::abs(proximal - part.behaviour[begin + i]));
    if (!options_.exact || !part.first || !mismatch_.empty() || live[i] == part.behaviour[begin + i])
      continue;
    mismatch_ = Concat("token ", i, " of groups ", first, " to ", first + count - 1, ": sampled at ",
                       part.behaviour[begin + i], ", trained at ", live[i]);
  }
  for (int64_t g = first; g < first + count; ++g) {
    const int64_t n = part.first_token[g + 1] - part.first_token[g];
    const PolicyLoss loss =
        LossOf(part, g, std::span<const double>(live).subspan(part.first_token[g] - begin, n));
    gradient.insert(gradient.end(), loss.gradient.begin(), loss.gradient.end());
    if (!part.fills[g]) Add(loss, n);
  }
  return gradient;
}

void PolicyBatch::Add(const PolicyLoss& loss, int64_t tokens) {
  sums_.loss += loss.loss / static_cast<double>(parts_.size());
  sums_.kl += loss.kl;
  sums_.ratio += loss.ratio;
  sums_.tokens += static_cast<double>(tokens);
  sums_.clipped_low += static_cast<double>(loss.clipped_low);
  sums_.clipped_high += static_cast<double>(loss.clipped_high);
  sums_.clipped_dual += static_cast<double>(loss.clipped_dual);
  sums_.ratio_high = std::max(sums_.ratio_high, loss.ratio_high);
}

}  // namespace moebius
