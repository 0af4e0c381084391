// Conversations as JSON lines have them, read in one way wherever they stand: to learn from, to prefer, to
// ask.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "data/chat_template.h"

namespace moebius {

// A line that says nothing, which all readers pass over.
bool IsBlankLine(std::string_view line);

// Of {"messages": [{"role": "user", "content": "..."}, ...]}: at least one, of the roles system, user and
// assistant. DamagedError naming `where` ("PATH line 12"), the message's number from 0 and the field. Their
// order is the reader's affair.
absl::StatusOr<std::vector<ChatMessage>> ReadMessages(const nlohmann::json& line, const std::string& where);

}  // namespace moebius
