#include "data/conversations.h"

#include <gtest/gtest.h>
#include <zlib.h>

#include "core/base/status.h"
#include "tests/core/io/scratch.h"
#include "tests/data/small_tokenizer.h"

namespace moebius {
namespace {

constexpr int32_t kTurnStart = kFirstSpecialId, kTurnEnd = kFirstSpecialId + 1;

class ConversationsTest : public testing::Test {
 protected:
  absl::StatusOr<Conversations> Read(const std::string& text,
                                     ConversationOptions options = {.max_tokens = 1000}) {
    WriteRaw(scratch_.path("a.jsonl"), text);
    return ReadConversations(scratch_.path("a.jsonl"), options, encoder_);
  }

  const Tokenizer tokenizer_ = SmallTokenizer({"<|im_start|>", "<|im_end|>"});
  const ChatTemplate chat_ = *ChatTemplateByName("chatml");
  const ConversationEncoder encoder_ = [this](const std::vector<ChatMessage>& messages) {
    return EncodeChat(tokenizer_, chat_, messages, GenerationPrompt::kNone);
  };
  Scratch scratch_;
};

std::vector<int32_t> AnswerIds(const EncodedChat& chat) {
  std::vector<int32_t> ids;
  for (size_t i = 0; i < chat.ids.size(); ++i) {
    if (chat.is_answer[i]) ids.push_back(chat.ids[i]);
  }
  return ids;
}

TEST_F(ConversationsTest, BothFormsAndAllNamesOfAnAnswerAreRead) {
  const auto read =
      Read(R"({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]})"
           "\n\n"
           R"({"prompt": "q", "completion": "a", "id": 7})"
           "\n"
           R"({"prompt": "q", "response": "a"})"
           "\r\n \t\r\n"
           R"({"prompt": "q", "answer": "a"})");
  ASSERT_TRUE(read.ok()) << read.status();
  ASSERT_EQ(read->items.size(), 4u);
  for (const EncodedChat& item : read->items) {
    EXPECT_EQ(item.ids, read->items[0].ids);
    EXPECT_EQ(AnswerIds(item), (std::vector<int32_t>{'a', kTurnEnd}));
  }
  EXPECT_EQ(read->items[0].ids.front(), kTurnStart);
  EXPECT_EQ(read->cut + read->left_out, 0);
}

TEST_F(ConversationsTest, LongOnesAreLeftOutOrCutAndCounted) {
  // <|im_start|> "user" line end, one letter, <|im_end|> line end, <|im_start|> "assistant" line end: 20 ids.
  const std::string text = R"({"prompt": "q", "answer": "ab"})"
                           "\n"
                           R"({"prompt": "q", "answer": "abcdef"})"
                           "\n"
                           R"({"prompt": "qqqqqqqq", "answer": "a"})"
                           "\n";
  const auto left_out = Read(text, {.max_tokens = 24});
  ASSERT_TRUE(left_out.ok()) << left_out.status();
  ASSERT_EQ(left_out->items.size(), 1u);
  EXPECT_EQ(left_out->left_out, 2);
  EXPECT_EQ(left_out->cut, 0);
  // Of the third, nothing of the answer is within 24 ids.
  const auto cut = Read(text, {.max_tokens = 24, .too_long = TooLong::kCut});
  ASSERT_TRUE(cut.ok()) << cut.status();
  ASSERT_EQ(cut->items.size(), 2u);
  EXPECT_EQ(cut->cut, 1);
  EXPECT_EQ(cut->left_out, 1);
  EXPECT_EQ(cut->items[1].ids.size(), 24u);
  EXPECT_EQ(cut->items[1].is_answer.size(), 24u);
  EXPECT_EQ(AnswerIds(cut->items[1]), (std::vector<int32_t>{'a', 'b', 'c', 'd'}));
}

TEST_F(ConversationsTest, ErrorsNameFileAndLine) {
  struct Case {
    const char *line, *what;
  };
  for (const Case& c : std::vector<Case>{
           {"{", "line 2"},
           {"[1]", "is not an object"},
           {R"({"text": "x"})", "neither messages nor prompt and completion"},
           {R"({"prompt": "x"})", "neither messages nor prompt and completion"},
           {R"({"prompt": "x", "answer": "a", "response": "b"})", "response and answer"},
           {R"({"prompt": "x", "answer": 3})", "field \"answer\""},
           {R"({"prompt": "x", "answer": ""})", "message 2 is an empty answer"},
           {R"({"messages": "x"})", "field \"messages\""},
           {R"({"messages": []})", "no message"},
           {R"({"messages": [{"role": "user"}]})", "messages[0]: field \"content\""},
           {R"({"messages": ["x"]})", "messages[0] is string \"x\""},
           {R"({"messages": [{"role": "tool", "content": "x"}]})", "role \"tool\""},
           {R"({"messages": [{"role": "user", "content": "x"}], "tools": [{"a": 1}]})", "field \"tools\""},
           {R"({"messages": [{"role": "user", "content": "x"}], "system": "s"})", "field \"system\""},
           {R"({"prompt": "x", "answer": "a", "tools": [{"a": 1}]})", "field \"tools\""},
           {R"({"prompt": "x", "answer": "a", "weight": 0.5})", "\"weight\" is 0.5"},
           {R"({"prompt": "x", "answer": "a", "reasoning_content": "hm"})", "field \"reasoning_content\""},
           {R"({"messages": [{"role": "assistant", "content": "x"}], "weight": 0})", "\"weight\" is 0"},
           {R"({"messages": [{"role": "user", "content": "x"}], "prompt": "x", "response": "b"})",
            "response that say something else"},
           {R"({"messages": [{"role": "assistant", "content": "x", "tool_calls": [{}]}]})",
            "messages[0]: field \"tool_calls\""},
           {R"({"messages": [{"role": "assistant", "content": "x", "weight": 0}]})", "\"weight\" is 0"},
           {R"({"messages": [{"role": "user", "content": "x", "reasoning_content": "y"}]})",
            "only an assistant"},
           {R"({"messages": [{"role": "assistant", "content": "a</think>b", "reasoning_content": "y"}]})",
            "has its own"},
           {R"({"messages": [{"role": "assistant", "content": ""}]})", "message 1 is an empty answer"}}) {
    const auto read = Read(std::string(R"({"prompt": "q", "answer": "a"})") + "\n" + c.line + "\n");
    EXPECT_EQ(ExitCode(read.status()), kExitDamaged) << c.line;
    EXPECT_TRUE(Contains(read.status(), scratch_.path("a.jsonl") + " line 2")) << read.status();
    EXPECT_TRUE(Contains(read.status(), c.what)) << read.status();
  }
}

TEST_F(ConversationsTest, ASystemsWordsAndAnAnswersThoughtsAreRead) {
  const auto read = Read(
      R"({"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "q", "name": "Ada"},)"
      R"({"role": "assistant", "content": "a", "tool_calls": [], "weight": 1, "reasoning_content": null}]})"
      "\n"
      R"({"system": "s", "prompt": "q", "answer": "a", "tools": []})"
      "\n"
      R"({"system": "", "prompt": "q", "answer": "<think>\nt\n</think>\n\na"})"
      "\n"
      R"({"messages": [{"role": "user", "content": "q"},)"
      R"({"role": "assistant", "content": "a", "reasoning_content": "t"}], "answer": "of another kind"})");
  ASSERT_TRUE(read.ok()) << read.status();
  ASSERT_EQ(read->items.size(), 4u);
  EXPECT_EQ(read->items[0].ids, read->items[1].ids);
  EXPECT_EQ(read->items[2].ids, read->items[3].ids);
  EXPECT_NE(read->items[1].ids, read->items[2].ids);
}

