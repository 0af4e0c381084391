#include "data/tokenizer/tokenizer_spec.h"

#include <gtest/gtest.h>

#include <random>

#include "core/base/status.h"
#include "core/io/file.h"
#include "data/tokenizer/tokenizer.h"

namespace moebius {
namespace {

const std::string kPath = MOEBIUS_SOURCE_DIR "/tests/data/tokenizer/fixture/tokenizer.json";

TokenizerSpec Fixture() { return *ParseTokenizerJson(*ReadFile(kPath), kPath); }

TEST(TokenizerSpec, ReadsWhatItWrites) {
  const TokenizerSpec spec = Fixture();
  const std::string written = WriteTokenizerJson(spec);
  const absl::StatusOr<TokenizerSpec> again = ParseTokenizerJson(written, "written");
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->vocab, spec.vocab);
  EXPECT_EQ(again->pre_tokenizer, PreTokenizerKind::kDeepSeekV3);
  EXPECT_EQ(WriteTokenizerJson(*again), written);
  for (const std::string& name : PreTokenizerNames()) {
    TokenizerSpec other = spec;
    other.pre_tokenizer = *PreTokenizerFromName(name);
    other.normalize_nfc = true;
    other.ignore_merges = true;
    const absl::StatusOr<TokenizerSpec> read = ParseTokenizerJson(WriteTokenizerJson(other), "written");
    ASSERT_TRUE(read.ok()) << read.status();
    EXPECT_EQ(read->pre_tokenizer, other.pre_tokenizer);
    EXPECT_TRUE(read->normalize_nfc && read->ignore_merges);
  }
}

// A small tokenizer with parts to replace.
struct Parts {
  std::string top = R"("version": "1.0", "truncation": null, "padding": null)";
  std::string added = R"([{"id": 3, "content": "<x>", "special": true}])";
  std::string normalizer = "null";
  std::string pre_tokenizer = R"({"type": "ByteLevel", "add_prefix_space": false, "use_regex": true})";
  std::string post_processor = "null";
  std::string decoder = R"({"type": "ByteLevel"})";
  std::string model = R"("type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"])";
  std::string Json() const {
    return "{" + top + R"(, "added_tokens": )" + added + R"(, "normalizer": )" + normalizer +
           R"(, "pre_tokenizer": )" + pre_tokenizer + R"(, "post_processor": )" + post_processor +
           R"(, "decoder": )" + decoder + R"(, "model": {)" + model + "}}";
  }
};

struct Bad {
  Parts parts;
  std::string field;  // what the message must name
};

TEST(TokenizerSpec, ReadsBothFormsOfMerges) {
  ASSERT_TRUE(ParseTokenizerJson(Parts().Json(), "test").ok());
  Parts pairs;
  pairs.model = R"("merges": [["a", "b"]], "type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2})";
  const absl::StatusOr<TokenizerSpec> spec = ParseTokenizerJson(pairs.Json(), "test");
  ASSERT_TRUE(spec.ok()) << spec.status();
  ASSERT_EQ(spec->merges.size(), 1u);
  EXPECT_EQ(spec->merges[0].result, 2);
}

