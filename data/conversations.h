// Conversations to learn answers from (supervised fine-tuning), read from JSONL into memory as ids, and
// packed into rows. How a conversation becomes ids is the caller's: rl/problems/prompt_codec.h.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "data/chat_template.h"

namespace moebius {

enum class TooLong {
  kLeaveOut,
  kCut,  // keep the first max_tokens ids, unless no answer is among them
};

struct ConversationOptions {
  int64_t max_tokens = 0;  // of a conversation, at least 1
  TooLong too_long = TooLong::kLeaveOut;
};

struct Conversations {
  std::vector<EncodedChat> items;  // in the order of files and lines
  // What max_tokens did; items.size() + left_out conversations were read.
  int64_t cut = 0, left_out = 0;
};

// Ids of messages that end with an assistant's answer (PromptCodec::Conversation).
using ConversationEncoder = std::function<absl::StatusOr<EncodedChat>(const std::vector<ChatMessage>&)>;

// Every line of the files that `pattern` names (ExpandFiles of data/corpora; .gz and .zst are unpacked) is an
// object with "messages": [{"role": "user", "content": "..."}, ...], or with "prompt" and one of
// "completion", "response" and "answer" (data/message_lines.h). Empty lines are passed over. DamagedErrors
// name file and line: not JSON, neither form, an empty answer; and files without a conversation. Errors of
// `encode` keep their code.
absl::StatusOr<Conversations> ReadConversations(const std::string& pattern,
                                                const ConversationOptions& options,
                                                const ConversationEncoder& encode);

}  // namespace moebius