// What tables write for columns that a line does not have, and what says the same twice.
TEST_F(ConversationsTest, EmptyColumnsAndTheSameInBothFormsAreRead) {
  const auto read = Read(
      R"({"messages": [{"role": "user", "content": "q", "weight": 0}, {"role": "assistant", "content": "a", )"
      R"("weight": null}], "tools": "[]", "system": null, "functions": false})"
      "\n"
      R"({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}], )"
      R"("prompt": "q", "completion": "a"})"
      "\n"
      R"({"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}, )"
      R"({"role": "assistant", "content": "a"}], "system": "s"})");
  ASSERT_TRUE(read.ok()) << read.status();
  ASSERT_EQ(read->items.size(), 3u);
  EXPECT_EQ(read->items[0].ids, read->items[1].ids);
}

// The recipe lacks something, and no line is damaged.
TEST_F(ConversationsTest, ErrorsOfTheEncoderKeepTheirCode) {
  WriteRaw(scratch_.path("a.jsonl"), R"({"prompt": "q", "answer": "a"})");
  const auto read = ReadConversations(scratch_.path("a.jsonl"), {.max_tokens = 9},
                                      [](const auto&) { return UsageError("choose a chat_template"); });
  EXPECT_EQ(ExitCode(read.status()), kExitUsage);
  EXPECT_TRUE(Contains(read.status(), "line 1")) << read.status();
}

TEST_F(ConversationsTest, NothingToReadIsAnError) {
  EXPECT_EQ(ExitCode(Read("\n \n").status()), kExitDamaged);
  const auto absent = ReadConversations(scratch_.path("b.jsonl"), {.max_tokens = 9}, encoder_);
  EXPECT_EQ(ExitCode(absent.status()), kExitMissing);
}

TEST_F(ConversationsTest, ReadsCompressedFilesOfAFolderInOrder) {
  WriteRaw(scratch_.path("b.jsonl"), R"({"prompt": "q", "answer": "b"})");
  const std::string first = R"({"prompt": "q", "answer": "a"})";
  const gzFile file = gzopen(scratch_.path("a.jsonl.gz").c_str(), "wb");
  ASSERT_EQ(gzwrite(file, first.data(), first.size()), static_cast<int>(first.size()));
  ASSERT_EQ(gzclose(file), Z_OK);
  const auto read = ReadConversations(scratch_.folder(), {.max_tokens = 100}, encoder_);
  ASSERT_TRUE(read.ok()) << read.status();
  ASSERT_EQ(read->items.size(), 2u);
  EXPECT_EQ(AnswerIds(read->items[0]), (std::vector<int32_t>{'a', kTurnEnd}));
  EXPECT_EQ(AnswerIds(read->items[1]), (std::vector<int32_t>{'b', kTurnEnd}));
}

}  // namespace
}  // namespace moebius
