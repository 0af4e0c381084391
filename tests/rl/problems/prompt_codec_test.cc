#include "rl/problems/prompt_codec.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "core/base/status.h"
#include "data/tokenizer/byte_tokenizer.h"
#include "tests/core/io/scratch.h"

namespace moebius {
namespace {

constexpr int32_t kEnd = 256;

// Every marker of every template, so that one tokenizer serves all.
const std::vector<std::string>& Special() {
  static const auto& names = *new std::vector<std::string>{"<|endoftext|>",     "<|im_start|>",
                                                           "<|im_end|>",        "<think>",
                                                           "</think>",          "<answer>",
                                                           "</answer>",         "<|begin_of_text|>",
                                                           "<|eot_id|>",        "<|start_header_id|>",
                                                           "<|end_header_id|>", "<｜User｜>",
                                                           "<｜Assistant｜>",   "<｜begin▁of▁sentence｜>"};
  return names;
}

int32_t IdOf(const std::string& name) {
  for (size_t i = 0; i < Special().size(); ++i) {
    if (Special()[i] == name) return static_cast<int32_t>(256 + i);
  }
  return -1;
}

Tokenizer Bytes(std::vector<std::string> special = {"<|endoftext|>"}) {
  return *Tokenizer::FromJson(ByteTokenizerJson(special), "bytes");
}

// For DeepSeek's templates too: their end marker is found as the end of a document.
Tokenizer AllMarkers() {
  std::vector<std::string> special = Special();
  special.push_back("<｜end▁of▁sentence｜>");
  return Bytes(special);
}

std::vector<int32_t> Ids(const std::string& text) {
  std::vector<int32_t> ids;
  for (const char c : text) ids.push_back(static_cast<unsigned char>(c));
  return ids;
}

std::vector<int32_t> Joined(const std::vector<std::vector<int32_t>>& parts) {
  std::vector<int32_t> ids;
  for (const auto& part : parts) ids.insert(ids.end(), part.begin(), part.end());
  return ids;
}

// The ids that count as an answer.
std::vector<int32_t> AnswerIds(const EncodedChat& chat) {
  std::vector<int32_t> ids;
  for (size_t i = 0; i < chat.ids.size(); ++i) {
    if (chat.is_answer[i]) ids.push_back(chat.ids[i]);
  }
  return ids;
}

TEST(PromptCodec, PlainIsTheTextAndTheEndOfTheDocument) {
  const Tokenizer tokenizer = Bytes();
  const auto codec = PromptCodec::Create(tokenizer, {});
  ASSERT_TRUE(codec.ok()) << codec.status();
  EXPECT_EQ(*codec->Prompt({{"user", "1+1="}}), Ids("1+1="));
  const auto example = codec->Example({{"user", "1+1="}}, "2");
  ASSERT_TRUE(example.ok()) << example.status();
  EXPECT_EQ(example->ids, Joined({Ids("1+1=2"), {kEnd}}));
  EXPECT_EQ(AnswerIds(*example), Joined({Ids("2"), {kEnd}}));
  EXPECT_EQ(codec->stop_ids(), std::vector<int32_t>{kEnd});
  const auto more = PromptCodec::Create(tokenizer, {.stop_ids = {65, kEnd}});
  ASSERT_TRUE(more.ok()) << more.status();
  EXPECT_EQ(more->stop_ids(), (std::vector<int32_t>{65, kEnd}));
  EXPECT_EQ(more->AnswerText(Joined({Ids("2"), {65}, Ids("3")})), "2");
  EXPECT_EQ(codec->AnswerText(Joined({Ids("2"), {kEnd}, Ids("3")})), "2");
  EXPECT_EQ(codec->AnswerText(Ids("2")), "2");
  // A model may have more rows than the tokenizer has tokens: 1?3 is not 13.
  EXPECT_EQ(codec->AnswerText(Joined({Ids("1"), {5000}, Ids("3"), {6000}})), "1\uFFFD3\uFFFD");
}

TEST(PromptCodec, PromptsAreTheFirstIdsOfExamplesInEveryTemplate) {
  const Tokenizer tokenizer = AllMarkers();
  std::vector<std::string> names = ChatTemplateNames();
  names.push_back("plain");
  for (const std::string& name : names) {
    for (const std::string open : {"", "<think>", "<think>\n", "Answer:"}) {
      const auto chat = ChooseChatTemplate(name, "");
      ASSERT_TRUE(chat.ok()) << chat.status();
      const auto codec = PromptCodec::Create(tokenizer, {.chat = *chat, .open_answer = open});
      ASSERT_TRUE(codec.ok()) << codec.status();
      std::vector<std::vector<ChatMessage>> prompts = {{{"user", " a question\n"}}};
      if (*chat) {
        prompts.push_back({{"system", "s"}, {"user", "q"}});
        prompts.push_back({{"user", "q"}, {"assistant", "<think>t</think>b"}, {"user", "c"}});
        prompts.push_back({{"user", "<tool_response>1</tool_response>"}});
      }
      for (const auto& messages : prompts) {
        for (const std::string answer :
             {"x", "<think>y</think>z", "<think>\ny\n</think>\n\nz", " <answer>1</answer>"}) {
          const auto prompt = codec->Prompt(messages);
          ASSERT_TRUE(prompt.ok()) << prompt.status();
          const auto example = codec->Example(messages, answer);
          ASSERT_TRUE(example.ok()) << example.status();
          ASSERT_EQ(example->is_answer.size(), example->ids.size());
          ASSERT_GT(example->ids.size(), prompt->size());
          for (size_t i = 0; i < example->ids.size(); ++i) {
            ASSERT_EQ(example->is_answer[i], i >= prompt->size()) << name << " " << i;
            if (i < prompt->size()) {
              ASSERT_EQ(example->ids[i], (*prompt)[i]) << name << " " << i;
            }
          }
          const auto& stop = codec->stop_ids();
          EXPECT_NE(std::find(stop.begin(), stop.end(), example->ids.back()), stop.end()) << name;
        }
      }
    }
  }
}

TEST(PromptCodec, AnswersReadBackAsTheirText) {
  const Tokenizer tokenizer = AllMarkers();
  for (const char* name : {"plain", "chatml", "llama3", "deepseek-v3"}) {
    const auto codec = PromptCodec::Create(tokenizer, {.chat = *ChooseChatTemplate(name, "")});
    ASSERT_TRUE(codec.ok()) << codec.status();
    const auto example = codec->Example({{"user", "q"}}, "caf\u00e9 <|im_end|><answer>");
    ASSERT_TRUE(example.ok()) << example.status();
    EXPECT_EQ(codec->AnswerText(AnswerIds(*example)), "caf\u00e9 <|im_end|><answer>") << name;
  }
}

TEST(PromptCodec, OnlyTheNamedTokensOfAnswersAndOpeningsAreTokens) {
  const Tokenizer tokenizer = AllMarkers();
  const auto codec = PromptCodec::Create(tokenizer, {.chat = *ChatTemplateByName("chatml"),
                                                     .open_answer = "<think>",
                                                     .answer_tokens = {"</think>", "<answer>"}});
  ASSERT_TRUE(codec.ok()) << codec.status();
  const auto prompt = codec->Prompt({{"user", "</think><|im_end|>"}});
  ASSERT_TRUE(prompt.ok()) << prompt.status();
  EXPECT_EQ(*prompt, Joined({{IdOf("<|im_start|>")},
                             Ids("user\n</think><|im_end|>"),
                             {IdOf("<|im_end|>")},
                             Ids("\n"),
                             {IdOf("<|im_start|>")},
                             Ids("assistant\n"),
                             {IdOf("<think>")}}));
  // With or without the opening, which the prompt has.
  for (const std::string begin : {"", "<think>"}) {
    const auto example =
        codec->Example({{"user", "</think><|im_end|>"}}, begin + "a</think><answer>1</answer><|im_end|>");
    ASSERT_TRUE(example.ok()) << example.status();
    EXPECT_EQ(example->ids, Joined({*prompt,
                                    Ids("a"),
                                    {IdOf("</think>"), IdOf("<answer>")},
                                    Ids("1</answer><|im_end|>"),
                                    {IdOf("<|im_end|>")}}));
  }
  EXPECT_EQ(codec->AnswerText({{'a', IdOf("</think>"), IdOf("<answer>"), '1', IdOf("<|im_end|>")}}),
            "a</think><answer>1");
}

TEST(PromptCodec, ReasoningOfR1BeginsInThePrompt) {
  const Tokenizer tokenizer = AllMarkers();
  const auto codec = PromptCodec::Create(tokenizer, {.chat = *ChatTemplateByName("deepseek-r1")});
  ASSERT_TRUE(codec.ok()) << codec.status();
  const auto example = codec->Example({{"user", "q"}}, "t\n</think>\n\n4");
  ASSERT_TRUE(example.ok()) << example.status();
  EXPECT_EQ(
      AnswerIds(*example),
      Joined(
          {Ids("t\n"), {IdOf("</think>")}, Ids("\n\n4"), {*tokenizer.TokenToId("<｜end▁of▁sentence｜>")}}));
}

// The template takes thoughts out of earlier answers; those of the answer that is learnt stay.
TEST(PromptCodec, DeepSeekLearnsToThink) {
  const Tokenizer tokenizer = AllMarkers();
  const int32_t end = *tokenizer.TokenToId("<｜end▁of▁sentence｜>");
  const auto v3 = PromptCodec::Create(tokenizer, {.chat = *ChatTemplateByName("deepseek-v3")});
  const auto r1 = PromptCodec::Create(tokenizer, {.chat = *ChatTemplateByName("deepseek-r1")});
  ASSERT_TRUE(v3.ok() && r1.ok());
  const auto whole = v3->Example({{"user", "q"}}, "<think>\nt</think>4");
  ASSERT_TRUE(whole.ok()) << whole.status();
  EXPECT_EQ(AnswerIds(*whole), Joined({{IdOf("<think>")}, Ids("\nt"), {IdOf("</think>")}, Ids("4"), {end}}));
  // What the prompt has opened is not opened again, with the line's end or without.
  for (const char* opened : {"<think>\nt</think>4", "<think>t</think>4", "t</think>4"}) {
    const auto example = r1->Example({{"user", "q"}}, opened);
    ASSERT_TRUE(example.ok()) << example.status();
    EXPECT_EQ(AnswerIds(*example), Joined({Ids("t"), {IdOf("</think>")}, Ids("4"), {end}})) << opened;
  }
}

TEST(PromptCodec, ConversationsLearnEveryAnswer) {
  const Tokenizer tokenizer = AllMarkers();
  const auto codec = PromptCodec::Create(tokenizer, {.chat = *ChatTemplateByName("chatml")});
  ASSERT_TRUE(codec.ok()) << codec.status();
  const auto chat =
      codec->Conversation({{"user", "q"}, {"assistant", "a"}, {"user", "r"}, {"assistant", "b"}});
  ASSERT_TRUE(chat.ok()) << chat.status();
  const int32_t end = IdOf("<|im_end|>");
  EXPECT_EQ(AnswerIds(*chat), (std::vector<int32_t>{'a', end, 'b', end}));
  EXPECT_EQ(chat->ids.back(), end);
  const auto example = codec->Example({{"user", "q"}, {"assistant", "a"}, {"user", "r"}}, "b");
  ASSERT_TRUE(example.ok()) << example.status();
  EXPECT_EQ(example->ids, chat->ids);
  EXPECT_EQ(AnswerIds(*example), (std::vector<int32_t>{'b', end}));
}

TEST(PromptCodec, TextThatTheTokenizerWouldLoseIsRefused) {
  const auto tokenizer = MakeTokenizer("symbols:0123456789+=");
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  const auto codec = PromptCodec::Create(*tokenizer, {});
  ASSERT_TRUE(codec.ok()) << codec.status();
  EXPECT_TRUE(codec->Example({{"user", "1+1="}}, "2").ok());
  const auto prompt = codec->Prompt({{"user", "1 + 1="}});
  EXPECT_EQ(ExitCode(prompt.status()), kExitUsage);
  EXPECT_TRUE(Contains(prompt.status(), "no token for \" \" in \"1 + 1=\"")) << prompt.status();
  EXPECT_FALSE(codec->Example({{"user", "1+1="}}, "two").ok());
}

TEST(PromptCodec, RefusesConversationsOutOfOrder) {
  const Tokenizer tokenizer = AllMarkers();
  const auto plain = PromptCodec::Create(tokenizer, {});
  const auto chat = PromptCodec::Create(tokenizer, {.chat = *ChatTemplateByName("llama3")});
  ASSERT_TRUE(plain.ok() && chat.ok());
  EXPECT_FALSE(plain->Prompt({}).ok());
  EXPECT_FALSE(plain->Prompt({{"user", ""}}).ok());
  EXPECT_FALSE(plain->Prompt({{"system", "s"}, {"user", "q"}}).ok());
  EXPECT_FALSE(chat->Prompt({{"user", "q"}, {"assistant", "a"}}).ok());
  EXPECT_FALSE(chat->Prompt({{"tool", "x"}, {"user", "q"}}).ok());
  EXPECT_FALSE(chat->Conversation({{"user", "q"}}).ok());
  EXPECT_FALSE(chat->Conversation({{"assistant", "a"}}).ok());
  EXPECT_FALSE(chat->Conversation({}).ok());
  EXPECT_FALSE(plain->Example({{"user", "q"}}, "").ok());
  EXPECT_FALSE(plain->Conversation({{"user", ""}, {"assistant", "a"}}).ok());
  const auto thinks = PromptCodec::Create(tokenizer, {.chat = *ChatTemplateByName("qwen3")});
  ASSERT_TRUE(thinks.ok()) << thinks.status();
  EXPECT_FALSE(thinks->Example({{"user", "q"}}, "").ok()) << "Qwen3 writes an empty thought before it";
  EXPECT_FALSE(chat->Example({{"user", "q"}}, " \n").ok()) << "Llama 3 trims answers";
}

TEST(PromptCodec, NamesWhatTheTokenizerLacks) {
  const Tokenizer none = Bytes({"<x>"}), end = Bytes();
  EXPECT_TRUE(Contains(PromptCodec::Create(none, {}).status(), "no end-of-document token"));
  EXPECT_TRUE(Contains(PromptCodec::Create(end, {.chat = *ChatTemplateByName("chatml")}).status(),
                       "no token \"<|im_start|>\""));
  EXPECT_TRUE(Contains(PromptCodec::Create(end, {.chat = *ChatTemplateByName("chatml")}).status(),
                       "new_token: \"<|im_start|>\""));
  EXPECT_TRUE(Contains(PromptCodec::Create(none, {}).status(), "new_token: \"<|endoftext|>\""));
  EXPECT_TRUE(Contains(PromptCodec::Create(end, {.answer_tokens = {"<answer>"}}).status(),
                       "answer token \"<answer>\""));
}

TEST(ChooseChatTemplate, IsByNameOrOfTheFolderOrPlain) {
  const Scratch scratch;
  EXPECT_EQ(*ChooseChatTemplate("", ""), std::nullopt);
  EXPECT_EQ(*ChooseChatTemplate("", scratch.folder()), std::nullopt);
  WriteRaw(scratch.path("chat_template.jinja"), "<|im_start|>user\n<|im_end|>\n");
  EXPECT_EQ((*ChooseChatTemplate("", scratch.folder()))->family, ChatFamily::kChatMl);
  EXPECT_EQ(*ChooseChatTemplate("plain", scratch.folder()), std::nullopt);
  EXPECT_EQ(*ChooseChatTemplate("qwen3", scratch.folder()), *ChatTemplateByName("qwen3"));
  EXPECT_EQ(ExitCode(ChooseChatTemplate("no", "").status()), kExitUsage);
  WriteRaw(scratch.path("chat_template.jinja"), "unheard of");
  EXPECT_EQ(ExitCode(ChooseChatTemplate("", scratch.folder()).status()), kExitUsage);
}

}  // namespace
}  // namespace moebius
