#include "launch/train/tokenizer_files.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "core/base/status.h"
#include "core/io/json.h"
#include "data/tokenizer/byte_tokenizer.h"
#include "tests/core/io/scratch.h"

namespace moebius {
namespace {

TEST(TokenizerFiles, TakeWhatLiesBesideTheModelThatARunBeginsWith) {
  const Scratch scratch;
  WriteRaw(scratch.path("tokenizer_config.json"), "{\"eos_token\": \"x\"}");
  WriteRaw(scratch.path("chat_template.jinja"), "{{ messages }}");
  const auto files = TokenizerFilesFrom(ByteTokenizerJson({"<|endoftext|>"}), "bytes", scratch.folder());
  ASSERT_TRUE(files.ok()) << files.status();
  EXPECT_EQ(files->tokenizer_json, ByteTokenizerJson({"<|endoftext|>"}));
  EXPECT_EQ(files->tokenizer_config_json, "{\"eos_token\": \"x\"}");
  EXPECT_EQ(files->chat_template_jinja, "{{ messages }}");
}

TEST(TokenizerFiles, AreMadeWhereThereIsNothing) {
  const Scratch scratch;
  for (const std::string& init_from : {std::string(), scratch.folder()}) {
    const auto files = TokenizerFilesFrom(ByteTokenizerJson({"<|endoftext|>"}), "bytes", init_from);
    ASSERT_TRUE(files.ok()) << files.status();
    EXPECT_EQ(files->chat_template_jinja, "");
    const auto config = ParseJson(files->tokenizer_config_json, "config");
    ASSERT_TRUE(config.ok()) << config.status();
    EXPECT_EQ(*GetString(*config, "eos_token", "config"), "<|endoftext|>");
  }
  EXPECT_EQ(ExitCode(TokenizerFilesFrom("{", "bytes", "").status()), kExitDamaged);
}

}  // namespace
}  // namespace moebius
