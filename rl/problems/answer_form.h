// Where in a model's text its answer stands, and how a worked answer is written so that it is found there.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "rl/problems/problem.h"
#include "rl/reward/text_reward.h"

namespace moebius {

namespace proto {
class Answer;
}

class AnswerForm {
 public:
  // UsageError naming the field: tags that are empty where they are needed, alike, or no plain names.
  static absl::StatusOr<AnswerForm> Make(const proto::Answer& answer);

  // The answer without thoughts and tags, blanks around it dropped; nullopt: the text has none (no tags, no
  // box, only blanks, thoughts that were begun and never ended). The last of several counts; boxes joined by
  // "or", "and" or a comma are one list, as rl/math/extract.h has it.
  std::optional<std::string> Extract(std::string_view text) const;
  // Where in `text` it stands: a part of it, empty where it was put together from several or written
  // differently.
  struct Found {
    std::string answer;
    std::string_view where;
  };
  std::optional<Found> Find(std::string_view text) const;

  // WHOLE      <think>THOUGHTS</think>ANSWER, without thoughts ANSWER (without a think tag always)
  // TAGS       <think>THOUGHTS</think><answer>ANSWER</answer>
  // BOXED      as WHOLE with \boxed{ANSWER}
  // LAST_LINE  THOUGHTS, a line end, ANSWER
  // LAST_NUMBER  as WHOLE
  // Where the prompt has opened the thoughts they have no opening tag and are always closed.
  std::string Write(const WorkedAnswer& worked) const;

  // What FormatReward asks of TAGS; nullopt for the other forms, which it cannot check.
  std::optional<FormatOptions> format() const;

 private:
  enum class Where { kWhole, kTags, kBoxed, kLastLine, kLastNumber };
  AnswerForm() = default;

  Where where_ = Where::kWhole;
  std::string think_tag_, answer_tag_;
  bool opens_thinking_ = false;
};

}  // namespace moebius
