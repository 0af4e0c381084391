#include "rl/loop/policy_watch.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <utility>

#include "core/base/strings.h"

namespace moebius {
namespace {

constexpr const char* kWatched[] = {
    "rl/response_tokens_mean", "rl/repetition",  "rl/unfinished", "rl/visible_hidden_gap",
    "rl/left_out_share",       "rl/reward_mean", "rl/reward_std"};

std::string Short(double x) {
  char text[32];
  std::snprintf(text, sizeof text, "%.3g", x);
  return text;
}

}  // namespace

std::optional<double> PolicyWatch::First(const Course& course) {
  if (course.count < 2 * kWindow) return std::nullopt;
  return course.first_sum / kWindow;
}

std::optional<double> PolicyWatch::Recent(const Course& course) {
  if (course.count < kWindow) return std::nullopt;
  double sum = 0;
  for (const double x : course.recent) sum += x;
  return sum / kWindow;
}

void PolicyWatch::Warn(std::string_view detector, std::string text) {
  const auto said = said_at_.find(detector);
  if (said != said_at_.end() && step_ < said->second + kQuietSteps) return;
  said_at_.insert_or_assign(std::string(detector), step_);
  warnings_.push_back("warning: " + std::move(text));
}

std::vector<std::string> PolicyWatch::Observe(int64_t step, const NamedValues& values) {
  step_ = step;
  warnings_.clear();
  for (const auto& [name, value] : values) {
    if (std::find(std::begin(kWatched), std::end(kWatched), name) == std::end(kWatched)) continue;
    if (!std::isfinite(value)) continue;
    Course& course = courses_[name];
    if (course.count++ < kWindow) course.first_sum += value;
    course.recent.push_back(value);
    if (std::ssize(course.recent) > kWindow) course.recent.pop_front();
  }
  WatchLength();
  WatchRepetition();
  WatchUnfinished();
  WatchGap();
  WatchLeftOut();
  WatchConstantReward();
  return std::move(warnings_);
}

void PolicyWatch::WatchLength() {
  const Course& course = courses_["rl/response_tokens_mean"];
  const std::optional<double> first = First(course);
  if (!first || *first <= 0) return;
  const double now = *Recent(course);
  if (now < kTimes * *first && now > *first / kTimes) return;
  Warn("length", Concat("answers have ", Short(now), " tokens in the mean of ", kWindow,
                        " steps, in the first ", kWindow, " they had ", Short(*first),
                        "; read some (samples/, report.html): a reward may be had by length alone, or the "
                        "policy is falling apart"));
}

void PolicyWatch::WatchRepetition() {
  const Course& course = courses_["rl/repetition"];
  const std::optional<double> first = First(course);
  if (!first) return;
  const double now = *Recent(course);
  if (now < kLeastRepetition || now < kTimes * *first) return;
  Warn("repetition",
       Concat("answers repeat themselves; share of repeated runs of tokens ", Short(now), " in the mean of ",
              kWindow, " steps, ", Short(*first), " in the first ", kWindow,
              "; read some (samples/, report.html); reward { part { name: \"repetition\" } } takes it off"));
}

void PolicyWatch::WatchUnfinished() {
  const std::optional<double> now = Recent(courses_["rl/unfinished"]);
  if (!now || *now <= kMostUnfinished) return;
  Warn("unfinished",
       Concat(Short(100 * *now), " % of answers are cut off at rl.max_new in the mean of ", kWindow,
              " steps, and a cut answer is seldom right; raise rl.max_new, or start from a "
              "model that ends its answers (task SFT first)"));
}

std::optional<double> PolicyWatch::Grown(const std::string& metric, double by) {
  const Course& course = courses_[metric];
  const std::optional<double> first = First(course);
  if (!first || *Recent(course) < *first + by) return std::nullopt;
  return Recent(course);
}

void PolicyWatch::WatchGap() {
  const std::optional<double> now = Grown("rl/visible_hidden_gap", kGapGrowth);
  if (!now) return;
  Warn("gap", Concat("answers pass the tests that prompts show and fail hidden ones; gap ", Short(*now),
                     " in the mean of ", kWindow, " steps, ",
                     Short(*First(courses_["rl/visible_hidden_gap"])), " in the first ", kWindow,
                     "; the policy may be writing to the visible tests; hide more of them, or use other "
                     "problems"));
}

// An answer that no judge can decide costs a policy nothing.
void PolicyWatch::WatchLeftOut() {
  const std::optional<double> now = Grown("rl/left_out_share", kLeftOutGrowth);
  if (!now) return;
  Warn("left out",
       Concat(Short(100 * *now), " % of answers have no verdict in the mean of ", kWindow, " steps, ",
              Short(100 * *First(courses_["rl/left_out_share"])), " % in the first ", kWindow,
              "; the policy may be learning to write what cannot be judged; read verdicts in samples/, and "
              "ask for a form that can (answer.where, a part \"format\")"));
}

// Where no two answers of a step differ for so long, the judge is as likely at fault as the policy.
void PolicyWatch::WatchConstantReward() {
  const std::deque<double>& deviations = courses_["rl/reward_std"].recent;
  const std::deque<double>& means = courses_["rl/reward_mean"].recent;
  if (std::ssize(deviations) < kWindow || std::ssize(means) < kWindow) return;
  const bool constant = std::all_of(deviations.begin(), deviations.end(), [](double x) { return x == 0; }) &&
                        std::all_of(means.begin(), means.end(), [&](double x) { return x == means[0]; });
  if (!constant) return;
  Warn("constant",
       Concat("every answer of ", kWindow, " steps has earned the same reward, ", Short(means[0]),
              "; nothing can be learned from it; look at samples/ whether `answer` finds the answers "
              "and the judge is right"));
}

}  // namespace moebius
