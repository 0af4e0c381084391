// Real tokenizers against Hugging Face's results for them; needs the folder of golden data.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "core/io/file.h"
#include "core/io/hash.h"
#include "core/io/json.h"
#include "data/tokenizer/tokenizer.h"
#include "tests/data/tokenizer/golden.h"

namespace moebius {
namespace {

struct Case {
  std::string name, folder;
};
void PrintTo(const Case& value, std::ostream* out) { *out << value.name; }

const std::string kShared = MOEBIUS_SHARED_DIR;

class RealTokenizer : public testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    absl::StatusOr<Tokenizer> tokenizer = Tokenizer::Load(kShared + "/data/" + GetParam().folder);
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
    tokenizer_.emplace(*std::move(tokenizer));
  }
  std::optional<Tokenizer> tokenizer_;
};

TEST_P(RealTokenizer, EncodesAndDecodesEveryGoldenLineAsHuggingFaceDoes) {
  const std::vector<GoldenLine> lines =
      ReadGolden(kShared + "/golden/tokenizer/" + GetParam().name + ".jsonl");
  ASSERT_FALSE(lines.empty());
  for (const GoldenLine& line : lines) {
    EXPECT_EQ(tokenizer_->Encode(line.text), line.ids) << line.text.substr(0, 200);
    EXPECT_EQ(tokenizer_->DecodeText(line.ids), line.decoded);
    EXPECT_EQ(tokenizer_->Decode(line.ids), line.text);
  }
}

TEST_P(RealTokenizer, EncodesWholeFilesToTheGoldenHashes) {
  const absl::StatusOr<nlohmann::json> files =
      ReadJsonFile(kShared + "/golden/tokenizer/" + GetParam().name + ".files.json");
  ASSERT_TRUE(files.ok()) << files.status();
  for (const auto& [name, golden] : files->items()) {
    const absl::StatusOr<std::string> text = ReadFile(kShared + "/data/" + name);
    ASSERT_TRUE(text.ok()) << text.status();
    const std::vector<int32_t> ids = tokenizer_->Encode(*text);
    EXPECT_EQ(text->size(), golden.at("bytes"));
    EXPECT_EQ(ids.size(), golden.at("tokens"));
    const std::string_view id_bytes(reinterpret_cast<const char*>(ids.data()), ids.size() * sizeof(int32_t));
    EXPECT_EQ(Sha256Hex(id_bytes), golden.at("sha256_of_uint32_le")) << name;
    EXPECT_EQ(tokenizer_->Decode(ids), *text);
  }
}

TEST_P(RealTokenizer, ReadsWhatItWritesAndWritesTheSameAgain) {
  const absl::StatusOr<TokenizerSpec> spec = ParseTokenizerJson(tokenizer_->json(), "original");
  ASSERT_TRUE(spec.ok());
  const std::string written = WriteTokenizerJson(*spec);
  const absl::StatusOr<TokenizerSpec> again = ParseTokenizerJson(written, "written");
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(WriteTokenizerJson(*again), written);
  EXPECT_EQ(again->vocab, spec->vocab);
  EXPECT_EQ(again->merges.size(), spec->merges.size());
}

INSTANTIATE_TEST_SUITE_P(All, RealTokenizer,
                         testing::Values(Case{"gpt2", "gpt2-bpe"},
                                         Case{"deepseek_v3", "deepseek-v3-tokenizer"}),
                         [](const auto& info) { return info.param.name; });

TEST(DeepSeekTokenizer, MarkersInTextAreSpecialOnlyWhenAskedFor) {
  const absl::StatusOr<Tokenizer> tokenizer = Tokenizer::Load(kShared + "/data/deepseek-v3-tokenizer");
  ASSERT_TRUE(tokenizer.ok());
  const std::string text = "<｜User｜>hi<think></think><｜end▁of▁sentence｜>";
  const std::vector<int32_t> parsed = tokenizer->Encode(text);
  EXPECT_EQ(parsed.front(), 128803);
  EXPECT_EQ(parsed.back(), 1);
  const std::vector<int32_t> plain = tokenizer->Encode(text, {.parse_special = false});
  for (const int32_t id : plain) EXPECT_TRUE(id > 2 && id < 128000) << id;
  EXPECT_EQ(tokenizer->Decode(plain), text);
  EXPECT_EQ(tokenizer->vocab_size(), 128815);
  EXPECT_EQ(tokenizer->TokenToId("<｜Assistant｜>"), 128804);
}

}  // namespace
}  // namespace moebius
