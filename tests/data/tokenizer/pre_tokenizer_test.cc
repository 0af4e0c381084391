#include "data/tokenizer/pre_tokenizer.h"

#include <gtest/gtest.h>

#include <cctype>
#include <ctime>
#include <nlohmann/json.hpp>
#include <random>

#include "core/io/json.h"
#include "core/io/line_reader.h"

namespace moebius {
namespace {

std::vector<size_t> Ends(PreTokenizerKind kind, std::string_view text, size_t at_once = 512) {
  std::vector<size_t> ends;
  const PreTokenizer pre_tokenizer(kind);
  for (size_t begin = 0; begin < text.size();) begin = pre_tokenizer.Split(text, begin, at_once, &ends);
  return ends;
}

std::vector<std::string> Pieces(PreTokenizerKind kind, std::string_view text) {
  std::vector<std::string> pieces;
  size_t begin = 0;
  for (const size_t end : Ends(kind, text)) {
    pieces.emplace_back(text.substr(begin, end - begin));
    begin = end;
  }
  return pieces;
}

const PreTokenizerKind kSplitting[] = {PreTokenizerKind::kGpt2, PreTokenizerKind::kDeepSeekV3,
                                       PreTokenizerKind::kLlama3, PreTokenizerKind::kQwen2,
                                       PreTokenizerKind::kSmolLm};

TEST(PreTokenizer, SplitsEveryGoldenTextAsHuggingFaceDoes) {
  absl::StatusOr<LineReader> reader =
      LineReader::Open(MOEBIUS_SOURCE_DIR "/tests/data/tokenizer/fixture/pieces.jsonl");
  ASSERT_TRUE(reader.ok()) << reader.status();
  int num_lines = 0;
  for (std::string_view text; *reader->Next(&text); ++num_lines) {
    const absl::StatusOr<nlohmann::json> line = ParseJson(text, reader->Where());
    ASSERT_TRUE(line.ok()) << line.status();
    for (const PreTokenizerKind kind : kSplitting) {
      const std::string name(PreTokenizerName(kind));
      EXPECT_EQ(Ends(kind, line->at("text").get<std::string>()), line->at(name).get<std::vector<size_t>>())
          << name << ", " << reader->Where();
    }
  }
  EXPECT_GT(num_lines, 150);
}

TEST(PreTokenizer, LooksAheadOnlyInsideThePieceOfTheSplitBefore) {
  using Strings = std::vector<std::string>;
  EXPECT_EQ(Pieces(PreTokenizerKind::kDeepSeekV3, "a  12"), (Strings{"a", "  ", "12"}));
  EXPECT_EQ(Pieces(PreTokenizerKind::kDeepSeekV3, "a  b"), (Strings{"a", " ", " b"}));
  EXPECT_EQ(Pieces(PreTokenizerKind::kGpt2, "a  12"), (Strings{"a", " ", " 12"}));
  EXPECT_EQ(Pieces(PreTokenizerKind::kSmolLm, "a  12"), (Strings{"a", "  ", "1", "2"}));
  EXPECT_EQ(Pieces(PreTokenizerKind::kNone, "a  12"), (Strings{"a  12"}));
}

TEST(PreTokenizer, CoversAnyBytesWithPiecesThatAreNotEmpty) {
  std::mt19937 random(1);
  for (int round = 0; round < 2000; ++round) {
    std::string text(random() % 200, '\0');
    const bool mostly_ascii = round % 2 == 0;
    for (char& c : text) c = static_cast<char>(mostly_ascii && random() % 8 != 0 ? random() % 128 : random());
    for (const PreTokenizerKind kind : kSplitting) {
      const std::vector<size_t> ends = Ends(kind, text);
      size_t begin = 0;
      for (const size_t end : ends) {
        ASSERT_GT(end, begin);
        begin = end;
      }
      ASSERT_EQ(begin, text.size());
      ASSERT_EQ(Ends(kind, text, 1), ends) << "one piece at a time";
    }
  }
}

TEST(PreTokenizer, CutsLargeTextWhereNoPieceIsDivided) {
  std::mt19937 random(2);
  const std::string_view parts[] = {"word", " and", " then",   "\n",   "\n\n", "  ",   "12", "!?", " (",
                                    "\t",   "é",    " \u3000", "中文", "'s",   "\r\n", "x",  "\n "};
  int num_safe = 0;
  for (int round = 0; round < 3000; ++round) {
    std::string text;
    while (text.size() < 120) text += parts[random() % std::size(parts)];
    const size_t limit = 60 + random() % 50;
    const size_t cut = PreTokenizer::SafeCut(text, limit);
    ASSERT_GT(cut, 0u);
    ASSERT_LE(cut, limit);
    // So near to the limit it may be a cut for want of a safe place, which divides pieces.
    if (limit - cut < 3) continue;
    ++num_safe;
    for (const PreTokenizerKind kind : kSplitting) {
      std::vector<size_t> divided = Ends(kind, text.substr(0, cut));
      for (const size_t end : Ends(kind, text.substr(cut))) divided.push_back(cut + end);
      ASSERT_EQ(divided, Ends(kind, text)) << PreTokenizerName(kind) << " cut at " << cut << " of:\n" << text;
    }
  }
  EXPECT_GT(num_safe, 1000);
}

TEST(PreTokenizer, CutsTextWithoutASafePlaceBetweenCharacters) {
  const std::string text = "\u4e2d\u6587\u4e2d\u6587\u4e2d\u6587";
  for (size_t limit = 3; limit < text.size(); ++limit) {
    EXPECT_EQ(PreTokenizer::SafeCut(text, limit), limit / 3 * 3);
  }
}

TEST(PreTokenizer, TakesTimeInProportionToHostileText) {
  // 8 MB each; what is quadratic would take hours.
  for (const std::string_view unit :
       {"a", " ", "1", "\n", "!", "\u0301", "\u200d", "\x01", "'", " \n", "\xFF", "中"}) {
    std::string text;
    while (text.size() < (8 << 20)) text += unit;
    for (const PreTokenizerKind kind : kSplitting) {
      const std::clock_t start = std::clock();
      Ends(kind, text);
      EXPECT_LT(static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC, 5) << PreTokenizerName(kind);
    }
  }
}

TEST(PreTokenizer, KnowsItsNames) {
  for (const std::string& name : PreTokenizerNames()) {
    ASSERT_TRUE(PreTokenizerFromName(name).has_value());
    EXPECT_EQ(PreTokenizerName(*PreTokenizerFromName(name)), name);
  }
  EXPECT_FALSE(PreTokenizerFromName("gpt3").has_value());
}

}  // namespace
}  // namespace moebius
