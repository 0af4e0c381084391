#include "data/tokenizer/bpe_trainer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <ctime>
#include <map>
#include <random>

#include "core/base/status.h"
#include "data/tokenizer/byte_alphabet.h"
#include "tests/data/tokenizer/naive_bpe.h"

namespace moebius {
namespace {

absl::StatusOr<Tokenizer> TrainOn(const std::vector<std::string_view>& documents,
                                  const BpeTrainerOptions& options) {
  absl::StatusOr<BpeTrainer> trainer = BpeTrainer::Create(options);
  if (!trainer.ok()) return trainer.status();
  trainer->AddDocuments(documents);
  return trainer->Train();
}

std::string RandomWords(uint32_t seed, int num_words) {
  std::mt19937 random(seed);
  std::string text;
  for (int i = 0; i < num_words; ++i) {
    if (i > 0) text += random() % 9 == 0 ? "\n" : " ";
    const size_t length = 1 + random() % (random() % 20 == 0 ? 60 : 8);
    for (size_t j = 0; j < length; ++j) text += "aabcde\xC3\xA9"[random() % 8];
  }
  return text;
}

std::vector<std::pair<int32_t, int32_t>> MergesOf(const Tokenizer& tokenizer) {
  std::vector<std::pair<int32_t, int32_t>> merges;
  const absl::StatusOr<TokenizerSpec> spec = ParseTokenizerJson(tokenizer.json(), "trained");
  EXPECT_TRUE(spec.ok()) << spec.status();
  for (const TokenizerSpec::Merge& merge : spec->merges) {
    merges.emplace_back(merge.left, merge.right);
  }
  return merges;
}

TEST(BpeTrainer, FindsTheMergesOfTheDefinition) {
  for (uint32_t seed = 0; seed < 12; ++seed) {
    const std::string text = RandomWords(seed, 300);
    std::map<std::string, int64_t> counts;
    std::vector<size_t> ends;
    PreTokenizer(PreTokenizerKind::kGpt2).Split(text, 0, text.size(), &ends);
    for (size_t i = 0; i < ends.size(); ++i) {
      const size_t begin = i == 0 ? 0 : ends[i - 1];
      ++counts[text.substr(begin, ends[i] - begin)];
    }
    std::map<unsigned char, int32_t> byte_ids;
    for (const unsigned char byte : ByteAlphabet().BytesInCharacterOrder()) {
      byte_ids.emplace(byte, static_cast<int32_t>(3 + byte_ids.size()));
    }
    std::vector<std::pair<std::vector<int32_t>, int64_t>> words;
    for (const auto& [word, count] : counts) {
      words.push_back({{}, count});
      for (const unsigned char byte : word) words.back().first.push_back(byte_ids[byte]);
    }
    const absl::StatusOr<Tokenizer> tokenizer =
        TrainOn({text}, {.vocab_size = 259 + 120, .pre_tokenizer = PreTokenizerKind::kGpt2});
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
    EXPECT_EQ(MergesOf(*tokenizer), NaiveTrain(words, 259, 120)) << "seed " << seed;
  }
}

TEST(BpeTrainer, GivesTheSameForAnyThreadsCallsAndOrder) {
  std::vector<std::string> texts;
  for (uint32_t seed = 0; seed < 20; ++seed) texts.push_back(RandomWords(seed, 500));
  std::vector<std::string_view> documents(texts.begin(), texts.end());
  const absl::StatusOr<Tokenizer> once = TrainOn(documents, {.vocab_size = 600});
  ASSERT_TRUE(once.ok()) << once.status();
  EXPECT_EQ(once->vocab_size(), 600);

  const absl::StatusOr<Tokenizer> threads = TrainOn(documents, {.vocab_size = 600, .threads = 3});
  EXPECT_EQ(threads->json(), once->json());

  std::reverse(documents.begin(), documents.end());
  absl::StatusOr<BpeTrainer> trainer = BpeTrainer::Create({.vocab_size = 600});
  for (const std::string_view document : documents) trainer->AddDocuments(std::span(&document, 1));
  EXPECT_EQ(trainer->Train()->json(), once->json());
}

TEST(BpeTrainer, CutsLargeDocumentsWithoutChangingTheResult) {
  std::string text = RandomWords(1, 20000);
  std::string large;
  while (large.size() < (5 << 20)) large += text + "\n";
  absl::StatusOr<BpeTrainer> whole = BpeTrainer::Create({.vocab_size = 500, .threads = 2});
  const std::string_view view = large;
  whole->AddDocuments(std::span(&view, 1));
  EXPECT_EQ(whole->bytes(), static_cast<int64_t>(large.size()));
  absl::StatusOr<BpeTrainer> parts = BpeTrainer::Create({.vocab_size = 500});
  for (size_t at = 0; at < large.size(); at += text.size() + 1) {
    const std::string_view part = view.substr(at, text.size() + 1);
    parts->AddDocuments(std::span(&part, 1));
  }
  EXPECT_EQ(whole->Train()->json(), parts->Train()->json());
}

TEST(BpeTrainer, PutsSpecialTokensFirstAndKeepsThemWhole) {
  const std::string text = RandomWords(3, 400);
  const absl::StatusOr<Tokenizer> tokenizer = TrainOn({text}, {.vocab_size = 300});
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ(tokenizer->TokenToId("<｜begin▁of▁sentence｜>"), 0);
  EXPECT_EQ(tokenizer->TokenToId("<｜end▁of▁sentence｜>"), 1);
  EXPECT_EQ(tokenizer->TokenToId("<｜▁pad▁｜>"), 2);
  EXPECT_EQ(tokenizer->TokenToId("!"), 3);
  EXPECT_TRUE(tokenizer->IsSpecial(1));
  EXPECT_EQ(tokenizer->Encode("<｜end▁of▁sentence｜>"), std::vector<int32_t>{1});
  EXPECT_EQ(tokenizer->Decode(tokenizer->Encode(text)), text);
}

TEST(BpeTrainer, ReusesASpecialTokenThatAMergeSpells) {
  // As in HF: the merge leads to the special token's id, and the vocabulary does not grow by it.
  const absl::StatusOr<Tokenizer> tokenizer =
      TrainOn({"abc abc abc abd"}, {.vocab_size = 262, .special_tokens = {"ab", "abc"}});
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  const absl::StatusOr<TokenizerSpec> spec = ParseTokenizerJson(tokenizer->json(), "trained");
  ASSERT_GE(spec->merges.size(), 2u);
  EXPECT_EQ(spec->merges[0].result, 0);
  EXPECT_EQ(spec->merges[1].result, 1);
  EXPECT_GT(spec->merges.size(), spec->vocab.size() - 258);
}

TEST(BpeTrainer, EndsEarlyWhenNoPairIsFrequentEnough) {
  const absl::StatusOr<Tokenizer> tokenizer = TrainOn({"ab ab cd"}, {.vocab_size = 1000, .min_count = 2});
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ(MergesOf(*tokenizer).size(), 1u);
}

TEST(BpeTrainer, TrainsOnOneHugeWordInLinearTime) {
  std::mt19937 random(5);
  std::string text(1 << 21, 'a');
  for (char& c : text) c = static_cast<char>('a' + random() % 3);
  const std::clock_t start = std::clock();
  const absl::StatusOr<Tokenizer> tokenizer = TrainOn({text}, {.vocab_size = 2000});
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ(tokenizer->vocab_size(), 2000);
  EXPECT_LT(static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC, 60);
}

TEST(BpeTrainer, RefusesWhatCannotBeTrained) {
  EXPECT_EQ(ExitCode(BpeTrainer::Create({.vocab_size = 258}).status()), kExitUsage);
  EXPECT_EQ(ExitCode(BpeTrainer::Create({.special_tokens = {"a", "a"}}).status()), kExitUsage);
  EXPECT_EQ(ExitCode(BpeTrainer::Create({.special_tokens = {""}}).status()), kExitUsage);
  EXPECT_EQ(ExitCode(TrainOn({}, {}).status()), kExitDamaged);
  EXPECT_EQ(ExitCode(TrainOn({""}, {}).status()), kExitDamaged);
}

}  // namespace
}  // namespace moebius
