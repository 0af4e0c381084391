#include "core/model/microbatch.h"

#include "gtest/gtest.h"
#include "tests/core/layers/bench.h"

namespace moebius {
namespace {

using Ints = std::vector<int32_t>;

TEST(MicrobatchTest, TargetsAreTheNextTokensAndTheLastTokenIsOnlyALabel) {
  Bench bench;
  Microbatch mb(bench.backend(), 0);
  const Ints tokens = {10, 11, 12, 13, 20, 21, 22, 23};
  mb.Load(bench.stream(), tokens, 2, 3, 0);
  EXPECT_EQ(mb.tokens(), 6);
  EXPECT_EQ(bench.ReadInts(mb.ids), (Ints{10, 11, 12, 20, 21, 22}));
  EXPECT_EQ(bench.ReadInts(mb.targets), (Ints{11, 12, 13, 21, 22, 23}));
  EXPECT_EQ(bench.ReadInts(mb.layout.positions), (Ints{0, 1, 2, 0, 1, 2}));
  EXPECT_EQ(mb.layout.sequence_starts, (Ints{0, 3, 6}));
  EXPECT_EQ(mb.layout.attention_starts, (Ints{0, 3, 6}));
  EXPECT_TRUE(mb.depths.empty());
}

// Depth k works on positions i with a target t[i + k + 1] inside the sequence: length - k of them.
TEST(MicrobatchTest, MtpDepthsHoldThePositionsThatHaveATarget) {
  Bench bench;
  Microbatch mb(bench.backend(), 0);
  const Ints tokens = {10, 11, 12, 13, 20, 21, 22, 23};
  mb.Load(bench.stream(), tokens, 2, 3, 3);
  ASSERT_EQ(mb.depths.size(), 3u);
  EXPECT_EQ(bench.ReadInts(mb.depths[0].ids), (Ints{11, 12, 21, 22}));
  EXPECT_EQ(bench.ReadInts(mb.depths[0].targets), (Ints{12, 13, 22, 23}));
  EXPECT_EQ(bench.ReadInts(mb.depths[0].layout.positions), (Ints{0, 1, 0, 1}));
  EXPECT_EQ(mb.depths[0].layout.sequence_starts, (Ints{0, 2, 4}));
  EXPECT_EQ(bench.ReadInts(mb.depths[1].ids), (Ints{12, 22}));
  EXPECT_EQ(bench.ReadInts(mb.depths[1].targets), (Ints{13, 23}));
  EXPECT_EQ(mb.depths[1].layout.sequence_starts, (Ints{0, 1, 2}));
  EXPECT_EQ(mb.depths[2].layout.tokens(), 0);
}

TEST(MicrobatchTest, DocumentMasksCutWhatAttentionSeesNotPositionsNorBalance) {
  Bench bench;
  Microbatch mb(bench.backend(), 0);
  const Ints tokens = {10, 11, 12, 13, 14, 20, 21, 22, 23, 24};
  mb.Load(bench.stream(), tokens, 2, 4, 1, {{0, 2, 4}, {3}});
  EXPECT_EQ(mb.layout.sequence_starts, (Ints{0, 4, 8}));
  EXPECT_EQ(mb.layout.attention_starts, (Ints{0, 2, 4, 7, 8}));
  EXPECT_EQ(bench.ReadInts(mb.layout.positions), (Ints{0, 1, 2, 3, 0, 1, 2, 3}));
  EXPECT_EQ(mb.depths[0].layout.attention_starts, (Ints{0, 2, 3, 6}))
      << "a start beyond the depth's end is none";
}

TEST(MicrobatchTest, RaggedSequencesHaveNoTargetAtTheirEnds) {
  Bench bench;
  Microbatch mb(bench.backend(), 0);
  const Ints tokens = {10, 11, 12, 20, 30, 31}, starts = {0, 3, 4, 6};
  mb.LoadRagged(bench.stream(), tokens, starts);
  EXPECT_EQ(bench.ReadInts(mb.ids), tokens);
  EXPECT_EQ(bench.ReadInts(mb.targets), (Ints{11, 12, -1, -1, 31, -1}));
  EXPECT_EQ(bench.ReadInts(mb.layout.positions), (Ints{0, 1, 2, 0, 0, 1}));
  EXPECT_EQ(mb.layout.attention_starts, starts);
}

TEST(MicrobatchTest, ALoadReplacesTheOneBefore) {
  Bench bench;
  Microbatch mb(bench.backend(), 0);
  const Ints large = {1, 2, 3, 4, 5, 6, 7, 8, 9};
  mb.Load(bench.stream(), large, 1, 8, 2);
  const Ints small = {5, 6, 7};
  mb.Load(bench.stream(), small, 1, 2, 1);
  EXPECT_EQ(bench.ReadInts(mb.ids), (Ints{5, 6}));
  EXPECT_EQ(bench.ReadInts(mb.targets), (Ints{6, 7}));
  ASSERT_EQ(mb.depths.size(), 1u);
  EXPECT_EQ(bench.ReadInts(mb.depths[0].targets), (Ints{7}));
  mb.Load(bench.stream(), large, 1, 8, 2);
  EXPECT_EQ(bench.ReadInts(mb.depths[1].targets), (Ints{4, 5, 6, 7, 8, 9}));
}

TEST(MicrobatchTest, LossesAreSummedInDouble) {
  Bench bench;
  std::vector<float> values(1 << 16, 1e-4f);
  values[0] = 1e4f;
  const Tensor losses = bench.Floats(DType::kF32, {1 << 16}, values);
  EXPECT_NEAR(SumLosses(bench.backend(), bench.stream(), losses), 1e4 + 65535 * static_cast<double>(1e-4f),
              1e-6);
}

}  // namespace
}  // namespace moebius
