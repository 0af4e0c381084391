#include "rl/evaluation/tally.h"

#include <algorithm>
#include <cstdio>

#include "core/base/check.h"

namespace moebius {
namespace {

struct Counts {
  int64_t right = 0, decided = 0;
};

Counts CountOf(const std::vector<Graded>& samples) {
  Counts counts;
  for (const Graded& sample : samples) {
    counts.right += sample.outcome == Outcome::kRight;
    counts.decided += sample.outcome != Outcome::kUndecided;
  }
  return counts;
}

Figure MakeFigure(const std::vector<double>& scores) {
  return {MeanOverPrompts(scores), static_cast<int64_t>(scores.size())};
}

Figure PassAt(const std::vector<Counts>& counts, int64_t k) {
  std::vector<double> scores;
  for (const Counts& c : counts)
    if (c.decided >= k) scores.push_back(PassAtK(c.decided, c.right, k));
  return MakeFigure(scores);
}

Figure Consensus(const std::vector<std::vector<Graded>>& verdicts, const Grader& grader) {
  std::vector<double> scores;
  for (const std::vector<Graded>& samples : verdicts) {
    const auto winner =
        MajorityAnswer(samples, [&](std::string_view a, std::string_view b) { return grader.Same(a, b); });
    const Outcome outcome = winner ? samples[*winner].outcome : Outcome::kNoAnswer;
    if (outcome != Outcome::kUndecided) scores.push_back(outcome == Outcome::kRight ? 1 : 0);
  }
  return MakeFigure(scores);
}

std::optional<Figure> DenseScore(const std::vector<std::vector<Graded>>& verdicts) {
  std::vector<double> scores;
  bool any = false;
  for (const std::vector<Graded>& samples : verdicts) {
    double sum = 0;
    int64_t count = 0;
    for (const Graded& sample : samples) {
      any |= sample.dense.has_value();
      if (sample.outcome == Outcome::kUndecided) continue;
      sum += sample.dense.value_or(0);  // none: the question was too long to be asked
      ++count;
    }
    if (count > 0) scores.push_back(sum / static_cast<double>(count));
  }
  if (!any) return std::nullopt;
  return MakeFigure(scores);
}

std::vector<std::pair<std::string, Figure>> BySubject(const std::vector<Question>& questions,
                                                      const std::vector<Counts>& counts) {
  std::vector<std::pair<std::string, std::vector<Counts>>> groups;
  for (size_t i = 0; i < questions.size(); ++i) {
    const std::string& subject = questions[i].subject;
    if (subject.empty()) continue;
    auto group =
        std::find_if(groups.begin(), groups.end(), [&](const auto& g) { return g.first == subject; });
    if (group == groups.end()) group = groups.insert(groups.end(), {subject, {}});
    group->second.push_back(counts[i]);
  }
  std::vector<std::pair<std::string, Figure>> out;
  for (const auto& [subject, of_subject] : groups) out.emplace_back(subject, PassAt(of_subject, 1));
  return out;
}

}  // namespace

std::optional<size_t> MajorityAnswer(
    const std::vector<Graded>& samples,
    const std::function<bool(std::string_view a, std::string_view b)>& same) {
  struct Class {
    size_t first;
    int64_t votes;
  };
  std::vector<Class> classes;
  for (size_t i = 0; i < samples.size(); ++i) {
    if (samples[i].outcome == Outcome::kNoAnswer) continue;
    const auto own = std::find_if(classes.begin(), classes.end(), [&](const Class& c) {
      const std::string &a = samples[c.first].extracted, &b = samples[i].extracted;
      return a == b || same(a, b);
    });
    if (own == classes.end()) {
      classes.push_back({i, 1});
    } else {
      ++own->votes;
    }
  }
  // max_element keeps the first of equals.
  const auto best = std::max_element(classes.begin(), classes.end(),
                                     [](const Class& a, const Class& b) { return a.votes < b.votes; });
  if (best == classes.end()) return std::nullopt;
  return best->first;
}

Tally TallyVerdicts(const std::vector<Question>& questions, const std::vector<std::vector<Graded>>& verdicts,
                    const Grader* grader) {
  CHECK_EQ(questions.size(), verdicts.size());
  Tally tally;
  tally.problems = std::ssize(verdicts);
  const int64_t k = verdicts.empty() ? 0 : std::ssize(verdicts[0]);
  std::vector<Counts> counts;
  for (const std::vector<Graded>& samples : verdicts) {
    CHECK_EQ(std::ssize(samples), k);
    counts.push_back(CountOf(samples));
    for (const Graded& sample : samples) {
      ++tally.samples;
      tally.right += sample.outcome == Outcome::kRight;
      tally.wrong += sample.outcome == Outcome::kWrong;
      tally.no_answer += sample.outcome == Outcome::kNoAnswer;
      tally.undecided += sample.outcome == Outcome::kUndecided;
    }
  }
  tally.pass_at_1 = PassAt(counts, 1);
  for (int64_t j = 2; j < k; j *= 2) tally.pass_at.emplace_back(j, PassAt(counts, j));
  if (k > 1) tally.pass_at.emplace_back(k, PassAt(counts, k));
  if (k > 1 && grader != nullptr && grader->votes()) tally.cons = Consensus(verdicts, *grader);
  tally.dense = DenseScore(verdicts);
  tally.subjects = BySubject(questions, counts);
  return tally;
}

std::string PercentText(const Figure& figure) {
  if (figure.problems == 0) return "-";
  const double mean = 100 * figure.estimate.mean, half = 100 * figure.estimate.half_width;
  char text[64];
  if (figure.estimate.mean == 0) {
    std::snprintf(text, sizeof text, "%.1f (below %.1f)", mean, half);
  } else if (figure.estimate.mean == 1) {
    std::snprintf(text, sizeof text, "%.1f (above %.1f)", mean, 100 - half);
  } else if (figure.estimate.half_width > 0) {
    std::snprintf(text, sizeof text, "%.1f +- %.1f", mean, half);
  } else {
    std::snprintf(text, sizeof text, "%.1f", mean);
  }
  return text;
}

}  // namespace moebius
