// sort, add, multiply: the answer is one string of digits.
#include <algorithm>

#include "core/base/strings.h"
#include "rl/tasks/task_kind.h"

namespace moebius {
namespace {

class SortKind final : public TaskKind {
 public:
  explicit SortKind(const TaskOptions& options) : length_(options.sort_length), style_(options.style) {}

  std::optional<TaskCandidate> Draw(ItemDraws& draws) const override {
    std::string digits;
    for (int i = 0; i < length_; ++i) digits += static_cast<char>('0' + draws.Below(10));
    std::string gold = digits;
    std::sort(gold.begin(), gold.end());
    const std::string prompt =
        style_ == PromptStyle::kTerse
            ? Concat("sort ", digits, "=")
            : Concat("Sort the digits ", digits, " from the smallest to the largest. Write only the digits.");
    TaskCandidate out;
    out.item.prompt = prompt;
    out.item.gold = gold;
    out.canonical = gold;
    return out;
  }
  TaskScore Grade(const TaskItem& item, std::string_view answer) const override {
    return GradePlaces(item.gold, answer);
  }

 private:
  int length_;
  PromptStyle style_;
};

class PairKind final : public TaskKind {
 public:
  PairKind(char sign, int64_t low, int64_t high, PromptStyle style)
      : sign_(sign), low_(low), high_(high), style_(style) {}

  std::optional<TaskCandidate> Draw(ItemDraws& draws) const override {
    const int64_t a = draws.Between(low_, high_);
    const int64_t b = draws.Between(low_, high_);
    const std::string sum = std::to_string(a) + sign_ + std::to_string(b);
    const std::string prompt =
        style_ == PromptStyle::kTerse ? sum + "=" : Concat("What is ", sum, "? Write only the number.");
    return TaskCandidate{
        .item = {.prompt = prompt, .gold = std::to_string(sign_ == '+' ? a + b : a * b), .data = {a, b}},
        .canonical = std::to_string(std::min(a, b)) + sign_ + std::to_string(std::max(a, b))};
  }
  TaskScore Grade(const TaskItem& item, std::string_view answer) const override {
    return GradePlaces(std::string(item.gold.rbegin(), item.gold.rend()),
                       std::string(answer.rbegin(), answer.rend()));
  }

 private:
  char sign_;
  int64_t low_, high_;
  PromptStyle style_;
};

}  // namespace

std::unique_ptr<TaskKind> MakeSort(const TaskOptions& options) { return std::make_unique<SortKind>(options); }

std::unique_ptr<TaskKind> MakeAdd(const TaskOptions& options) {
  int64_t above = 10;
  for (int d = 1; d < options.add_digits; ++d) above *= 10;
  return std::make_unique<PairKind>('+', options.add_digits == 1 ? 0 : above / 10, above - 1, options.style);
}

std::unique_ptr<TaskKind> MakeMultiply(const TaskOptions& options) {
  return std::make_unique<PairKind>('*', options.multiply_low, options.multiply_high, options.style);
}

}  // namespace moebius
