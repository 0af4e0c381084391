#include "data/message_lines.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/base/status.h"
#include "core/base/strings.h"
#include "core/io/json.h"

namespace moebius {

namespace {

// As tables write what a line does not have, a column of JSON in text included.
bool IsEmpty(const nlohmann::json& value) {
  return value.empty() || value == false || value == "" || value == "[]" || value == "{}" || value == "null";
}

// What would change the prompt or the answer, and is not rendered.
absl::Status RefuseFields(const nlohmann::json& object, std::initializer_list<const char*> fields,
                          const std::string& where, std::string_view why) {
  for (const char* field : fields) {
    if (object.contains(field) && !IsEmpty(object[field]))
      return DamagedError(Concat(where, ": field \"", field, "\" ", why));
  }
  return absl::OkStatus();
}

constexpr std::string_view kNoTools =
    "is of a conversation with tools, which no template here renders; leave the line out";

absl::Status CheckWeight(const nlohmann::json& object, const std::string& at) {
  if (!object.contains("weight") || IsEmpty(object["weight"]) || object["weight"] == 1)
    return absl::OkStatus();
  return DamagedError(Concat(at, ": field \"weight\" is ", object["weight"].dump(),
                             "; every answer counts 1; leave out what is not to be learnt"));
}

absl::Status ReadThoughts(const nlohmann::json& message, const std::string& at, std::string* content) {
  if (!message.contains("reasoning_content") || IsEmpty(message["reasoning_content"]))
    return absl::OkStatus();
  ASSIGN_OR_RETURN(const std::string thoughts, GetString(message, "reasoning_content", at));
  if (message["role"] != "assistant" || content->find("</think>") != content->npos) {
    return DamagedError(Concat(at, ": field \"reasoning_content\" has thoughts, but ",
                               message["role"] != "assistant" ? "only an assistant thinks"
                                                              : "\"content\" has its own before </think>",
                               "; correct the file"));
  }
  *content = Concat("<think>\n", thoughts, "\n</think>\n\n", *content);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<ChatMessage>> ReadPrompt(const nlohmann::json& line, const std::string& where) {
  RETURN_IF_ERROR(RefuseFields(line, {"tools", "functions"}, where, kNoTools));
  RETURN_IF_ERROR(
      RefuseFields(line, {"reasoning_content"}, where,
                   "stands beside the answer; write the thoughts into it, as <think>...</think>"));
  RETURN_IF_ERROR(CheckWeight(line, where));
  std::vector<ChatMessage> messages;
  if (line.contains("system") && !IsEmpty(line["system"])) {
    ASSIGN_OR_RETURN(std::string system, GetString(line, "system", where));
    messages.push_back({"system", std::move(system)});
  }
  ASSIGN_OR_RETURN(std::string prompt, GetString(line, "prompt", where));
  messages.push_back({"user", std::move(prompt)});
  return messages;
}

absl::StatusOr<std::vector<ChatMessage>> ReadMessages(const nlohmann::json& line, const std::string& where) {
  RETURN_IF_ERROR(RefuseFields(line, {"tools", "functions"}, where, kNoTools));
  RETURN_IF_ERROR(CheckWeight(line, where));
  ASSIGN_OR_RETURN(const nlohmann::json* list, GetArray(line, "messages", where));
  std::vector<ChatMessage> messages;
  for (const nlohmann::json& each : *list) {
    const std::string at = Concat(where, ": messages[", messages.size(), "]");
    if (!each.is_object())
      return DamagedError(Concat(at, " is ", DescribeJson(each), ", expected object; correct the file"));
    ChatMessage& message = messages.emplace_back();
    ASSIGN_OR_RETURN(message.role, GetString(each, "role", at));
    ASSIGN_OR_RETURN(message.content, GetString(each, "content", at));
    const std::vector<std::string> roles = {"system", "user", "assistant"};
    if (std::find(roles.begin(), roles.end(), message.role) == roles.end()) {
      return DamagedError(Concat(at, ": role \"", Printable(message.role), "\" is none of ", Join(roles),
                                 "; correct the file"));
    }
    RETURN_IF_ERROR(RefuseFields(each, {"tool_calls", "function_call"}, at, kNoTools));
    RETURN_IF_ERROR(ReadThoughts(each, at, &message.content));
    if (message.role == "assistant") RETURN_IF_ERROR(CheckWeight(each, at));
  }
  const bool says_system = line.contains("system") && !IsEmpty(line["system"]);
  const bool is_first = !messages.empty() && messages[0].role == "system" && line.contains("system") &&
                        line["system"] == messages[0].content;
  if (says_system && !is_first) {
    return DamagedError(Concat(where,
                               ": field \"system\" stands beside \"messages\" and is not the first of them; "
                               "a conversation has one; correct the file"));
  }
  if (messages.empty())
    return DamagedError(Concat(
        where, ": field \"messages\" has no message; a conversation has at least one; correct the file"));
  return messages;
}

}  // namespace moebius
