#include "core/layers/rotary.h"

#include <cmath>

#include "gtest/gtest.h"
#include "tests/core/layers/bench.h"

namespace moebius {
namespace {

const RopeScaling kV3Yarn = {.kind = RopeScalingKind::kYarn,
                             .factor = 40,
                             .original_max_position_embeddings = 4096,
                             .beta_fast = 32,
                             .beta_slow = 1,
                             .mscale = 1,
                             .mscale_all_dim = 1};

TEST(RotaryTest, PlainFrequenciesAreAGeometricSeries) {
  const std::vector<double> f = RopeFrequencies(8, 10000, {});
  ASSERT_EQ(f.size(), 4u);
  for (int i = 0; i < 4; ++i) EXPECT_NEAR(f[i], std::pow(10.0, -i), 1e-12) << i;
}

// DeepSeek-V3's numbers: 64 dimensions, base 10000, factor 40 over 4096 positions. The dimensions that make
// 32 and 1 turns in 4096 positions are 10.47 and 22.51, so 0..10 keep their frequency and 23.. are divided
// by 40.
TEST(RotaryTest, YarnDividesSlowFrequenciesAndRampsBetween) {
  const std::vector<double> plain = RopeFrequencies(64, 10000, {});
  const std::vector<double> f = RopeFrequencies(64, 10000, kV3Yarn);
  for (int i = 0; i <= 10; ++i) EXPECT_DOUBLE_EQ(f[i], plain[i]) << i;
  for (int i = 23; i < 32; ++i) EXPECT_DOUBLE_EQ(f[i], plain[i] / 40) << i;
  for (int i = 11; i < 23; ++i) {
    const double ramp = (i - 10) / 13.0;
    EXPECT_NEAR(f[i], plain[i] / 40 * ramp + plain[i] * (1 - ramp), 1e-12) << i;
  }
}

TEST(RotaryTest, YarnScalesScoresNotRotationsInV3) {
  EXPECT_NEAR(YarnMscale(40, 1), 1.3689, 1e-4);
  EXPECT_DOUBLE_EQ(RopeAttentionFactor(kV3Yarn), 1);
  RopeScaling without = kV3Yarn;
  without.mscale_all_dim = 0;
  EXPECT_NEAR(RopeAttentionFactor(without), 1.3689, 1e-4);
  EXPECT_DOUBLE_EQ(YarnMscale(1, 1), 1);
  EXPECT_DOUBLE_EQ(RopeAttentionFactor({}), 1);
}

// transformers' _compute_llama3_parameters for Llama-3.1: factor 8, low 1, high 4, original 8192, base
// 500000.
TEST(RotaryTest, Llama3DividesLongWavesAndBlendsTheMiddle) {
  const RopeScaling scaling{.kind = RopeScalingKind::kLlama3,
                            .factor = 8,
                            .original_max_position_embeddings = 8192,
                            .low_freq_factor = 1,
                            .high_freq_factor = 4};
  const std::vector<double> plain = RopeFrequencies(128, 500000, {}),
                            f = RopeFrequencies(128, 500000, scaling);
  int kept = 0, divided = 0, blended = 0;
  for (int i = 0; i < 64; ++i) {
    const double wave = 2 * M_PI / plain[i];
    if (wave < 2048) {
      EXPECT_DOUBLE_EQ(f[i], plain[i]);
      ++kept;
    } else if (wave > 8192) {
      EXPECT_DOUBLE_EQ(f[i], plain[i] / 8);
      ++divided;
    } else {
      const double smooth = (8192 / wave - 1) / 3;
      EXPECT_NEAR(f[i], (1 - smooth) * plain[i] / 8 + smooth * plain[i], 1e-15);
      ++blended;
    }
  }
  EXPECT_GT(kept, 0);
  EXPECT_GT(divided, 0);
  EXPECT_GT(blended, 0);
}

TEST(RotaryTest, TablesHoldCosineAndSineOfPositionTimesFrequency) {
  Bench bench;
  RopeScaling scaling = kV3Yarn;
  scaling.mscale_all_dim = 0;
  const RotaryTable table =
      MakeRotaryTable(bench.backend(), bench.stream(), 5000, 64, 10000, scaling, RopeStyle::kInterleaved);
  const std::vector<double> f = RopeFrequencies(64, 10000, scaling);
  const std::vector<float> cos = bench.Read(table.cos), sin = bench.Read(table.sin);
  const double factor = RopeAttentionFactor(scaling);
  for (const int p : {0, 1, 77, 4999}) {
    for (const int i : {0, 5, 31}) {
      EXPECT_NEAR(cos[p * 32 + i], factor * std::cos(p * f[i]), 1e-6) << p << " " << i;
      EXPECT_NEAR(sin[p * 32 + i], factor * std::sin(p * f[i]), 1e-6) << p << " " << i;
    }
  }
}

}  // namespace
}  // namespace moebius
