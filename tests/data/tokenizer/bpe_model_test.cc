#include "data/tokenizer/bpe_model.h"

#include <gtest/gtest.h>

#include <ctime>
#include <random>

#include "tests/data/tokenizer/naive_bpe.h"

namespace moebius {
namespace {

// A model whose tokens are the letters a to d and random joins of earlier tokens, ranked in random order:
// pairs of low rank can come up late, as in no trained model.
struct RandomModel {
  explicit RandomModel(uint32_t seed, bool in_order) {
    std::mt19937 random(seed);
    spec.byte_ids.fill(-1);
    std::vector<std::string> tokens;
    std::map<std::string, int32_t> ids;
    for (char c = 'a'; c <= 'd'; ++c) {
      spec.byte_ids[static_cast<unsigned char>(c)] = static_cast<int32_t>(tokens.size());
      ids[std::string(1, c)] = static_cast<int32_t>(tokens.size());
      tokens.emplace_back(1, c);
    }
    while (spec.merges.size() < 60) {
      const auto left = static_cast<int32_t>(random() % tokens.size());
      const auto right = static_cast<int32_t>(random() % tokens.size());
      const std::string joined = tokens[left] + tokens[right];
      if (joined.size() > 12 || merges.contains({left, right})) continue;
      const auto [entry, added] = ids.try_emplace(joined, static_cast<int32_t>(tokens.size()));
      if (added) tokens.push_back(joined);
      spec.merges.push_back({left, right, entry->second});
      merges[{left, right}] = {};
    }
    if (!in_order) std::shuffle(spec.merges.begin(), spec.merges.end(), random);
    for (size_t rank = 0; rank < spec.merges.size(); ++rank) {
      const BpeMerge& merge = spec.merges[rank];
      merges[{merge.left, merge.right}] = {static_cast<int32_t>(rank), merge.result};
    }
    for (const auto& [token, id] : ids) spec.tokens.emplace_back(token, id);
  }
  std::vector<int32_t> Naive(std::string_view text) const {
    std::vector<int32_t> symbols;
    for (const unsigned char c : text) symbols.push_back(spec.byte_ids[c]);
    return NaiveMerge(symbols, merges);
  }
  BpeModelSpec spec;
  std::map<std::pair<int32_t, int32_t>, std::pair<int32_t, int32_t>> merges;
};

std::vector<int32_t> Encode(const BpeModel& model, std::string_view text, BpeModel::Scratch* scratch) {
  std::vector<int32_t> ids;
  const size_t end = text.size();
  model.EncodePieces(text, 0, std::span(&end, 1), scratch, &ids);
  return ids;
}

TEST(BpeModel, MergesAsTheDefinitionSaysShortLongAndCached) {
  for (uint32_t seed = 0; seed < 60; ++seed) {
    const RandomModel random_model(seed, seed % 2 == 0);
    const BpeModel model(random_model.spec);
    BpeModel::Scratch scratch;
    std::mt19937 random(seed);
    for (int round = 0; round < 60; ++round) {
      const size_t lengths[] = {1 + random() % 6, 1 + random() % 24, 20 + random() % 40,
                                100 + random() % 300};
      std::string text(lengths[random() % 4], 'a');
      const int letters = 1 + static_cast<int>(random() % 4);
      for (char& c : text) c = static_cast<char>('a' + random() % letters);
      const std::vector<int32_t> expected = random_model.Naive(text);
      ASSERT_EQ(Encode(model, text, &scratch), expected) << "seed " << seed << ": " << text;
      ASSERT_EQ(Encode(model, text, &scratch), expected) << "again, seed " << seed << ": " << text;
    }
  }
}

TEST(BpeModel, EncodesManyPiecesAsEachAlone) {
  const RandomModel random_model(7, true);
  const BpeModel model(random_model.spec);
  BpeModel::Scratch scratch;
  std::mt19937 random(7);
  std::string text;
  std::vector<size_t> ends;
  std::vector<int32_t> expected;
  for (int piece = 0; piece < 5000; ++piece) {
    std::string part(1 + random() % (piece % 50 == 0 ? 200 : 9), 'a');
    for (char& c : part) c = static_cast<char>('a' + random() % 4);
    text += part;
    ends.push_back(text.size());
    const std::vector<int32_t> ids = random_model.Naive(part);
    expected.insert(expected.end(), ids.begin(), ids.end());
  }
  std::vector<int32_t> ids;
  model.EncodePieces(text, 0, ends, &scratch, &ids);
  EXPECT_EQ(ids, expected);
}

TEST(BpeModel, GivesUnknownBytesTheUnknownTokenOrNothing) {
  RandomModel random_model(3, true);
  BpeModelSpec& spec = random_model.spec;
  spec.merges.clear();
  BpeModel::Scratch scratch, scratch_unknown, scratch_fused;
  EXPECT_EQ(Encode(BpeModel(spec), "axxbx", &scratch), (std::vector<int32_t>{0, 1}));
  spec.unknown_id = 99;
  EXPECT_EQ(Encode(BpeModel(spec), "axxbx", &scratch_unknown), (std::vector<int32_t>{0, 99, 99, 1, 99}));
  spec.fuse_unknown = true;
  EXPECT_EQ(Encode(BpeModel(spec), "axxbx", &scratch_fused), (std::vector<int32_t>{0, 99, 1, 99}));
}

TEST(BpeModel, TakesAWholeWordBeforeMergesOnlyWhenTold) {
  BpeModelSpec spec;
  spec.byte_ids.fill(-1);
  for (int i = 0; i < 3; ++i) spec.byte_ids['a' + i] = i;
  spec.merges = {{1, 2, 3}, {0, 1, 4}};  // bc, ab
  spec.tokens = {{"a", 0}, {"b", 1}, {"c", 2}, {"bc", 3}, {"ab", 4}, {"abc", 5}};
  BpeModel::Scratch scratch, scratch_ignore;
  EXPECT_EQ(Encode(BpeModel(spec), "abc", &scratch), (std::vector<int32_t>{0, 3}));
  spec.ignore_merges = true;
  EXPECT_EQ(Encode(BpeModel(spec), "abc", &scratch_ignore), (std::vector<int32_t>{5}));
}

TEST(BpeModel, MergesHugeWordsInLinearTime) {
  // Powers of two of one letter: every merge makes work for the next.
  BpeModelSpec spec;
  spec.byte_ids.fill(0);
  for (int32_t i = 0; i < 16; ++i) spec.merges.push_back({i, i, i + 1});
  const BpeModel model(spec);
  BpeModel::Scratch scratch;
  const std::string text((1 << 22) + 1, 'a');
  const std::clock_t start = std::clock();
  const std::vector<int32_t> ids = Encode(model, text, &scratch);
  EXPECT_LT(static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC, 20);
  EXPECT_EQ(ids.size(), 65u);
  EXPECT_EQ(ids.front(), 16);
  EXPECT_EQ(ids.back(), 0);
}

}  // namespace
}  // namespace moebius
