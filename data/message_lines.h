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

// DamagedErrors of both functions name `where` ("PATH line 12"), the message's number from 0 and the field:
// also for fields that would change what is rendered, and that nothing here renders (tools, tool_calls, a
// weight other than 1). Others are passed over.

// Of {"messages": [{"role": "user", "content": "..."}, ...]}: at least one, of the roles system, user and
// assistant. "reasoning_content" of an answer stands before its content in <think> and </think>. Their order
// is the reader's affair.
absl::StatusOr<std::vector<ChatMessage>> ReadMessages(const nlohmann::json& line, const std::string& where);

// Of {"prompt": "..."}, with or without "system": the user's message, behind the system's.
absl::StatusOr<std::vector<ChatMessage>> ReadPrompt(const nlohmann::json& line, const std::string& where);

}  // namespace moebius
