#include "core/base/strings.h"
#include "rl/reward/text_reward.h"

namespace moebius {
namespace {

size_t CountOf(std::string_view text, std::string_view tag) {
  size_t count = 0;
  for (size_t at = text.find(tag); at != std::string_view::npos; at = text.find(tag, at + tag.size()))
    ++count;
  return count;
}

}  // namespace

Reward FormatReward(const FormatOptions& options, std::string_view text) {
  if (options.think_tag.empty() || options.answer_tag.empty() || options.think_tag == options.answer_tag)
    return std::nullopt;
  const std::string tags[] = {Concat('<', options.think_tag, '>'), Concat("</", options.think_tag, '>'),
                              Concat('<', options.answer_tag, '>'), Concat("</", options.answer_tag, '>')};
  bool whole = true;
  int once = 0;
  for (size_t i = 0; i < 4; ++i) {
    const size_t expected = i == 0 && options.think_opened ? 0 : 1;
    const size_t count = CountOf(text, tags[i]);
    whole = whole && count == expected;
    once += expected == 1 && count == 1;
  }
  if (whole) {
    const size_t opened = options.think_opened ? 0 : text.find(tags[0]);
    const size_t thought = text.find(tags[1]), asked = text.find(tags[2]), closed = text.find(tags[3]);
    const auto between = [&](size_t from, size_t to) { return text.substr(from, to - from); };
    if (opened <= thought && thought < asked && asked < closed && IsBlank(between(0, opened)) &&
        IsBlank(between(thought + tags[1].size(), asked)) &&
        !IsBlank(between(asked + tags[2].size(), closed)) && IsBlank(text.substr(closed + tags[3].size())))
      return 1;
  }
  return options.partial_credit ? 0.2 * once : 0;
}

}  // namespace moebius
