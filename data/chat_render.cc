// How each family writes a conversation; chat_template.h is its header.
#include <algorithm>

#include "core/base/strings.h"
#include "data/chat_template.h"

namespace moebius {
namespace {

class Prompt {
 public:
  Prompt& Marker(std::string text) { return Add({std::move(text), true, answer_}); }
  Prompt& Text(std::string text) { return Add({std::move(text), false, answer_}); }
  // What follows is, or is not, part of an assistant's answer.
  Prompt& Answer(bool on) {
    answer_ = on;
    return *this;
  }
  std::vector<ChatSegment> Take() { return std::move(segments_); }

 private:
  Prompt& Add(ChatSegment segment) {
    if (!segment.text.empty()) segments_.push_back(std::move(segment));
    return *this;
  }

  std::vector<ChatSegment> segments_;
  bool answer_ = false;
};

bool IsAssistant(const ChatMessage& message) { return message.role == "assistant"; }

// What Python's str.strip takes for white space.
bool IsPythonSpace(char32_t c) {
  return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
         c == 0x3000;
}

// Bytes of the UTF-8 character at the start of `text` if it is white space, else 0. No white space has more
// than three.
size_t LeadingSpace(std::string_view text) {
  const auto byte = [&](size_t i) { return i < text.size() ? static_cast<unsigned char>(text[i]) : 0; };
  if (byte(0) < 0x80) return !text.empty() && IsPythonSpace(byte(0)) ? 1 : 0;
  if (byte(0) < 0xE0) return IsPythonSpace((byte(0) & 0x1F) << 6 | (byte(1) & 0x3F)) ? 2 : 0;
  return IsPythonSpace((byte(0) & 0x0F) << 12 | (byte(1) & 0x3F) << 6 | (byte(2) & 0x3F)) && byte(0) < 0xF0
             ? 3
             : 0;
}

// Jinja's trim.
std::string Trim(std::string_view text) {
  while (const size_t bytes = LeadingSpace(text)) text.remove_prefix(bytes);
  for (;;) {
    size_t start = text.size();
    while (start > 0 && (text[start - 1] & 0xC0) == 0x80) --start;
    if (start > 0) --start;
    const size_t bytes = LeadingSpace(text.substr(start));
    if (bytes == 0 || start + bytes != text.size()) return std::string(text);
    text.remove_suffix(bytes);
  }
}

std::string_view WithoutLineEnds(std::string_view text) {
  text.remove_prefix(std::min(text.find_first_not_of('\n'), text.size()));
  return text.substr(0, text.find_last_not_of('\n') + 1);
}

std::string_view After(std::string_view text, std::string_view mark) {
  const size_t at = text.rfind(mark);
  return at == std::string_view::npos ? text : text.substr(at + mark.size());
}

void OpenChatMl(Prompt& out, const std::string& role) { out.Marker("<|im_start|>").Text(role + "\n"); }

void CloseChatMl(Prompt& out) { out.Marker("<|im_end|>").Answer(false).Text("\n"); }

void RenderChatMl(const ChatTemplate& chat, const std::vector<ChatMessage>& messages, Prompt& out) {
  if (!chat.default_system.empty() && messages.front().role != "system") {
    OpenChatMl(out, "system");
    out.Text(chat.default_system);
    CloseChatMl(out);
  }
  for (const ChatMessage& message : messages) {
    OpenChatMl(out, message.role);
    out.Answer(IsAssistant(message)).Text(message.content);
    CloseChatMl(out);
  }
}

// The last message of a user that is no tool's answer in disguise; the last message if there is none.
size_t LastQuery(const std::vector<ChatMessage>& messages) {
  for (size_t i = messages.size(); i-- > 0;) {
    const std::string& text = messages[i].content;
    const bool tool = text.starts_with("<tool_response>") && text.ends_with("</tool_response>");
    if (messages[i].role == "user" && !tool) return i;
  }
  return messages.size() - 1;
}

void RenderQwen3(const std::vector<ChatMessage>& messages, Prompt& out) {
  const size_t last_query = LastQuery(messages);
  for (size_t i = 0; i < messages.size(); ++i) {
    const ChatMessage& message = messages[i];
    OpenChatMl(out, message.role);
    if (!IsAssistant(message)) {
      out.Text(message.content);
      CloseChatMl(out);
      continue;
    }
    out.Answer(true);
    std::string_view content = message.content, reasoning;
    if (const size_t end = content.find("</think>"); end != std::string_view::npos) {
      reasoning = WithoutLineEnds(After(content.substr(0, end), "<think>"));
      content = After(content, "</think>");
      content.remove_prefix(std::min(content.find_first_not_of('\n'), content.size()));
    }
    if (i > last_query && (i + 1 == messages.size() || !reasoning.empty())) {
      content.remove_prefix(std::min(content.find_first_not_of('\n'), content.size()));
      out.Marker("<think>").Text(Concat("\n", reasoning, "\n")).Marker("</think>").Text("\n\n");
    }
    out.Text(std::string(content));
    CloseChatMl(out);
  }
}

void OpenLlama3(Prompt& out, const std::string& role) {
  out.Marker("<|start_header_id|>").Text(role).Marker("<|end_header_id|>").Text("\n\n");
}

void RenderLlama3(const ChatTemplate& chat, const std::vector<ChatMessage>& messages, Prompt& out) {
  out.Marker("<|begin_of_text|>");
  size_t first = 0;
  if (!chat.system_preface.empty()) {
    OpenLlama3(out, "system");
    out.Text(chat.system_preface);
    if (messages.front().role == "system") out.Text(Trim(messages[first++].content));
    out.Marker("<|eot_id|>");
  }
  for (size_t i = first; i < messages.size(); ++i) {
    OpenLlama3(out, messages[i].role);
    out.Answer(IsAssistant(messages[i])).Text(Trim(messages[i].content)).Marker("<|eot_id|>").Answer(false);
  }
}

void RenderDeepSeek(const std::vector<ChatMessage>& messages, Prompt& out) {
  out.Marker("<｜begin▁of▁sentence｜>");
  bool first = true;
  for (const ChatMessage& message : messages) {
    if (message.role != "system") continue;
    out.Text(first ? message.content : "\n\n" + message.content);
    first = false;
  }
  for (const ChatMessage& message : messages) {
    if (message.role == "user") out.Marker("<｜User｜>").Text(message.content);
    if (!IsAssistant(message)) continue;
    out.Marker("<｜Assistant｜>").Answer(true).Text(std::string(After(message.content, "</think>")));
    out.Marker("<｜end▁of▁sentence｜>").Answer(false);
  }
}

void RenderGenerationPrompt(const ChatTemplate& chat, Prompt& out) {
  switch (chat.family) {
    case ChatFamily::kChatMl:
    case ChatFamily::kQwen3:
      return OpenChatMl(out, "assistant");
    case ChatFamily::kLlama3:
      return OpenLlama3(out, "assistant");
    case ChatFamily::kDeepSeek:
      out.Marker("<｜Assistant｜>");
      if (chat.opens_thinking) out.Marker("<think>").Text("\n");
      return;
  }
}

}  // namespace

absl::StatusOr<std::vector<ChatSegment>> RenderChat(const ChatTemplate& chat,
                                                    const std::vector<ChatMessage>& messages,
                                                    GenerationPrompt prompt) {
  if (messages.empty())
    return UsageError(
        "the conversation has no message; there is nothing to answer; give one message or more");
  for (size_t i = 0; i < messages.size(); ++i) {
    const std::string& role = messages[i].role;
    if (role == "system" || role == "user" || role == "assistant") continue;
    return UsageError(Concat("message ", i + 1, ": role \"", Printable(role),
                             "\" is not supported; it must be system, user or assistant; leave tools out"));
  }
  Prompt out;
  switch (chat.family) {
    case ChatFamily::kChatMl:
      RenderChatMl(chat, messages, out);
      break;
    case ChatFamily::kQwen3:
      RenderQwen3(messages, out);
      break;
    case ChatFamily::kLlama3:
      RenderLlama3(chat, messages, out);
      break;
    case ChatFamily::kDeepSeek:
      RenderDeepSeek(messages, out);
      break;
  }
  if (prompt == GenerationPrompt::kAdd) RenderGenerationPrompt(chat, out);
  return out.Take();
}

}  // namespace moebius
