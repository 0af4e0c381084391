#include "data/tokenizer/tokenizer.h"

#include <gtest/gtest.h>
#include <utf8proc.h>

#include <atomic>
#include <cstdlib>
#include <ctime>
#include <nlohmann/json.hpp>
#include <random>
#include <thread>

#include "core/base/status.h"
#include "core/io/file.h"
#include "data/tokenizer/normalize.h"
#include "data/tokenizer/utf8_text.h"
#include "tests/data/tokenizer/golden.h"

namespace moebius {
namespace {

const std::string kFixture = MOEBIUS_SOURCE_DIR "/tests/data/tokenizer/fixture/";

Tokenizer LoadFixture() {
  absl::StatusOr<Tokenizer> tokenizer = Tokenizer::Load(kFixture + "tokenizer.json");
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return *std::move(tokenizer);
}

// The fixture's JSON with one text replaced by another.
std::string Changed(const std::string& from, const std::string& to) {
  std::string json = *ReadFile(kFixture + "tokenizer.json");
  const size_t at = json.find(from);
  EXPECT_NE(at, json.npos) << from;
  return at == json.npos ? json : json.replace(at, from.size(), to);
}

std::string RandomBytes(std::mt19937* random, size_t max_size) {
  const std::string_view bits[] = {"<think>",  "<｜User｜>", " the",   "\n\n", "中",
                                   "\xF0\x9F", "123",        "\u0301", "<｜"};
  std::string bytes;
  const size_t size = (*random)() % max_size;
  while (bytes.size() < size) {
    if ((*random)() % 4 == 0) {
      bytes += bits[(*random)() % std::size(bits)];
    } else {
      bytes += static_cast<char>((*random)());
    }
  }
  return bytes;
}

TEST(NormalizeTest, IsUtf8procsAndTakesTimeInProportion) {
  const std::string_view parts[] = {"a",      "e",      "\u00e9", "\u0301", "\u0323", "\u1e69",
                                    "\u0307", "\u1100", "\u1161", "\u11a8", "\uac00", "\u0344",
                                    "\u2126", "\u0f71", "\u0f72", "\u4e2d"};
  std::mt19937 random(4);
  for (int round = 0; round < 20000; ++round) {
    std::string text;
    for (size_t n = random() % 12; n > 0; --n) text += parts[random() % std::size(parts)];
    utf8proc_uint8_t* const want = utf8proc_NFC(reinterpret_cast<const utf8proc_uint8_t*>(text.c_str()));
    ASSERT_EQ(NormalizeNfc(text), reinterpret_cast<const char*>(want)) << text;
    std::free(want);
  }
  // Marks that Hugging Face's normaliser does not know stay where they are, and part what would compose.
  for (const char* text : {"\u0628\u08d3\u064e", "\u0e81\u0eb9\u0eba", "a\u08d3\u0301", "a\u0345\U0001e4ec"})
    EXPECT_EQ(NormalizeNfc(text), text);
  EXPECT_EQ(NormalizeNfc("e\u0301\u08d3e\u0301"), "\u00e9\u08d3\u00e9");
  EXPECT_EQ(NormalizeNfc("e\u0301\U00011935\U00011930e\u0301\U00011938"),
            "\u00e9\U00011935\U00011930\u00e9\U00011938")
      << "a pair of Unicode 13, which Hugging Face's normaliser does not know";
  std::string marks = "a";
  for (const char* mark : {"\u0301", "\u0323"}) {
    for (int i = 0; i < 1000000; ++i) marks += mark;
  }
  const std::clock_t start = std::clock();
  EXPECT_EQ(NormalizeNfc(marks).size(), marks.size());  // a with a dot below is as long as both
  EXPECT_LT(static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC, 5);
}

TEST(Tokenizer, EncodesAndDecodesEveryGoldenLineAsHuggingFaceDoes) {
  const Tokenizer tokenizer = LoadFixture();
  const std::vector<GoldenLine> lines = ReadGolden(kFixture + "golden.jsonl");
  ASSERT_GT(lines.size(), 100u);
  for (const GoldenLine& line : lines) {
    EXPECT_EQ(tokenizer.DecodeText(line.ids), line.decoded);
    if (!line.has_text) continue;
    EXPECT_EQ(tokenizer.Encode(line.text), line.ids) << line.text.substr(0, 100);
    EXPECT_EQ(tokenizer.Decode(line.ids), line.text);
  }
}

TEST(Tokenizer, GivesAnyBytesBack) {
  const Tokenizer tokenizer = LoadFixture();
  std::mt19937 random(1);
  for (int round = 0; round < 3000; ++round) {
    const std::string bytes = RandomBytes(&random, round % 100 == 0 ? 5000 : 80);
    ASSERT_EQ(tokenizer.Decode(tokenizer.Encode(bytes)), bytes);
    ASSERT_EQ(tokenizer.Decode(tokenizer.Encode(bytes, {.parse_special = false})), bytes);
  }
}

TEST(Tokenizer, LeavesSpecialTokensInTextAloneWhenTold) {
  const Tokenizer tokenizer = LoadFixture();
  const std::string text = "a<｜end▁of▁sentence｜><think>";
  const std::vector<int32_t> ids = tokenizer.Encode(text, {.parse_special = false});
  for (const int32_t id : ids) EXPECT_TRUE(id > 2 && id < 902) << id;
  EXPECT_EQ(tokenizer.Decode(ids), text);
  const std::vector<int32_t> parsed = tokenizer.Encode(text);
  EXPECT_EQ(parsed, (std::vector<int32_t>{parsed[0], 1, *tokenizer.TokenToId("<think>")}));
  EXPECT_EQ(tokenizer.Decode(parsed, SpecialTokens::kSkip), "a<think>");
}

// GPT-NeoX's tokens of blanks are words of its vocabulary, in strangers' text too. What a special token spans
// is text, and nothing is looked for in it (HF with encode_special_tokens).
TEST(Tokenizer, AddedWordsAreFoundWhereMarkersAreNot) {
  nlohmann::json json = nlohmann::json::parse(LoadFixture().json());
  const int32_t first = LoadFixture().vocab_size();
  const std::pair<const char*, bool> added[] = {{"  ", false}, {"    ", false}, {"a  b", true}};
  for (int32_t i = 0; i < 3; ++i) {
    json["added_tokens"].push_back({{"id", first + i},
                                    {"content", added[i].first},
                                    {"special", added[i].second},
                                    {"normalized", false},
                                    {"lstrip", false},
                                    {"rstrip", false},
                                    {"single_word", false}});
  }
  const Tokenizer tokenizer = *Tokenizer::FromJson(json.dump(), "test");
  for (const bool parse : {true, false}) {
    const std::vector<int32_t> ids = tokenizer.Encode("      if", {.parse_special = parse});
    ASSERT_GE(ids.size(), 3u);
    EXPECT_EQ(ids[0], first + 1);
    EXPECT_EQ(ids[1], first);
  }
  const std::vector<int32_t> ids = tokenizer.Encode("a  b  c", {.parse_special = false});
  EXPECT_EQ(std::count(ids.begin(), ids.end(), first), 1) << "that behind b";
  EXPECT_EQ(tokenizer.Decode(ids), "a  b  c");
}

TEST(Tokenizer, AddsWhatTheTemplateSays) {
  const std::string post_processor = R"("post_processor": {"type": "Sequence", "processors": [
      {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": false, "use_regex": true},
      {"type": "TemplateProcessing",
       "single": [{"SpecialToken": {"id": "B", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                  {"SpecialToken": {"id": "E", "type_id": 0}}],
       "pair": [], "special_tokens": {"B": {"id": "B", "ids": [0], "tokens": ["B"]},
                                      "E": {"id": "E", "ids": [1, 2], "tokens": ["E", "P"]}}}]})";
  const absl::StatusOr<Tokenizer> tokenizer =
      Tokenizer::FromJson(Changed("\"post_processor\": null", post_processor), "test");
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  const std::vector<int32_t> plain = tokenizer->Encode("x");
  const std::vector<int32_t> added = tokenizer->Encode("x", {.add_special = true});
  EXPECT_EQ(plain.size(), 1u);
  EXPECT_EQ(added, (std::vector<int32_t>{0, plain[0], 1, 2}));
  // And what we write of it reads back the same.
  const absl::StatusOr<TokenizerSpec> spec = ParseTokenizerJson(tokenizer->json(), "test");
  const absl::StatusOr<TokenizerSpec> again = ParseTokenizerJson(WriteTokenizerJson(*spec), "written");
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->prefix_ids, spec->prefix_ids);
  EXPECT_EQ(again->suffix_ids, spec->suffix_ids);
}

TEST(Tokenizer, NormalizesWhereTheFileAsksForIt) {
  const absl::StatusOr<Tokenizer> tokenizer =
      Tokenizer::FromJson(Changed("\"normalizer\": null", "\"normalizer\": {\"type\": \"NFC\"}"), "test");
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ(tokenizer->Encode("e\u0301<think>e\u0301"), tokenizer->Encode("\u00e9<think>\u00e9"));
  EXPECT_EQ(tokenizer->Decode(tokenizer->Encode("e\u0301\xFF")), "e\u0301\xFF") << "not UTF-8: left alone";
}

TEST(Tokenizer, TakesWhiteSpaceAroundTokensThatStripIt) {
  std::string json = Changed("\"lstrip\": false", "\"lstrip\": true");
  const size_t second = json.find("\"rstrip\": false", json.find("\"id\": 1,"));
  json.replace(second, 15, "\"rstrip\": true ");
  const absl::StatusOr<Tokenizer> tokenizer = Tokenizer::FromJson(json, "test");
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  const std::string begin = "<｜begin▁of▁sentence｜>", end = "<｜end▁of▁sentence｜>";
  EXPECT_EQ(tokenizer->Decode(tokenizer->Encode("a \u3000" + begin + " b")), "a" + begin + " b");
  EXPECT_EQ(tokenizer->Decode(tokenizer->Encode("a " + end + " \n b")), "a " + end + "b");
  EXPECT_EQ(tokenizer->Decode(tokenizer->Encode(end + "  " + begin)), end + begin);
  // A token that lies in the blanks that the one before it took is not there.
  nlohmann::json blanks = nlohmann::json::parse(json);
  blanks["added_tokens"].push_back({{"id", tokenizer->vocab_size()},
                                    {"content", "   "},
                                    {"special", false},
                                    {"normalized", false},
                                    {"lstrip", true},
                                    {"rstrip", false},
                                    {"single_word", false}});
  const absl::StatusOr<Tokenizer> three = Tokenizer::FromJson(blanks.dump(), "test");
  ASSERT_TRUE(three.ok()) << three.status();
  EXPECT_EQ(three->Decode(three->Encode(end + "   b")), end + "b");
}

TEST(Tokenizer, StreamsWholeCharactersThatAddUpToTheWholeText) {
  const Tokenizer tokenizer = LoadFixture();
  std::mt19937 random(3);
  for (int round = 0; round < 500; ++round) {
    std::vector<int32_t> ids = tokenizer.Encode(RandomBytes(&random, 40) + "\u4e2d\U0001F600\u00e9");
    for (int i = 0; i < 5; ++i) ids.push_back(static_cast<int32_t>(random() % 400));
    StreamDecoder decoder(tokenizer);
    std::string text;
    for (const int32_t id : ids) {
      const std::string part = decoder.Push(id);
      ASSERT_TRUE(IsUtf8(part));
      text += part;
    }
    text += decoder.Finish();
    ASSERT_EQ(text, tokenizer.DecodeText(ids));
  }
  StreamDecoder decoder(tokenizer);
  const std::vector<int32_t> face = tokenizer.Encode("\U0001F601");
  ASSERT_GT(face.size(), 1u);
  for (size_t i = 0; i + 1 < face.size(); ++i) EXPECT_EQ(decoder.Push(face[i]), "");
  EXPECT_EQ(decoder.Push(face.back()), "\U0001F601");
}

TEST(Tokenizer, KnowsItsTokens) {
  const Tokenizer tokenizer = LoadFixture();
  EXPECT_EQ(tokenizer.vocab_size(), 906);
  EXPECT_EQ(tokenizer.TokenBytes(*tokenizer.TokenToId("\u0120the")), " the");
  EXPECT_EQ(tokenizer.TokenBytes(0), "<｜begin▁of▁sentence｜>");
  EXPECT_EQ(tokenizer.TokenBytes(-1), "");
  EXPECT_EQ(tokenizer.TokenBytes(906), "");
  EXPECT_FALSE(tokenizer.TokenToId("no such token").has_value());
  EXPECT_FALSE(tokenizer.TokenToId("").has_value());
  EXPECT_TRUE(tokenizer.IsSpecial(0));
  EXPECT_FALSE(tokenizer.IsSpecial(*tokenizer.TokenToId("<think>")));
  EXPECT_EQ(tokenizer.json(), *ReadFile(kFixture + "tokenizer.json"));
  EXPECT_EQ(tokenizer.Decode(std::vector<int32_t>{-5, 1 << 30}), "");
}

TEST(Tokenizer, EncodesInManyThreadsAtOnce) {
  const Tokenizer tokenizer = LoadFixture();
  const std::vector<GoldenLine> lines = ReadGolden(kFixture + "golden.jsonl");
  std::vector<std::thread> threads;
  std::atomic<int> wrong = 0;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (const GoldenLine& line : lines) wrong += line.has_text && tokenizer.Encode(line.text) != line.ids;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
}

TEST(Tokenizer, SaysWhichFileIsMissing) {
  const absl::Status status = Tokenizer::Load("/no/such/folder").status();
  EXPECT_EQ(ExitCode(status), kExitMissing);
  EXPECT_NE(std::string(status.message()).find("/no/such/folder"), std::string::npos);
  EXPECT_TRUE(Tokenizer::Load(kFixture).ok()) << "a folder that has a tokenizer.json";
}

TEST(Utf8Text, ReplacesMaximalPiecesThatAreNotUtf8) {
  EXPECT_EQ(ReplaceInvalidUtf8("a\xF0\x9F\x98z"), "a\uFFFDz");
  EXPECT_EQ(ReplaceInvalidUtf8("\xE0\x80\x80"), "\uFFFD\uFFFD\uFFFD");
  EXPECT_EQ(ReplaceInvalidUtf8("\xED\xA0\x80"), "\uFFFD\uFFFD\uFFFD");
  EXPECT_EQ(ReplaceInvalidUtf8("\xF4\x90\x80\x80"), "\uFFFD\uFFFD\uFFFD\uFFFD");
  EXPECT_EQ(ReplaceInvalidUtf8("\xC3\xC3\xA9\xFF"), "\uFFFD\u00e9\uFFFD");
  EXPECT_EQ(IncompleteUtf8Suffix("a\xF0\x9F\x98"), 3u);
  EXPECT_EQ(IncompleteUtf8Suffix("a\xF0\x9F\x98\x80"), 0u);
  EXPECT_EQ(IncompleteUtf8Suffix("\xE0\x80"), 0u) << "can never become a character";
  EXPECT_EQ(IncompleteUtf8Suffix("\x80\x80\x80\x80"), 0u);
}

}  // namespace
}  // namespace moebius
