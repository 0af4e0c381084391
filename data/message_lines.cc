#include "data/message_lines.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/base/status.h"
#include "core/base/strings.h"
#include "core/io/json.h"

namespace moebius {

bool IsBlankLine(std::string_view line) { return line.find_first_not_of(" \t\r") == std::string_view::npos; }

absl::StatusOr<std::vector<ChatMessage>> ReadMessages(const nlohmann::json& line, const std::string& where) {
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
  }
  if (messages.empty())
    return DamagedError(Concat(
        where, ": field \"messages\" has no message; a conversation has at least one; correct the file"));
  return messages;
}

}  // namespace moebius
