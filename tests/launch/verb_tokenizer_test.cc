#include "launch/verb_tokenizer.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>
#include <nlohmann/json.hpp>

#include "core/base/status.h"
#include "core/io/file.h"
#include "core/io/json.h"
#include "data/tokenizer/tokenizer.h"

namespace moebius {
namespace {

const std::string kFixture = MOEBIUS_SOURCE_DIR "/tests/data/tokenizer/fixture/";

class TokenizerVerb : public testing::Test {
 protected:
  TokenizerVerb() : folder_(testing::TempDir() + "verb_tokenizer_" + std::to_string(getpid())) {
    EXPECT_TRUE(MakeDirs(folder_).ok());
  }
  ~TokenizerVerb() override { RemoveTree(folder_).IgnoreError(); }

  std::string Path(const std::string& name) const { return JoinPath(folder_, name); }
  std::string Write(const std::string& name, const std::string& text) const {
    std::FILE* file = std::fopen(Path(name).c_str(), "wb");
    std::fwrite(text.data(), 1, text.size(), file);
    std::fclose(file);
    return Path(name);
  }
  // Runs "moebius ARGS" and keeps what it printed.
  int Run(const std::vector<std::string>& args) {
    testing::internal::CaptureStdout();
    testing::internal::CaptureStderr();
    const int code = RunProgram(TokenizerVerbs(), args);
    out_ = testing::internal::GetCapturedStdout();
    error_ = testing::internal::GetCapturedStderr();
    return code;
  }

  std::string folder_, out_, error_;
};

TEST_F(TokenizerVerb, EncodesAndDecodesLinesInOrder) {
  std::string lines;
  for (int i = 0; i < 300; ++i) lines += "{\"text\": \"line " + std::to_string(i) + " \\u4e2d\"}\n";
  const std::string texts = Write("texts.jsonl", lines);
  ASSERT_EQ(Run({"tokenizer", "encode", "--tokenizer", kFixture, "--jsonl", texts, "--threads", "3"}), 0)
      << error_;
  const std::string ids = Write("ids.jsonl", out_);
  ASSERT_EQ(Run({"tokenizer", "decode", "--tokenizer", kFixture, "--jsonl", ids}), 0) << error_;
  size_t begin = 0;
  for (int i = 0; i < 300; ++i) {
    const size_t end = out_.find('\n', begin);
    const absl::StatusOr<nlohmann::json> line = ParseJson(out_.substr(begin, end - begin), "output");
    ASSERT_TRUE(line.ok()) << line.status();
    EXPECT_EQ(line->at("text"), "line " + std::to_string(i) + " \u4e2d");
    begin = end + 1;
  }
  EXPECT_EQ(begin, out_.size());
}

TEST_F(TokenizerVerb, NamesFileAndLineOfBadInputAfterTheGoodLinesBefore) {
  const std::string texts = Write("texts.jsonl", "{\"text\": \"ok\"}\n\n{\"text\": 5}\n");
  EXPECT_EQ(Run({"tokenizer", "encode", "--tokenizer", kFixture, "--jsonl", texts}), kExitDamaged);
  EXPECT_NE(error_.find(texts + " line 3"), error_.npos) << error_;
  EXPECT_EQ(out_.find("{\"ids\":["), 0u) << out_;

  const std::string ids = Write("ids.jsonl", "{\"ids\": [1, 100000]}\n");
  EXPECT_EQ(Run({"tokenizer", "decode", "--tokenizer", kFixture, "--jsonl", ids}), kExitDamaged);
  EXPECT_NE(error_.find("100000"), error_.npos) << error_;
  EXPECT_EQ(Run({"tokenizer", "decode", "--tokenizer", kFixture, "--jsonl", Path("none")}), kExitMissing);
  EXPECT_EQ(Run({"tokenizer", "encode", "--tokenizer", kFixture}), kExitUsage);
  EXPECT_EQ(Run({"tokenizer", "encode", "--text", "x"}), kExitUsage);
}

TEST_F(TokenizerVerb, TrainsATokenizerThatLoads) {
  const std::string book = Write("book.txt", "the cat and the dog and the end of the day\n");
  const std::string more =
      Write("more.jsonl", "{\"text\": \"the other text\"}\n{\"text\": \"and the end\"}\n");
  const std::string out = Path("tokenizer.json");
  ASSERT_EQ(Run({"tokenizer", "train", "--input", book, more, "--vocab-size", "270", "--out", out}), 0)
      << error_;
  const absl::StatusOr<Tokenizer> tokenizer = Tokenizer::Load(out);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ(tokenizer->vocab_size(), 270);
  EXPECT_TRUE(tokenizer->TokenToId("\u0120the").has_value());

  EXPECT_EQ(Run({"tokenizer", "train", "--input", Write("empty", ""), "--out", out}), kExitDamaged);
  EXPECT_EQ(Run({"tokenizer", "train", "--input", Path("none"), "--out", out}), kExitMissing);
  EXPECT_EQ(Run({"tokenizer", "train", "--input", book, "--vocab-size", "257", "--out", out}), kExitUsage);
  EXPECT_EQ(Run({"tokenizer", "train", "--input", book, "--out", Path("no/folder")}), kExitCannotWrite);
  const std::string bad = Write("bad.txt", "plain text\n\xff\xfe");
  EXPECT_EQ(Run({"tokenizer", "train", "--input", bad, "--out", out}), kExitDamaged);
  EXPECT_NE(error_.find(bad + ": byte 11 (value 255) is not valid text"), error_.npos) << error_;
  EXPECT_TRUE(Tokenizer::Load(out).ok()) << "failed runs leave the earlier file alone";
}

}  // namespace
}  // namespace moebius
