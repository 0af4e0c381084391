#include "tests/data/chat_goldens.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "core/io/json.h"
#include "core/io/line_reader.h"

namespace moebius {

std::vector<ChatGolden> ReadChatGoldens(const std::string& path) {
  std::vector<ChatGolden> goldens;
  absl::StatusOr<LineReader> reader = LineReader::Open(path);
  EXPECT_TRUE(reader.ok()) << reader.status();
  if (!reader.ok()) return goldens;
  std::string_view line;
  for (;;) {
    const absl::StatusOr<bool> more = reader->Next(&line);
    EXPECT_TRUE(more.ok()) << more.status();
    if (!more.ok() || !*more) return goldens;
    const absl::StatusOr<nlohmann::json> json = ParseJson(line, reader->Where());
    EXPECT_TRUE(json.ok()) << json.status();
    if (!json.ok()) return goldens;
    ChatGolden golden;
    golden.name = json->value("template", "");
    for (const auto& message : json->at("messages")) {
      golden.messages.push_back({message.at("role"), message.at("content")});
    }
    golden.prompt = json->at("add_generation_prompt") ? GenerationPrompt::kAdd : GenerationPrompt::kNone;
    golden.text = json->at("text");
    goldens.push_back(std::move(golden));
  }
}

std::string RenderedText(const ChatTemplate& chat, const ChatGolden& golden) {
  const auto segments = RenderChat(chat, golden.messages, golden.prompt);
  EXPECT_TRUE(segments.ok()) << segments.status();
  return segments.ok() ? ChatText(*segments) : "";
}

}  // namespace moebius
