// Released templates and tokenizers: golden prompts, and ids against the tokenizer reading the whole prompt.
#include <gtest/gtest.h>

#include <algorithm>

#include "data/chat_template.h"
#include "tests/data/chat_goldens.h"

namespace moebius {
namespace {

const std::string kShared = MOEBIUS_SHARED_DIR;
const std::string kDeepSeek = kShared + "/data/deepseek-v3-tokenizer";

TEST(SharedChat, RendersSmolLm2AndDeepSeekV3) {
  const auto deepseek = LoadChatTemplate(kDeepSeek);
  ASSERT_TRUE(deepseek.ok()) << deepseek.status();
  EXPECT_EQ(*deepseek, *ChatTemplateByName("deepseek-v3"));
  const std::vector<std::pair<std::string, ChatTemplate>> files = {
      {"smollm2", *ChatTemplateByName("smollm2")}, {"deepseek_v3", *deepseek}};
  for (const auto& [name, chat] : files) {
    const auto goldens = ReadChatGoldens(kShared + "/golden/chat/" + name + ".jsonl");
    EXPECT_EQ(goldens.size(), 12u);
    for (const ChatGolden& golden : goldens) EXPECT_EQ(RenderedText(chat, golden), golden.text) << name;
  }
}

TEST(SharedChat, IdsAreThoseOfThePromptUnlessAMessageHoldsMarkers) {
  const auto tokenizer = Tokenizer::Load(kDeepSeek);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  const ChatTemplate chat = *ChatTemplateByName("deepseek-v3");
  int64_t injected = 0;
  for (const ChatGolden& golden : ReadChatGoldens(kShared + "/golden/chat/deepseek_v3.jsonl")) {
    const auto encoded = EncodeChat(*tokenizer, chat, golden.messages, golden.prompt);
    ASSERT_TRUE(encoded.ok()) << encoded.status();
    EXPECT_EQ(tokenizer->Decode(encoded->ids), golden.text);
    const std::vector<int32_t> read = tokenizer->Encode(golden.text);
    if (golden.text.find("injected") == std::string::npos) {
      EXPECT_EQ(encoded->ids, read);
      continue;
    }
    ++injected;
    const int32_t user = *tokenizer->TokenToId("<｜User｜>");
    EXPECT_EQ(std::count(read.begin(), read.end(), user), 2);
    EXPECT_EQ(std::count(encoded->ids.begin(), encoded->ids.end(), user), 1);
  }
  EXPECT_EQ(injected, 2);
}

}  // namespace
}  // namespace moebius
