#include "launch/train/tokenizer_files.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "core/base/status.h"
#include "core/base/strings.h"
#include "core/io/file.h"
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

// The same tokens by id, and other ids for a text.
TEST(CheckSameTokenizer, NamesWhatCutsTextsDifferently) {
  const Scratch scratch;
  const absl::StatusOr<std::string> text =
      ReadFile(MOEBIUS_SOURCE_DIR "/tests/data/tokenizer/fixture/tokenizer.json");
  ASSERT_TRUE(text.ok()) << text.status();
  const nlohmann::json tokenizer = nlohmann::json::parse(*text);
  const auto check = [&](const nlohmann::json& other) {
    WriteRaw(scratch.path("tokenizer.json"), other.dump());
    return CheckSameTokenizer(*text, "data.h5", scratch.folder());
  };
  EXPECT_TRUE(check(tokenizer).ok()) << "written in another way";
  nlohmann::json merges = tokenizer;
  std::swap(merges["model"]["merges"][0], merges["model"]["merges"][1]);
  nlohmann::json blanks = tokenizer;
  for (auto& token : blanks["added_tokens"]) token["lstrip"] = true;
  nlohmann::json word = tokenizer, special = tokenizer;
  for (nlohmann::json* each : {&word, &special}) {
    nlohmann::json token = tokenizer["added_tokens"].back();
    token["id"] = token["id"].get<int>() + 1;
    token["content"] = "foo";
    token["special"] = each == &special;
    (*each)["added_tokens"].push_back(token);
  }
  WriteRaw(scratch.path("tokenizer.json"), word.dump());
  EXPECT_FALSE(CheckSameTokenizer(special.dump(), "data.h5", scratch.folder()).ok())
      << "a word, and a marker";
  for (const auto& [other, field] : {std::pair{merges, "model.merges"}, {blanks, "added_tokens"}}) {
    const absl::Status status = check(other);
    EXPECT_EQ(ExitCode(status), kExitUsage) << field;
    EXPECT_NE(status.message().find(Concat("another ", field)), absl::string_view::npos) << status;
  }
}

}  // namespace
}  // namespace moebius
