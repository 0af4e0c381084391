#include "rl/problems/answer_form.h"

#include <algorithm>
#include <cctype>

#include "core/base/status.h"
#include "core/base/strings.h"
#include "rl/math/extract.h"
#include "rl/problems/problems.pb.h"
#include "rl/reward/answer_text.h"

namespace moebius {
namespace {

constexpr size_t kNowhere = std::string_view::npos;

std::string Opening(const std::string& tag) { return Concat('<', tag, '>'); }
std::string Closing(const std::string& tag) { return Concat("</", tag, '>'); }

absl::Status CheckTag(std::string_view field, const std::string& tag) {
  const auto plain = [](unsigned char c) { return std::isalnum(c) || c == '_' || c == '-'; };
  if (std::all_of(tag.begin(), tag.end(), plain)) return absl::OkStatus();
  return UsageError(
      Concat("answer.", field, " is \"", Printable(tag),
             "\"; a tag's name has letters, digits, _ and - only; write \"think\" for <think>"));
}

}  // namespace

absl::StatusOr<AnswerForm> AnswerForm::Make(const proto::Answer& answer) {
  RETURN_IF_ERROR(CheckTag("think_tag", answer.think_tag()));
  RETURN_IF_ERROR(CheckTag("answer_tag", answer.answer_tag()));
  AnswerForm form;
  form.think_tag_ = answer.think_tag();
  form.answer_tag_ = answer.answer_tag();
  form.opens_thinking_ = answer.opens_thinking();
  switch (answer.where()) {
    case proto::Answer::WHOLE:
      form.where_ = Where::kWhole;
      break;
    case proto::Answer::TAGS:
      form.where_ = Where::kTags;
      break;
    case proto::Answer::BOXED:
      form.where_ = Where::kBoxed;
      break;
    case proto::Answer::LAST_LINE:
      form.where_ = Where::kLastLine;
      break;
    case proto::Answer::LAST_NUMBER:
      form.where_ = Where::kLastNumber;
      break;
  }
  if (form.where_ == Where::kTags && form.answer_tag_.empty())
    return UsageError("answer.answer_tag is empty; answer.where is TAGS; name the tag, \"answer\"");
  if (form.where_ == Where::kTags && form.answer_tag_ == form.think_tag_)
    return UsageError(Concat("answer.answer_tag and answer.think_tag are both \"", form.answer_tag_,
                             "\"; thoughts and answer could not be told apart; change one"));
  if (form.opens_thinking_ && form.think_tag_.empty())
    return UsageError("answer.opens_thinking is true and answer.think_tag empty; name the tag, \"think\"");
  return form;
}

std::optional<std::string> AnswerForm::Extract(std::string_view text) const {
  std::optional<Found> found = Find(text);
  if (!found) return std::nullopt;
  return std::move(found->answer);
}

std::optional<AnswerForm::Found> AnswerForm::Find(std::string_view text) const {
  if (!think_tag_.empty()) {
    const std::string open = Opening(think_tag_), close = Closing(think_tag_);
    const size_t closed = text.rfind(close);
    if (closed != kNowhere)
      text.remove_prefix(closed + close.size());
    else if (opens_thinking_)
      return std::nullopt;
    if (text.find(open) != kNowhere) return std::nullopt;
  }
  Found found;
  switch (where_) {
    case Where::kWhole:
      found.where = Trimmed(text);
      break;
    case Where::kTags: {
      const std::string open = Opening(answer_tag_), close = Closing(answer_tag_);
      const size_t closed = text.rfind(close);
      if (closed == kNowhere) return std::nullopt;
      const size_t opened = text.substr(0, closed).rfind(open);
      if (opened == kNowhere) return std::nullopt;
      found.where = Trimmed(text.substr(opened + open.size(), closed - opened - open.size()));
      break;
    }
    case Where::kBoxed: {
      const math::Extracted box = math::ExtractBox(text);
      if (!box.found) return std::nullopt;
      found.answer = Trimmed(box.answer);
      const std::string inside = Concat('{', box.answer, '}');
      if (const size_t at = text.rfind(inside); at != kNowhere)
        found.where = Trimmed(text.substr(at + 1, box.answer.size()));
      break;
    }
    case Where::kLastLine:
      text = Trimmed(text);
      found.where = Trimmed(text.substr(text.rfind('\n') + 1));
      break;
    case Where::kLastNumber:
      found.answer = LastNumber(text).value_or("");
      if (const size_t at = text.rfind(found.answer); at != kNowhere)
        found.where = text.substr(at, found.answer.size());
      break;
  }
  if (found.answer.empty()) found.answer = found.where;
  if (found.answer.empty()) return std::nullopt;
  return found;
}

std::string AnswerForm::Write(const WorkedAnswer& worked) const {
  const bool tagged =
      opens_thinking_ || where_ == Where::kTags || (where_ != Where::kLastLine && !worked.thoughts.empty());
  std::string text;
  if (tagged && !think_tag_.empty())
    text = Concat(opens_thinking_ ? "" : Opening(think_tag_), worked.thoughts, Closing(think_tag_));
  else if (where_ == Where::kLastLine)
    text = worked.thoughts;
  switch (where_) {
    case Where::kWhole:
    case Where::kLastNumber:
      return text + worked.answer;
    case Where::kTags:
      return Concat(text, Opening(answer_tag_), worked.answer, Closing(answer_tag_));
    case Where::kBoxed:
      return Concat(text, "\\boxed{", worked.answer, '}');
    case Where::kLastLine:
      return Concat(text, text.empty() ? "" : "\n", worked.answer);
  }
  return text;
}

std::optional<FormatOptions> AnswerForm::format() const {
  if (where_ != Where::kTags || think_tag_.empty()) return std::nullopt;
  return FormatOptions{.think_tag = think_tag_, .answer_tag = answer_tag_, .think_opened = opens_thinking_};
}

}  // namespace moebius
