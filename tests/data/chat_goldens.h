// Conversations with what Jinja renders of them: lines {"template", "messages", "add_generation_prompt",
// "text"}.
#pragma once

#include <string>
#include <vector>

#include "data/chat_template.h"

namespace moebius {

struct ChatGolden {
  std::string name;  // of the template, "" where the file is about one
  std::vector<ChatMessage> messages;
  GenerationPrompt prompt = GenerationPrompt::kNone;
  std::string text;
};

std::vector<ChatGolden> ReadChatGoldens(const std::string& path);
std::string RenderedText(const ChatTemplate& chat, const ChatGolden& golden);

}  // namespace moebius
