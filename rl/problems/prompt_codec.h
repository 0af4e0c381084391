// Problems and answers as token ids, one way for supervised and reinforcement training and for evaluation: a
// prompt's ids are exactly the first ids of each example with that prompt.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "data/chat_template.h"
#include "data/tokenizer/added_tokens.h"
#include "data/tokenizer/tokenizer.h"

namespace moebius {

// What a recipe's `chat_template` says: "plain" (none); a name of ChatTemplateNames; or "", the template of
// the model in `folder` (LoadChatTemplate), and none where it has none or `folder` is "".
absl::StatusOr<std::optional<ChatTemplate>> ChooseChatTemplate(const std::string& name,
                                                               const std::string& folder);

struct PromptCodecOptions {
  // Without a template (plain) a prompt is the text of its only message, after what the tokenizer puts before
  // every text, and an answer ends with the end-of-document token.
  std::optional<ChatTemplate> chat = std::nullopt;
  // Text that every prompt ends with, so that every answer begins with it: "<think>". Added tokens in it are
  // tokens.
  std::string open_answer = {};
  // Added tokens that may stand in an answer as what they are: {"</think>", "<answer>"}. All others are text
  // there, as all are in messages.
  std::vector<std::string> answer_tokens = {};
  // Further ids that end an answer: those of a model folder's generation_config.json. Below the vocabulary.
  std::vector<int32_t> stop_ids = {};
};

class PromptCodec {
 public:
  // `tokenizer` must live as long. UsageError naming what the tokenizer lacks: a marker of the template, an
  // answer token, or (plain) an end-of-document token.
  static absl::StatusOr<PromptCodec> Create(const Tokenizer& tokenizer, PromptCodecOptions options);

  // The functions below are DamagedErrors for messages that are out of order and for an empty prompt or
  // answer; UsageErrors for several messages without a template, and for text with a byte that the tokenizer
  // has no token for.

  // Ids up to where the answer begins. The last message is the user's.
  absl::StatusOr<std::vector<int32_t>> Prompt(const std::vector<ChatMessage>& messages) const;
  // Prompt(messages), then the answer (which may or may not begin with the opening that prompts end with) and
  // its end marker. `is_answer` is set for these two and only these.
  absl::StatusOr<EncodedChat> Example(const std::vector<ChatMessage>& messages,
                                      std::string_view answer) const;
  // The ids of Example for a conversation that ends with an assistant's answer; earlier answers are set in
  // `is_answer` too.
  absl::StatusOr<EncodedChat> Conversation(const std::vector<ChatMessage>& messages) const;

  // End an answer, ascending: the template's end marker, the end-of-document token and the options' stop_ids.
  const std::vector<int32_t>& stop_ids() const { return stop_ids_; }
  // What every prompt ends with for the answer to go on from: "<think>\n" in templates that open thoughts.
  const std::string& opening() const { return opening_; }
  // The text of sampled ids up to the first stop id, other special tokens included, without the
  // opening. Bytes that are not UTF-8, and ids that no token has (models may have more rows), are U+FFFD.
  std::string AnswerText(std::span<const int32_t> ids) const;

 private:
  PromptCodec(const Tokenizer& tokenizer, PromptCodecOptions options);
  absl::Status FindMarkers();
  absl::StatusOr<std::vector<ChatSegment>> PromptSegments(const std::vector<ChatMessage>& messages) const;
  absl::StatusOr<std::vector<ChatSegment>> AnswerSegments(const std::vector<ChatMessage>& messages) const;
  absl::StatusOr<EncodedChat> Encode(const std::vector<ChatSegment>& segments) const;

  const Tokenizer* tokenizer_;
  PromptCodecOptions options_;
  AddedTokenMatcher opening_tokens_, answer_tokens_;
  // The part of an answer that prompts end with: open_answer, after "<think>\n" for templates that open the
  // reasoning.
  std::string opening_;
  std::string end_marker_;
  std::vector<int32_t> stop_ids_;
};

}  // namespace moebius
