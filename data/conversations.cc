#include "data/conversations.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/base/check.h"
#include "core/base/status.h"
#include "core/base/strings.h"
#include "core/io/json.h"
#include "core/io/line_reader.h"
#include "data/corpora/text_tree.h"
#include "data/message_lines.h"

namespace moebius {
namespace {

using nlohmann::json;

constexpr const char* kAnswerFields[] = {"completion", "response", "answer"};
constexpr const char* kForms =
    "a line is like {\"messages\": [{\"role\": \"user\", \"content\": \"...\"}, ...]} or {\"prompt\": "
    "\"...\", "
    "\"completion\": \"...\"}; correct the file";

absl::StatusOr<std::vector<ChatMessage>> MessagesOf(const json& object, const std::string& where) {
  std::vector<std::string> answers;
  for (const char* field : kAnswerFields) {
    if (HasJsonField(object, field)) answers.emplace_back(field);
  }
  if (HasJsonField(object, "messages")) {
    ASSIGN_OR_RETURN(std::vector<ChatMessage> messages, ReadMessages(object, where));
    // A line may say the same in both forms.
    const bool both = HasJsonField(object, "prompt") && !answers.empty();
    if (!both || object[answers[0]] == messages.back().content) return messages;
    return DamagedError(
        Concat(where, ": has messages, and prompt and ", answers[0], " that say something else; ", kForms));
  }
  if (!HasJsonField(object, "prompt") || answers.empty()) {
    return DamagedError(Concat(where, ": has neither messages nor prompt and completion; ", kForms));
  }
  if (answers.size() > 1) {
    return DamagedError(
        Concat(where, ": has ", Join(answers, " and "), "; only one of them can be the answer; ", kForms));
  }
  ASSIGN_OR_RETURN(std::vector<ChatMessage> messages, ReadPrompt(object, where));
  ASSIGN_OR_RETURN(std::string answer, GetString(object, answers[0], where));
  messages.push_back({"assistant", std::move(answer)});
  return messages;
}

absl::StatusOr<EncodedChat> EncodeLine(std::string_view line, const std::string& where,
                                       const ConversationEncoder& encode) {
  ASSIGN_OR_RETURN(const json object, ParseJson(line, where));
  if (!object.is_object()) {
    return DamagedError(Concat(where, ": ", DescribeJson(object), " is not an object; ", kForms));
  }
  ASSIGN_OR_RETURN(const std::vector<ChatMessage> messages, MessagesOf(object, where));
  for (size_t i = 0; i < messages.size(); ++i) {
    if (messages[i].role != "assistant" || !messages[i].content.empty()) continue;
    return DamagedError(Concat(where, ": message ", i + 1,
                               " is an empty answer; there is nothing to learn from it; leave the line out"));
  }
  absl::StatusOr<EncodedChat> encoded = encode(messages);
  RETURN_IF_ERROR(Annotate(encoded.status(), where));
  return encoded;
}

void Add(EncodedChat chat, const ConversationOptions& options, Conversations* out) {
  if (std::ssize(chat.ids) > options.max_tokens) {
    const auto end = chat.is_answer.begin() + options.max_tokens;
    if (options.too_long == TooLong::kLeaveOut || std::find(chat.is_answer.begin(), end, true) == end) {
      ++out->left_out;
      return;
    }
    chat.ids.resize(options.max_tokens);
    chat.is_answer.resize(options.max_tokens);
    ++out->cut;
  }
  out->items.push_back(std::move(chat));
}

}  // namespace

absl::StatusOr<Conversations> ReadConversations(const std::string& pattern,
                                                const ConversationOptions& options,
                                                const ConversationEncoder& encode) {
  CHECK_GE(options.max_tokens, 1);
  Conversations out;
  ASSIGN_OR_RETURN(const std::vector<std::string> files, ExpandFiles(pattern));
  for (const std::string& file : files) {
    ASSIGN_OR_RETURN(LineReader lines, LineReader::Open(file));
    while (true) {
      std::string_view line;
      ASSIGN_OR_RETURN(const bool more, lines.Next(&line));
      if (!more) break;
      if (IsBlank(line)) continue;
      ASSIGN_OR_RETURN(EncodedChat chat, EncodeLine(line, lines.Where(), encode));
      Add(std::move(chat), options, &out);
    }
  }
  if (out.items.empty() && out.left_out == 0)
    return DamagedError(Concat(pattern, ": has no conversation; every line is empty; ", kForms));
  return out;
}

}  // namespace moebius