TEST(TokenizerSpec, RefusesWhatItWouldEncodeDifferentlyAndNamesTheField) {
  const std::string vocab = R"("vocab": {"a": 0, "b": 1, "ab": 2})";
  const std::string rest = vocab + R"(, "merges": ["a b"])";
  const auto model = [](const std::string& text) { return Parts{.model = text}; };
  const auto added = [](const std::string& text) { return Parts{.added = text}; };
  const auto splitter = [](const std::string& text) { return Parts{.pre_tokenizer = text}; };
  const Bad bad[] = {
      {{.top = R"("truncation": {"max_length": 5})"}, "truncation"},
      {{.top = R"("padding": {"strategy": "BatchLongest"})"}, "padding"},
      {model(R"("type": "WordPiece", )" + rest), "model.type"},
      {model(R"("type": "Unigram", "vocab": [["a", 0.5]])"), "model.type"},
      {model(rest), "model.type"},
      {model(R"("type": "BPE", "merges": [])"), "model.vocab"},
      {model(R"("type": "BPE", "vocab": {}, "merges": [])"), "model.vocab"},
      {model(R"("type": "BPE", "vocab": ["a"], "merges": [])"), "model.vocab"},
      {model(R"("type": "BPE", )" + vocab), "model.merges"},
      {model(R"("type": "BPE", "merges": {"a": 1}, )" + vocab), "model.merges"},
      {model(R"("type": "BPE", "vocab": {"a": 0, "b": 0}, "merges": [])"), "model.vocab"},
      {model(R"("type": "BPE", "vocab": {"a": 0, "a": 1}, "merges": [])"), "model.vocab"},
      {model(R"("type": "BPE", "vocab": {"a": -1}, "merges": [])"), "model.vocab"},
      {model(R"("type": "BPE", "vocab": {"a": 1.5}, "merges": [])"), "model.vocab"},
      {model(R"("type": "BPE", "vocab": {"a": "0"}, "merges": [])"), "model.vocab"},
      {model(R"("type": "BPE", "vocab": {"a": 99999999999}, "merges": [])"), "model.vocab"},
      {model(R"("type": "BPE", "vocab": {"a": 4194304}, "merges": [])"), "model.vocab"},
      {model(R"("type": "BPE", "vocab": {"": 0}, "merges": [])"), "model.vocab"},
      {model(R"("type": "BPE", "vocab": {"a": {"b": 1}}, "merges": [])"), "model.vocab"},
      {model(R"("type": "BPE", "merges": ["a c"], )" + vocab), "model.merges[0]"},
      {model(R"("type": "BPE", "merges": ["a b", "b a"], )" + vocab), "model.merges[1]"},
      {model(R"("type": "BPE", "merges": ["ab"], )" + vocab), "model.merges[0]"},
      {model(R"("type": "BPE", "merges": ["a b c"], )" + vocab), "model.merges[0]"},
      {model(R"("type": "BPE", "merges": [["a"]], )" + vocab), "model.merges[0]"},
      {model(R"("type": "BPE", "merges": [["a", "b", "c"]], )" + vocab), "model.merges[0]"},
      {model(R"("type": "BPE", "merges": [["a", ["b"]]], )" + vocab), "model.merges[0]"},
      {model(R"("type": "BPE", "merges": [7], )" + vocab), "model.merges[0]"},
      {model(R"("type": "BPE", "dropout": 0.1, )" + rest), "model.dropout"},
      {model(R"("type": "BPE", "unk_token": "u", )" + rest), "model.unk_token"},
      {model(R"("type": "BPE", "unk_token": 5, )" + rest), "model.unk_token"},
      {model(R"("type": "BPE", "continuing_subword_prefix": "##", )" + rest),
       "model.continuing_subword_prefix"},
      {model(R"("type": "BPE", "end_of_word_suffix": "</w>", )" + rest), "model.end_of_word_suffix"},
      {model(R"("type": "BPE", "byte_fallback": true, )" + rest), "model.byte_fallback"},
      {model(R"("type": "BPE", "ignore_merges": 1, )" + rest), "model.ignore_merges"},
      {added("5"), "added_tokens"},
      {added("[5]"), "added_tokens[0]"},
      {added(R"([{"id": 3}])"), "added_tokens[0].content"},
      {added(R"([{"id": 3, "content": ""}])"), "added_tokens[0].content"},
      {added(R"([{"content": "x"}])"), "added_tokens[0].id"},
      {added(R"([{"id": -3, "content": "x"}])"), "added_tokens[0].id"},
      {added(R"([{"id": 18446744073709551615, "content": "x"}])"), "added_tokens[0].id"},
      {added(R"([{"id": 3, "content": "x"}, {"id": 3, "content": "y"}])"), "added_tokens[1].id"},
      {added(R"([{"id": 3, "content": "x"}, {"id": 4, "content": "x"}])"), "added_tokens[1].content"},
      {added(R"([{"id": 3, "content": "ab"}])"), "added_tokens[0]"},
      {added(R"([{"id": 1, "content": "x"}])"), "added_tokens[0]"},
      {added(R"([{"id": 3, "content": "x", "single_word": true}])"), "added_tokens[0].single_word"},
      {added(R"([{"id": 3, "content": "x", "lstrip": "yes"}])"), "added_tokens[0].lstrip"},
      {{.normalizer = R"({"type": "Lowercase"})"}, "normalizer.type"},
      {{.normalizer = R"({"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "NFKC"}]})"},
       "normalizer.normalizers[1].type"},
      {{.normalizer = R"({"type": "Sequence"})"}, "normalizer.normalizers"},
      {{.normalizer = "[]"}, "normalizer"},
      {splitter("null"), "pre_tokenizer"},
      {splitter(R"({"type": "Whitespace"})"), "pre_tokenizer.type"},
      {splitter(R"({"type": "Metaspace"})"), "pre_tokenizer.type"},
      {splitter(R"({"type": "Digits", "individual_digits": true})"), "pre_tokenizer"},
      {splitter(R"({"type": "Sequence", "pretokenizers": []})"), "pre_tokenizer"},
      {splitter(R"({"type": "Sequence", "pretokenizers": [{"type": "Digits"}, {"type": "ByteLevel"}]})"),
       "pre_tokenizer.pretokenizers[0].individual_digits"},
      {splitter(R"({"type": "Sequence", "pretokenizers": [{"type": "Split", "pattern": {"Regex": "\\d+"},)"
                R"("behavior": "Isolated"}, {"type": "ByteLevel", "add_prefix_space": false}]})"),
       "pre_tokenizer"},
      {splitter(R"({"type": "Split", "pattern": {"String": " "}, "behavior": "Isolated"})"),
       "pre_tokenizer.pattern"},
      {splitter(R"({"type": "Split", "pattern": {"Regex": " "}, "behavior": "Removed"})"),
       "pre_tokenizer.behavior"},
      {splitter(R"({"type": "Split", "pattern": {"Regex": " "}, "behavior": "Isolated", "invert": true})"),
       "pre_tokenizer.invert"},
      {{.post_processor = R"({"type": "BertProcessing", "sep": ["x", 1], "cls": ["y", 2]})"},
       "post_processor.type"},
      {{.post_processor = R"({"type": "TemplateProcessing"})"}, "post_processor.single"},
      {{.post_processor = R"({"type": "TemplateProcessing", "single": []})"}, "post_processor.single"},
      {{.post_processor = R"({"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "q"}}]})"},
       "post_processor.single[0]"},
      {{.post_processor = R"({"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "q"}}],)"
                          R"("special_tokens": {"q": {"ids": [77]}}})"},
       "post_processor.single[0]"},
      {{.decoder = "null"}, "decoder"},
      {{.decoder = R"({"type": "WordPiece"})"}, "decoder"},
  };
  for (const Bad& each : bad) {
    const std::string json = each.parts.Json();
    const absl::StatusOr<TokenizerSpec> spec = ParseTokenizerJson(json, "dir/tokenizer.json");
    ASSERT_FALSE(spec.ok()) << json;
    EXPECT_EQ(ExitCode(spec.status()), kExitDamaged);
    const std::string message(spec.status().message());
    EXPECT_NE(message.find("dir/tokenizer.json"), message.npos) << message;
    EXPECT_NE(message.find("\"" + each.field + "\""), message.npos)
        << "no field " << each.field << " in: " << message;
  }
}

