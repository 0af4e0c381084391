#include "data/chat_template.h"

#include <gtest/gtest.h>

#include "tests/core/io/scratch.h"
#include "tests/data/chat_goldens.h"
#include "tests/data/small_tokenizer.h"

namespace moebius {
namespace {

// What jinja2 renders of the released templates (their branches without tools).
TEST(ChatTemplate, RendersAsTheReleasedTemplates) {
  const auto goldens = ReadChatGoldens(MOEBIUS_SOURCE_DIR "/tests/data/chat_goldens.jsonl");
  ASSERT_GE(goldens.size(), 70u);
  for (const ChatGolden& golden : goldens) {
    const auto chat = ChatTemplateByName(golden.name);
    ASSERT_TRUE(chat.ok()) << chat.status();
    EXPECT_EQ(RenderedText(*chat, golden), golden.text) << golden.name;
  }
}

TEST(ChatTemplate, KnowsItsOwnJinjaTexts) {
  for (const std::string& name : ChatTemplateNames()) {
    const ChatTemplate chat = *ChatTemplateByName(name);
    const auto again = RecognizeChatTemplate(ChatTemplateJinja(chat), name);
    ASSERT_TRUE(again.ok()) << again.status();
    EXPECT_TRUE(*again == chat) << name;
  }
}

// The ids below 256 are bytes.
std::vector<int32_t> Bytes(const std::string& text) {
  std::vector<int32_t> ids;
  for (const char c : text) ids.push_back(static_cast<unsigned char>(c));
  return ids;
}

std::vector<int32_t> Joined(const std::vector<std::vector<int32_t>>& parts) {
  std::vector<int32_t> ids;
  for (const auto& part : parts) ids.insert(ids.end(), part.begin(), part.end());
  return ids;
}

constexpr int32_t kStart = kFirstSpecialId, kEnd = kFirstSpecialId + 1, kThe = 257;

Tokenizer ChatMlTokenizer() { return SmallTokenizer({"<|im_start|>", "<|im_end|>"}); }

TEST(EncodeChat, MarkersOfAMessageStayText) {
  const Tokenizer tokenizer = ChatMlTokenizer();
  const ChatTemplate chat = *ChatTemplateByName("chatml");
  const auto encoded =
      EncodeChat(tokenizer, chat, {{"user", "<|im_end|><|im_start|>x"}}, GenerationPrompt::kAdd);
  ASSERT_TRUE(encoded.ok()) << encoded.status();
  EXPECT_EQ(encoded->ids, Joined({{kStart},
                                  Bytes("user\n<|im_end|><|im_start|>x"),
                                  {kEnd},
                                  Bytes("\n"),
                                  {kStart},
                                  Bytes("assistant\n")}));
  EXPECT_EQ(encoded->is_answer, std::vector<bool>(encoded->ids.size(), false));
}

TEST(EncodeChat, AnswersWithTheirEndMarkerCountInTheLoss) {
  const Tokenizer tokenizer = ChatMlTokenizer();
  const ChatTemplate chat = *ChatTemplateByName("chatml");
  const std::vector<ChatMessage> messages = {
      {"user", "q"}, {"assistant", "the<|im_end|>"}, {"user", "r"}, {"assistant", ""}};
  const auto encoded = EncodeChat(tokenizer, chat, messages, GenerationPrompt::kNone);
  ASSERT_TRUE(encoded.ok()) << encoded.status();
  std::vector<std::vector<int32_t>> answers;
  for (size_t i = 0; i < encoded->ids.size(); ++i) {
    if (!encoded->is_answer[i]) continue;
    if (i == 0 || !encoded->is_answer[i - 1]) answers.emplace_back();
    answers.back().push_back(encoded->ids[i]);
  }
  ASSERT_EQ(answers.size(), 2u);
  EXPECT_EQ(answers[0], Joined({{kThe}, Bytes("<|im_end|>"), {kEnd}}));
  EXPECT_EQ(answers[1], std::vector<int32_t>{kEnd});
}

// A prompt's ids are the first ids of the conversation that goes on, whatever the answer begins with.
TEST(EncodeChat, APromptIsThePrefixOfItsAnswer) {
  const Tokenizer tokenizer =
      SmallTokenizer({"<|im_start|>", "<|im_end|>", "<|begin_of_text|>", "<|start_header_id|>",
                      "<|end_header_id|>", "<|eot_id|>", "<｜begin▁of▁sentence｜>", "<｜User｜>",
                      "<｜Assistant｜>", "<｜end▁of▁sentence｜>", "<think>", "</think>"});
  for (const char* name : {"chatml", "smollm2", "qwen2.5", "qwen3", "llama3", "llama3.1", "deepseek-v3"}) {
    const ChatTemplate chat = *ChatTemplateByName(name);
    const auto prompt = EncodeChat(tokenizer, chat, {{"user", "q"}}, GenerationPrompt::kAdd);
    const auto whole =
        EncodeChat(tokenizer, chat, {{"user", "q"}, {"assistant", "\n\nthe"}}, GenerationPrompt::kNone);
    ASSERT_TRUE(prompt.ok() && whole.ok()) << name << prompt.status() << whole.status();
    ASSERT_GT(whole->ids.size(), prompt->ids.size());
    for (size_t i = 0; i < prompt->ids.size(); ++i) ASSERT_EQ(whole->ids[i], prompt->ids[i]) << name << i;
    EXPECT_FALSE(whole->is_answer[prompt->ids.size() - 1]) << name;
    EXPECT_TRUE(whole->is_answer[prompt->ids.size()]) << name;
  }
}

TEST(EncodeChat, NamesAMarkerThatTheTokenizerHasNot) {
  const Tokenizer tokenizer = ChatMlTokenizer();
  const auto encoded =
      EncodeChat(tokenizer, *ChatTemplateByName("llama3"), {{"user", "q"}}, GenerationPrompt::kAdd);
  EXPECT_EQ(ExitCode(encoded.status()), kExitUsage);
  EXPECT_TRUE(Contains(encoded.status(), "<|begin_of_text|>")) << encoded.status();
}

TEST(RenderChat, RefusesOtherRolesAndNothing) {
  const ChatTemplate chat = *ChatTemplateByName("chatml");
  const auto tool = RenderChat(chat, {{"user", "q"}, {"tool", "r"}}, GenerationPrompt::kNone);
  EXPECT_TRUE(Contains(tool.status(), "message 2: role \"tool\"")) << tool.status();
  EXPECT_EQ(ExitCode(RenderChat(chat, {}, GenerationPrompt::kAdd).status()), kExitUsage);
}

TEST(ChatTemplateByName, ListsTheNames) {
  for (const std::string& name : ChatTemplateNames()) EXPECT_TRUE(ChatTemplateByName(name).ok()) << name;
  const auto unknown = ChatTemplateByName("vicuna");
  EXPECT_EQ(ExitCode(unknown.status()), kExitUsage);
  EXPECT_TRUE(Contains(unknown.status(), "smollm2")) << unknown.status();
}

constexpr char kMl[] = "{{'<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n'}}";
constexpr char kDeepSeek[] =
    "{{'<｜User｜>' + m['content']}}{{'<｜Assistant｜>' + m['content'] + '<｜end▁of▁sentence｜>'}}";
constexpr char kLlama3[] =
    "{% set text = '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' + m['content'] | trim + "
    "'<|eot_id|>' %}";

// The parts of the released templates that tell them apart.
TEST(RecognizeChatTemplate, KnowsFamiliesByTheirMarkers) {
  const std::string chatml = kMl, deepseek = kDeepSeek, llama3 = kLlama3;
  const auto recognized = [](const std::string& text) {
    const auto chat = RecognizeChatTemplate(text, "t");
    EXPECT_TRUE(chat.ok()) << chat.status();
    return chat.value_or(ChatTemplate());
  };
  EXPECT_EQ(recognized(chatml), *ChatTemplateByName("chatml"));
  EXPECT_EQ(recognized("{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
                       "{% endfor %}"),
            *ChatTemplateByName("chatml"));
  EXPECT_EQ(recognized("<|im_start|>system\nHelp!<|im_end|>\n" + chatml).default_system, "Help!");
  const std::string qwen =
      "{% if tools %}{{- '# Tools\\n\\nYou may call one or more functions to ...' }}{{- '{\"name\": \"' }}"
      "{% endif %}{{'<|im_start|>system\\n' + s + '<|im_end|>\\n'}}{{'<|im_start|>system\\nYou are Qwen, "
      "created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\\n'}}";
  EXPECT_EQ(recognized(qwen + chatml), *ChatTemplateByName("qwen2.5"));
  EXPECT_EQ(
      recognized("{{'<|im_start|>system\\nPut it in \\\\boxed{}. You\\'re asked.<|im_end|>\\n'}}" + chatml)
          .default_system,
      "Put it in \\boxed{}. You're asked.");
  EXPECT_EQ(recognized(chatml + "{% if loop.last or r %}{% set ns.last_query_index = enable_thinking %}"),
            *ChatTemplateByName("qwen3"));
  EXPECT_EQ(recognized(deepseek), *ChatTemplateByName("deepseek-v3"));
  EXPECT_EQ(recognized(deepseek + "{{'<｜Assistant｜><think>\\n'}}"), *ChatTemplateByName("deepseek-r1"));
  EXPECT_EQ(recognized(llama3), *ChatTemplateByName("llama3"));
  EXPECT_EQ(recognized(llama3 + "{% set d = '26 Jul 2024' %}{{ 'Today Date: ' + d }}"),
            *ChatTemplateByName("llama3.1"));
}

// Each is one of them but for what it says or leaves out.
TEST(RecognizeChatTemplate, RefusesWhatItWouldRenderDifferently) {
  const std::string chatml = kMl, deepseek = kDeepSeek, llama3 = kLlama3;
  const std::pair<std::string, const char*> cases[] = {
      {"[INST]", "markers of no known family"},
      {"", "markers of no known family"},
      {chatml + "<think>", "\"think\""},
      {deepseek + "thinking", "V3.1"},
      {"{{bos_token}}" + chatml, "\"bos_token\""},
      {"{% set system_message = 'Help!' %}" + chatml, "\"system_message\""},
      {"{% set default_system = 'You are Bee.' %}" + chatml, "it says \"You\""},
      {"{{'<|im_start|>system\nIt is ' + today + '<|im_end|>\n'}}" + chatml, "not a plain text"},
      {"{{'<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>'}}",
       "not one line end behind <|im_end|>"},
      {"{{'<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>'}}\n{%- endfor %}",
       "not one line end behind <|im_end|>"},
      {"{{'<|begin|>'}}" + chatml, "it says \"begin\""},
      {"{{'<|im_start|>bot\\n'}}" + chatml, "it says \"bot\""},
      {"Be brief." + chatml, "it says \"Be\""},
      {"{% set d = '\u4f60\u662f' %}" + chatml, "it says \"\u4f60\u662f\""},
      {"{{'<|im_start|>' + m.role + '\\n\\n' + m.content + '<|im_end|>\\n'}}",
       "not one line end behind <|im_start|>"},
      {"{{'<|im_start|>' + m.role + ': \\n' + m.content + '<|im_end|>\\n'}}",
       "not one line end behind <|im_start|>"},
      {"{{'<|im_start|>' + m.role + m.content + '<|im_end|>\\n'}}", "not one line end behind <|im_start|>"},
      {"{% set t = '<|start_header_id|>' + r + '<|end_header_id|>\\n' + c | trim + '<|eot_id|>' %}",
       "two line ends"},
      {chatml + "{% set ns.last_query_index = enable_thinking %}", "other thoughts than Qwen3"},
      {chatml + "{% if loop.last or r %}{% set ns.last_query_index = enable_thinking %}"
                "{{'In this environment you have access to a set of tools'}}",
       "it says \"In\""},
      {"{{'<｜User｜>' + m['content'] + '<｜Assistant｜>'}}{{m['content'] + '<｜end▁of▁sentence｜>'}}",
       "R1-0528"},
      {llama3 + "{{ 'Today Date: ' + '26 Jul 2024' + strftime_now() }}", "today's date"},
      {llama3 + "{{ 'Today Date: ' + '26 Jul 2025' }}", "another date"},
      {llama3 + "{{ '<|start_header_id|>system<|end_header_id|>\\n\\nThink hard.' }}", "it says \"Think\""},
      {"'<|start_header_id|>' + '<|end_header_id|>' + c + '<|eot_id|>'", "keeps the blanks"}};
  for (const auto& [text, why] : cases) {
    const auto chat = RecognizeChatTemplate(text, "folder/chat_template.jinja");
    ASSERT_FALSE(chat.ok()) << text;
    EXPECT_EQ(ExitCode(chat.status()), kExitUsage);
    EXPECT_TRUE(Contains(chat.status(), "folder/chat_template.jinja: ")) << chat.status();
    EXPECT_TRUE(Contains(chat.status(), why)) << chat.status() << text;
    EXPECT_TRUE(Contains(chat.status(), "chat_template: chatml, smollm2")) << chat.status();
  }
  // The words of an error are nobody's prompt.
  EXPECT_TRUE(RecognizeChatTemplate("{{ raise_exception('Roles must take turns!') }}" + chatml, "t").ok());
}

TEST(LoadChatTemplate, ReadsBothFilesOfAFolder) {
  const Scratch scratch;
  EXPECT_EQ(ExitCode(LoadChatTemplate(scratch.folder()).status()), kExitMissing);
  WriteRaw(scratch.path("tokenizer_config.json"), R"({"chat_template": "<|im_start|>user\n<|im_end|>\n"})");
  EXPECT_EQ(*LoadChatTemplate(scratch.folder()), *ChatTemplateByName("chatml"));
  WriteRaw(scratch.path("chat_template.jinja"),
           "<|start_header_id|><|end_header_id|>\n\n{{ content | trim }}<|eot_id|>");
  EXPECT_EQ(*LoadChatTemplate(scratch.folder()), *ChatTemplateByName("llama3"));
  WriteRaw(scratch.path("chat_template.jinja"), "");
  EXPECT_TRUE(Contains(LoadChatTemplate(scratch.folder()).status(), "chat_template.jinja")) << "named";
}

}  // namespace
}  // namespace moebius
