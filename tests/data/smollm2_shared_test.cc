// The tokenizer and the chat template inside SmolLM2's GGUF file against golden texts and ids. Exists where
// launch/get_smollm2.sh has put the file.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "core/io/json.h"
#include "core/io/line_reader.h"
#include "data/chat_template.h"
#include "data/tokenizer/gguf_tokenizer.h"

namespace moebius {
namespace {

const std::string kGolden = MOEBIUS_SHARED_DIR "/golden/smollm2/";

std::vector<nlohmann::json> Lines(const std::string& path) {
  std::vector<nlohmann::json> lines;
  auto reader = LineReader::Open(path);
  EXPECT_TRUE(reader.ok()) << reader.status();
  std::string_view line;
  while (reader.ok() && reader->Next(&line).value_or(false)) lines.push_back(*ParseJson(line, path));
  return lines;
}

class SmolLm2 : public testing::Test {
 protected:
  void SetUp() override {
    const auto file = GgufFile::Open(MOEBIUS_SMOLLM2_GGUF);
    ASSERT_TRUE(file.ok()) << file.status();
    const auto files = TokenizerFilesFromGguf(*file);
    ASSERT_TRUE(files.ok()) << files.status();
    auto tokenizer = Tokenizer::FromJson(files->at("tokenizer.json"), "tokenizer.json");
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
    tokenizer_ = std::make_unique<Tokenizer>(*std::move(tokenizer));
    template_ = files->at("chat_template.jinja");
  }
  std::unique_ptr<Tokenizer> tokenizer_;
  std::string template_;
};

TEST_F(SmolLm2, TokenizerGivesGoldenIds) {
  const auto lines = Lines(kGolden + "score.jsonl");
  EXPECT_EQ(lines.size(), 6u);
  for (const auto& line : lines) {
    EXPECT_EQ(tokenizer_->Encode(line.at("text").get<std::string>()),
              line.at("ids").get<std::vector<int32_t>>());
  }
}

TEST_F(SmolLm2, ChatPromptsHaveGoldenIds) {
  const auto chat = RecognizeChatTemplate(template_, "chat_template.jinja");
  ASSERT_TRUE(chat.ok()) << chat.status();
  EXPECT_EQ(*chat, *ChatTemplateByName("smollm2"));
  const auto lines = Lines(kGolden + "greedy.jsonl");
  EXPECT_EQ(lines.size(), 6u);
  for (const auto& line : lines) {
    const auto encoded =
        EncodeChat(*tokenizer_, *chat, {{"user", line.at("question")}}, GenerationPrompt::kAdd);
    ASSERT_TRUE(encoded.ok()) << encoded.status();
    EXPECT_EQ(encoded->ids, line.at("prompt_ids").get<std::vector<int32_t>>());
  }
}

}  // namespace
}  // namespace moebius