TEST(TokenizerSpec, RefusesWhatIsNotJson) {
  std::string deep;
  for (int i = 0; i < 100000; ++i) deep += "[";
  for (const std::string& json :
       {std::string(), std::string("{"), std::string("[]"), std::string("null"), std::string("{}"), deep,
        "{\"model\": " + deep, std::string("{\"model\": {\"vocab\": {\"\xFF\": 1}}}"), std::string("{} x"),
        std::string("{\"model\": {\"vocab\": {\"a\": 1e999}}}"), std::string("{\"a\": 1, \"a\": 2}")}) {
    const absl::StatusOr<TokenizerSpec> spec = ParseTokenizerJson(json, "some/path");
    ASSERT_FALSE(spec.ok()) << json.substr(0, 50);
    EXPECT_EQ(ExitCode(spec.status()), kExitDamaged);
    EXPECT_NE(std::string(spec.status().message()).find("some/path"), std::string::npos);
  }
}

TEST(TokenizerSpec, SurvivesDamageOfEveryKind) {
  const std::string original = *ReadFile(kPath);
  std::mt19937 random(9);
  const std::string_view inserts[] = {"{",    "}",  "[",    "]",        ",",        ":",
                                      "null", "-1", "\"\"", "1e9",      "true",     "\\u0000",
                                      "\xFF", "\"", "\\",   "\"type\"", "99999999", "\"a b\""};
  int read = 0;
  for (int round = 0; round < 300; ++round) {
    std::string json = original;
    const int changes = 1 + static_cast<int>(random() % 3);
    for (int i = 0; i < changes; ++i) {
      // Half of the damage at the head, where the structure is.
      const size_t at = random() % (random() % 2 == 0 ? std::min<size_t>(json.size(), 4000) : json.size());
      switch (random() % 4) {
        case 0:
          json[at] = static_cast<char>(random());
          break;
        case 1:
          json.erase(at, 1 + random() % 30);
          break;
        case 2:
          json.insert(at, inserts[random() % std::size(inserts)]);
          break;
        case 3:
          json.resize(at);
          json += "}";
          break;
      }
      if (json.empty()) break;
    }
    const absl::StatusOr<Tokenizer> tokenizer = Tokenizer::FromJson(json, "damaged");
    if (!tokenizer.ok()) {
      ASSERT_EQ(ExitCode(tokenizer.status()), kExitDamaged) << tokenizer.status();
      continue;
    }
    ++read;
    tokenizer->DecodeText(tokenizer->Encode("The end \u4e2d\xFF 123 <think>", {.add_special = true}));
  }
  EXPECT_LT(read, 300);
}

}  // namespace
}  // namespace moebius
