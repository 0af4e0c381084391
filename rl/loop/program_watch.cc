#include "rl/loop/program_watch.h"

#include <algorithm>

#include "core/base/strings.h"

namespace moebius {
namespace {

constexpr size_t kMostNamed = 5;

}  // namespace

void ProgramWatch::Observe(std::span<const RolloutGroup> groups, StepReport& report) {
  int64_t twice = 0, differ = 0, both = 0;
  double gap = 0;
  std::vector<std::string> names;
  for (const RolloutGroup& group : groups) {
    bool flaky = false;
    for (const RolloutSample& s : group.samples) {
      twice += s.score.differs.has_value();
      differ += s.score.differs.value_or(false);
      flaky |= s.score.differs.value_or(false);
      if (!s.score.visible || !s.score.correct) continue;
      ++both;
      gap += *s.score.visible - *s.score.correct;
    }
    if (!flaky) continue;
    std::string name = problems_.At(group.problem).id;
    if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(std::move(name));
  }
  if (twice > 0) {
    report.values.emplace_back("rl/judged_twice", static_cast<double>(twice));
    report.values.emplace_back("rl/flaky_verdicts", static_cast<double>(differ) / static_cast<double>(twice));
  }
  if (both > 0) report.values.emplace_back("rl/visible_hidden_gap", gap / static_cast<double>(both));
  if (differ == 0 || report.metrics.step < said_at_ + kQuietSteps) return;
  said_at_ = report.metrics.step;
  const size_t named = std::min(kMostNamed, names.size());
  const std::vector<std::string> some(names.begin(), names.begin() + static_cast<int64_t>(named));
  report.notes.push_back(Concat(
      "warning: flaky verdicts; ", differ, " of ", twice,
      " programs that were judged twice got another verdict the second time (problems: ", Join(some),
      names.size() > named ? ", ..." : "",
      "); such rewards are noise; raise the limits of their tests, or leave out problems whose answers "
      "depend on time or chance"));
}

}  // namespace moebius
