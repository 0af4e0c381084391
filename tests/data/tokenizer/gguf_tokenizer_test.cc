#include "data/tokenizer/gguf_tokenizer.h"

#include <gtest/gtest.h>

#include <functional>
#include <nlohmann/json.hpp>

#include "core/base/strings.h"
#include "data/tokenizer/byte_alphabet.h"
#include "data/tokenizer/tokenizer.h"
#include "tests/core/io/gguf_text.h"
#include "tests/core/io/scratch.h"

namespace moebius {
namespace {

// Ids 0 <|end|> (control), 1 <note> (user-defined), 2-257 the bytes in value order, 258 "th", 259 "the".
struct TokenizerGguf {
  std::string model = "gpt2", pre = "smollm";
  std::vector<std::string> tokens = {"<|end|>", "<note>"}, merges = {"t h", "th e"};
  std::vector<int32_t> types = {3, 4};
  GgufText text;

  TokenizerGguf() {
    const ByteAlphabet alphabet;
    for (int b = 0; b < 256; ++b) tokens.push_back(alphabet.Character(b));
    tokens.insert(tokens.end(), {"th", "the"});
    types.resize(tokens.size(), 1);
  }
  absl::StatusOr<std::map<std::string, std::string>> Files() {
    text.String("tokenizer.ggml.model", model).String("tokenizer.ggml.pre", pre);
    text.Strings("tokenizer.ggml.tokens", tokens).Ints("tokenizer.ggml.token_type", types);
    text.Strings("tokenizer.ggml.merges", merges);
    const Scratch scratch;
    WriteRaw(scratch.path("t.gguf"), text.Text());
    ASSIGN_OR_RETURN(const GgufFile file, GgufFile::Open(scratch.path("t.gguf")));
    return TokenizerFilesFromGguf(file);
  }
};

TEST(GgufTokenizer, EncodesWithMergesAndAddedTokens) {
  TokenizerGguf gguf;
  const auto files = gguf.Files();
  ASSERT_TRUE(files.ok()) << files.status();
  const auto tokenizer = Tokenizer::FromJson(files->at("tokenizer.json"), "tokenizer.json");
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ(tokenizer->pre_tokenizer(), PreTokenizerKind::kSmolLm);
  EXPECT_EQ(tokenizer->Encode("the<note>12<|end|>"), (std::vector<int32_t>{259, 1, 2 + '1', 2 + '2', 0}));
  EXPECT_EQ(tokenizer->Encode("a", {.add_special = true}), (std::vector<int32_t>{2 + 'a'}));
  EXPECT_TRUE(tokenizer->IsSpecial(0));
  EXPECT_FALSE(tokenizer->IsSpecial(1));
  EXPECT_FALSE(files->contains("chat_template.jinja"));
}

// A chat model ends its turns with another token than its documents.
TEST(GgufTokenizer, WritesEveryEndOfATurn) {
  TokenizerGguf gguf;
  gguf.text.Int("tokenizer.ggml.eos_token_id", 0);
  EXPECT_FALSE(gguf.Files()->contains("generation_config.json"));
  gguf = TokenizerGguf();
  gguf.text.Int("tokenizer.ggml.eos_token_id", 0).Int("tokenizer.ggml.eot_token_id", 1);
  const auto files = gguf.Files();
  ASSERT_TRUE(files.ok()) << files.status();
  EXPECT_EQ(nlohmann::json::parse(files->at("generation_config.json"))["eos_token_id"],
            nlohmann::json({0, 1}));
}

TEST(GgufTokenizer, WritesSpecialTokensAndChatTemplate) {
  TokenizerGguf gguf;
  gguf.text.Int("tokenizer.ggml.bos_token_id", 0).Int("tokenizer.ggml.padding_token_id", 1);
  gguf.text.Bool("tokenizer.ggml.add_bos_token", true).String("tokenizer.chat_template", "{{ 'é' }}\n");
  gguf.text.Int("llama.context_length", 99);
  const auto files = gguf.Files();
  ASSERT_TRUE(files.ok()) << files.status();
  EXPECT_EQ(files->at("chat_template.jinja"), "{{ 'é' }}\n");
  const auto config = nlohmann::json::parse(files->at("tokenizer_config.json"));
  EXPECT_EQ(config["chat_template"], "{{ 'é' }}\n");
  EXPECT_EQ(config["bos_token"], "<|end|>");
  EXPECT_EQ(config["pad_token"], "<note>");
  EXPECT_FALSE(config.contains("eos_token"));
  EXPECT_EQ(config["model_max_length"], 99);
  const auto tokenizer = Tokenizer::FromJson(files->at("tokenizer.json"), "tokenizer.json");
  EXPECT_EQ(tokenizer->Encode("a", {.add_special = true}), (std::vector<int32_t>{0, 2 + 'a'}));
}

TEST(GgufTokenizer, KnowsWhatAPreTokenizerBringsWithIt) {
  TokenizerGguf gguf;
  gguf.pre = "llama-bpe";
  EXPECT_TRUE(gguf.Files().status().message().find("add_bos_token is set") != std::string::npos);
  gguf = TokenizerGguf();
  gguf.pre = "llama-bpe";
  gguf.text.Int("tokenizer.ggml.bos_token_id", 0);
  gguf.merges.clear();  // "the" is found whole
  auto files = gguf.Files();
  ASSERT_TRUE(files.ok()) << files.status();
  auto tokenizer = Tokenizer::FromJson(files->at("tokenizer.json"), "tokenizer.json");
  EXPECT_EQ(tokenizer->Encode("the", {.add_special = true}), (std::vector<int32_t>{0, 259}));
  gguf = TokenizerGguf();
  gguf.pre = "qwen2";
  files = gguf.Files();
  ASSERT_TRUE(files.ok()) << files.status();
  tokenizer = Tokenizer::FromJson(files->at("tokenizer.json"), "tokenizer.json");
  EXPECT_EQ(tokenizer->Encode("e\u0301"), tokenizer->Encode("é"));
}

TEST(GgufTokenizer, NamesEveryDamage) {
  struct Case {
    std::function<void(TokenizerGguf&)> change;
    int exit_code;
    const char* message;
  };
  const std::vector<Case> cases = {
      {[](auto& g) { g.model = "llama"; }, kExitUsage, "tokenizer.ggml.model \"llama\""},
      {[](auto& g) { g.pre = "tekken"; }, kExitUsage, "tokenizer.ggml.pre \"tekken\""},
      {[](auto& g) { g.types.pop_back(); }, kExitDamaged, "token_type has 259 entries for 260 tokens"},
      {[](auto& g) { g.types[5] = 9; }, kExitDamaged, "gives id 5 the type 9"},
      {[](auto& g) { g.tokens[5] = ""; }, kExitDamaged, "empty token, id 5"},
      {[](auto& g) { g.tokens[259] = "th"; }, kExitDamaged, "\"th\" twice"},
      {[](auto& g) { g.tokens[0] = "\xFF"; }, kExitDamaged, "tokenizer.json"},
      {[](auto& g) { g.merges[0] = "th"; }, kExitDamaged, "which is not two tokens"},
      {[](auto& g) { g.merges[0] = "t e"; }, kExitDamaged, "\"t e\", of tokens that are not there"},
      {[](auto& g) { g.tokens.clear(); }, kExitDamaged, "has 0 tokens"},
      {[](auto& g) { g.text.Int("tokenizer.ggml.eos_token_id", 260); }, kExitDamaged, "eos_token_id is 260"},
  };
  for (const Case& c : cases) {
    TokenizerGguf gguf;
    c.change(gguf);
    const auto files = gguf.Files();
    ASSERT_FALSE(files.ok()) << c.message;
    EXPECT_EQ(ExitCode(files.status()), c.exit_code) << files.status();
    EXPECT_NE(files.status().message().find(c.message), std::string::npos)
        << c.message << ": " << files.status();
  }
}

}  // namespace
}  // namespace moebius
