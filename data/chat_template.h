// Conversations as prompts, in the chat templates of known model families (rendered by our own code: a
// template in Jinja is only recognised). Only the template's own markers become special tokens; the same
// characters in a message stay text.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/base/status.h"
#include "data/tokenizer/tokenizer.h"

namespace moebius {

enum class ChatFamily {
  kChatMl,    // <|im_start|>role ... <|im_end|>: SmolLM2, Qwen2.5
  kQwen3,     // the same, with the reasoning of answers after the last question only
  kLlama3,    // <|start_header_id|>role<|end_header_id|> ... <|eot_id|>
  kDeepSeek,  // <｜User｜> ... <｜Assistant｜> ... <｜end▁of▁sentence｜>: V3, R1
};

struct ChatTemplate {
  ChatFamily family = ChatFamily::kChatMl;
  std::string default_system = {};  // ChatML: of a conversation that has no system message; "": none
  std::string system_preface = {};  // Llama 3.1: before the text of a system message that is always there
  bool opens_thinking = false;      // R1: the generation prompt begins the reasoning

  bool operator==(const ChatTemplate&) const = default;
};

// "chatml", "smollm2", "qwen2.5", "qwen3", "llama3", "llama3.1" (its fixed date, 26 Jul 2024), "deepseek-v3",
// "deepseek-r1".
std::vector<std::string> ChatTemplateNames();
// The name of one of them; "" for one that differs from all, in its default system message for example.
std::string NameOf(const ChatTemplate& chat);
// UsageError listing the names for one that is not among them.
absl::StatusOr<ChatTemplate> ChatTemplateByName(const std::string& name);
// The template that a Jinja text is, by its markers and by all that it says: one that says anything else (a
// role, a system prompt of another place) or leaves out a line end is another. UsageError naming what; it
// says to choose one by name. `source` is for messages.
absl::StatusOr<ChatTemplate> RecognizeChatTemplate(const std::string& text, const std::string& source);
// Of a model folder: chat_template.jinja, else the chat_template of tokenizer_config.json. MissingError when
// there is neither.
absl::StatusOr<ChatTemplate> LoadChatTemplate(const std::string& folder);

// A Jinja text of our own that renders what RenderChat does (tools left out), for a checkpoint's
// chat_template.jinja. RecognizeChatTemplate takes it for the same template.
std::string ChatTemplateJinja(const ChatTemplate& chat);

struct ChatMessage {
  std::string role;  // "system", "user" or "assistant"
  std::string content;
};

enum class GenerationPrompt { kNone, kAdd };  // kAdd: ends where the next answer begins

// A piece of a prompt. Pieces of text that follow each other are tokenised as one text, as Hugging Face does,
// save that an answer begins with a token of its own: so a prompt's ids are the first ids of the conversation
// that goes on with the answer.
struct ChatSegment {
  std::string text;
  bool is_marker = false;  // one of the template's special tokens
  bool is_answer = false;  // of an assistant's answer, the marker that ends it included
};

// UsageError for no message at all or another role.
absl::StatusOr<std::vector<ChatSegment>> RenderChat(const ChatTemplate& chat,
                                                    const std::vector<ChatMessage>& messages,
                                                    GenerationPrompt prompt);
// The segments put together: what the released template renders.
std::string ChatText(const std::vector<ChatSegment>& segments);

struct EncodedChat {
  std::vector<int32_t> ids;
  std::vector<bool> is_answer;  // [ids] the ids that an SFT loss counts
};

// Appends the ids of the segments: markers as the tokens of that name, text as text whatever stands in it.
// UsageError naming a marker that the tokenizer does not have.
absl::Status EncodeSegments(const Tokenizer& tokenizer, const std::vector<ChatSegment>& segments,
                            EncodedChat* out);

// RenderChat as ids. UsageError naming a marker that the tokenizer does not have.
absl::StatusOr<EncodedChat> EncodeChat(const Tokenizer& tokenizer, const ChatTemplate& chat,
                                       const std::vector<ChatMessage>& messages, GenerationPrompt prompt);

}  // namespace moebius
