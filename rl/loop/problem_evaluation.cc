#include "rl/loop/problem_evaluation.h"

#include <algorithm>
#include <cstdio>
#include <numeric>

#include "core/base/status.h"
#include "core/base/strings.h"
#include "rl/loop/roll_out.h"
#include "rl/objective/estimates.h"
#include "rl/tasks/distinct.h"

namespace moebius {
namespace {

constexpr size_t kShown = 4;
constexpr double kMostUndecided = 0.05;  // share of answers above which an accuracy says little

// Of every group, how many of its judged answers are right, and how many were judged.
struct Right {
  int64_t right = 0, judged = 0;
};
Right CountRight(const RolloutGroup& group) {
  Right out;
  for (const RolloutSample& s : group.samples) {
    if (!s.score.correct) continue;
    ++out.judged;
    out.right += *s.score.correct == 1;
  }
  return out;
}

}  // namespace

std::vector<uint64_t> ProblemsToAsk(const ProblemSet& problems, int64_t most) {
  if (problems.size() == 0) {
    return DistinctDraws(most, [&](uint64_t i) { return problems.At(i).messages.back().content; });
  }
  std::vector<uint64_t> asked(std::min(most, problems.size()));
  std::iota(asked.begin(), asked.end(), 0);
  return asked;
}

absl::StatusOr<StepReport> EvaluateProblems(Trainer& trainer, PolicyModel& policy, const ProblemTools& tools,
                                            const DecoderOptions& decoder_options,
                                            const ProblemEvaluation& options) {
  const std::vector<uint64_t> asked = ProblemsToAsk(tools.problems, options.problems);
  const auto run = [&](const RolloutOptions& rollout) {
    return RollOut(trainer, policy, tools, asked,
                   {.rollout = rollout, .decoder = decoder_options, .seed = options.seed});
  };
  RolloutOptions greedy = options.rollout;
  greedy.group_size = 1;
  greedy.sampling = {.temperature = 0};
  greedy.logprobs = LogProbs::kNo;
  ASSIGN_OR_RETURN(const std::vector<RolloutGroup> answers, run(greedy));
  StepReport report;
  std::vector<double> scores;
  for (const RolloutGroup& group : answers) {
    const Right right = CountRight(group);
    if (right.judged > 0) scores.push_back(static_cast<double>(right.right));
    if (report.samples.size() >= kShown) continue;
    const Problem problem = tools.problems.At(group.problem);
    const RolloutSample& s = group.samples[0];
    report.samples.push_back({.prompt = problem.messages.back().content,
                              .text = s.text,
                              .values = {{"correct", s.score.correct.value_or(-1)}},
                              .gold = problem.gold,
                              .verdict = s.score.verdict});
  }
  const std::string key = Concat("eval/", options.name);
  const size_t undecided = answers.size() - scores.size();
  if (scores.empty()) {
    report.notes.push_back(Concat("warning: ", key, ": none of ", undecided,
                                  " answers could be judged; read verdicts in samples/"));
    return report;
  }
  const Estimate accuracy = MeanOverPrompts(scores);
  report.values = {{key, accuracy.mean}, {key + "_ci", accuracy.half_width}};
  const double share = static_cast<double>(undecided) / static_cast<double>(answers.size());
  if (undecided > 0) report.values.emplace_back(key + "_undecided", share);
  char line[160];
  std::snprintf(line, sizeof line, "%s: %.3f +- %.3f greedy on %zu held-out problems", key.c_str(),
                accuracy.mean, accuracy.half_width, scores.size());
  report.notes.emplace_back(line);
  if (undecided > 0) report.notes.back() += Concat(" (", undecided, " more could not be judged)");
  if (share > kMostUndecided) report.notes.back().insert(0, "warning: many answers are undecided; ");
  if (options.samples == 0) return report;
  RolloutOptions sampled = options.rollout;
  sampled.group_size = options.samples;
  sampled.sampling.seed = options.seed;
  sampled.logprobs = LogProbs::kNo;
  ASSIGN_OR_RETURN(const std::vector<RolloutGroup> groups, run(sampled));
  std::vector<double> pass1, passk;
  for (const RolloutGroup& group : groups) {
    const Right right = CountRight(group);
    if (right.judged == 0) continue;
    pass1.push_back(PassAtK(right.judged, right.right, 1));
    // Which problems count must not depend on how their answers came out: no right one stands for unknown
    // ones.
    if (right.judged == options.samples) passk.push_back(PassAtK(right.judged, right.right, right.judged));
  }
  if (pass1.empty()) return report;  // nothing could be judged
  const Estimate one = MeanOverPrompts(pass1), all = MeanOverPrompts(passk);
  report.values.emplace_back(key + "_pass1", one.mean);
  const long long samples = options.samples;
  std::snprintf(line, sizeof line, ", pass@1 %.3f +- %.3f over %lld sample%s", one.mean, one.half_width,
                samples, samples == 1 ? "" : "s");
  report.notes.back() += line;
  if (samples == 1 || passk.empty()) return report;
  report.values.emplace_back(Concat(key, "_pass", samples), all.mean);
  std::snprintf(line, sizeof line, ", pass@%lld %.3f", samples, all.mean);
  report.notes.back() += line;
  return report;
}

}  // namespace moebius
