#include "parallel/exchange/fp8_tiles.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "core/base/random.h"
#include "core/tensor/fp8.h"
#include "gtest/gtest.h"

namespace moebius {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// The nearest of all codes, by looking at each: even mantissa on ties, saturating.
uint8_t Nearest(float x) {
  if (std::isnan(x)) return std::signbit(x) ? 0xFF : 0x7F;
  int best = 0;
  double distance = kInfinity;
  const double magnitude = std::min<double>(std::abs(x), 448);
  for (int code = 0; code < 0x7F; ++code) {
    const double d = std::abs(F8E4M3ToFloat(static_cast<uint8_t>(code)) - magnitude);
    if (d < distance || (d == distance && code % 2 == 0)) {
      best = code;
      distance = d;
    }
  }
  return static_cast<uint8_t>(best | (std::signbit(x) ? 0x80 : 0));
}

std::vector<float> RoundTrip(const std::vector<float>& x) {
  std::vector<uint8_t> wire(QuantizedBytes(static_cast<int64_t>(x.size())));
  std::vector<float> out(x.size());
  QuantizeRow(x.data(), static_cast<int64_t>(x.size()), wire.data());
  DequantizeRow(wire.data(), static_cast<int64_t>(x.size()), out.data());
  return out;
}

TEST(Fp8TilesTest, EveryCodeIsItsOwnNearest) {
  for (int code = 0; code < 256; ++code) {
    EXPECT_EQ(F8E4M3FromFloat(F8E4M3ToFloat(static_cast<uint8_t>(code))) & 0x7F, code & 0x7F);
    if ((code & 0x7F) == 0x7F) continue;
    EXPECT_EQ(F8E4M3FromFloat(F8E4M3ToFloat(static_cast<uint8_t>(code))), code);
  }
}

TEST(Fp8TilesTest, RoundsToNearestEvenAroundEveryCodeAndMidpoint) {
  for (int code = 0; code < 0x7E; ++code) {
    const float low = F8E4M3ToFloat(static_cast<uint8_t>(code));
    const float high = F8E4M3ToFloat(static_cast<uint8_t>(code + 1));
    for (const float x : {low, (low + high) / 2, high}) {
      for (const float y : {x, std::nextafter(x, -kInfinity), std::nextafter(x, kInfinity)}) {
        EXPECT_EQ(F8E4M3FromFloat(y), Nearest(y)) << y;
        EXPECT_EQ(F8E4M3FromFloat(-y), Nearest(-y)) << -y;
      }
    }
  }
}

TEST(Fp8TilesTest, SaturatesAndKeepsNaN) {
  for (const float x : {448.0f, 449.0f, 464.0f, 465.0f, 480.0f, 1e30f, kInfinity}) {
    EXPECT_EQ(F8E4M3FromFloat(x), 0x7E) << x;
    EXPECT_EQ(F8E4M3FromFloat(-x), 0xFE) << x;
  }
  EXPECT_EQ(F8E4M3FromFloat(NAN) & 0x7F, 0x7F);
  EXPECT_EQ(F8E4M3FromFloat(-NAN), 0xFF);
}

// The upper half of the bits of every float, with three lower halves.
TEST(Fp8TilesTest, AgreesWithTheReferenceAllOverTheFloats) {
  for (uint32_t high = 0; high < 0x10000; high += 7) {
    for (const uint32_t low : {0u, 1u, 0x8000u}) {
      const float x = std::bit_cast<float>(high << 16 | low);
      EXPECT_EQ(F8E4M3FromFloat(x), Nearest(x)) << x;
    }
  }
}

TEST(Fp8TilesTest, TheScaleIsTheSmallestPowerOfTwoThatFits) {
  for (const auto& [amax, exponent] : std::vector<std::pair<float, int>>{{448.0f, 0},
                                                                         {std::nextafter(448.0f, 1e9f), 1},
                                                                         {224.0f, -1},
                                                                         {225.0f, 0},
                                                                         {1.0f, -8},
                                                                         {1.75f, -8},
                                                                         {1.76f, -7},
                                                                         {0.0f, 0},
                                                                         {0x1p-140f, -127},
                                                                         {0x1p126f, 118}}) {
    uint8_t wire[2];
    QuantizeRow(&amax, 1, wire);
    EXPECT_EQ(wire[1] - 127, exponent) << amax;
  }
}

// A row's vectors and its last values one by one; 448 sets the scale to one.
TEST(Fp8TilesTest, RowsHaveTheCodesOfTheirValues) {
  std::vector<float> values = {NAN, -NAN, 0.0f, -0.0f, 448.0f};
  for (int code = 0; code < 0x7E; ++code) {
    const float low = F8E4M3ToFloat(static_cast<uint8_t>(code));
    const float middle = (low + F8E4M3ToFloat(static_cast<uint8_t>(code + 1))) / 2;
    for (const float x : {low, middle, std::nextafter(middle, 0.0f), std::nextafter(middle, 500.0f)}) {
      values.push_back(x);
      values.push_back(-x);
    }
  }
  for (size_t i = 0; i < values.size(); ++i) {
    // `x` at every place of a vector, in a tile of 37 whose last values are not a whole vector.
    std::vector<float> x(37, 448.0f);
    x[i % 36] = values[i];
    uint8_t wire[38];
    QuantizeRow(x.data(), 37, wire);
    EXPECT_EQ(wire[37], 127);
    for (int j = 0; j < 37; ++j) EXPECT_EQ(wire[j], F8E4M3FromFloat(x[j])) << x[j];
    float back[37];
    DequantizeRow(wire, 37, back);
    for (int j = 0; j < 37; ++j) {
      EXPECT_EQ(std::bit_cast<uint32_t>(back[j]) << 1, std::bit_cast<uint32_t>(F8E4M3ToFloat(wire[j])) << 1);
    }
  }
}

TEST(Fp8TilesTest, EachTileHasItsOwnScaleAndTheLastMayBeShort) {
  std::vector<float> x(300, 1.0f);
  x[5] = 1e6f;     // tile 0: its ones vanish
  x[290] = 1e-6f;  // tile 2 of 44 values
  const std::vector<float> y = RoundTrip(x);
  EXPECT_EQ(QuantizedBytes(300), 303);
  EXPECT_EQ(y[0], 0.0f);
  for (int i = 128; i < 300; ++i) {
    EXPECT_EQ(y[i], i == 290 ? 0.0f : 1.0f) << i;
  }
}

TEST(Fp8TilesTest, ErrorsStayWithinTheStatedBounds) {
  const RandomStream random(3, "test/fp8");
  for (int64_t row = 0; row < 400; ++row) {
    const int64_t n = 1 + row;
    std::vector<float> x(n);
    for (int64_t i = 0; i < n; ++i) {
      // Any mantissa, exponents over 30 binary orders around one that differs by row.
      const uint64_t bits = random.Below(row * 1000 + i, uint64_t{1} << 40);
      const float mantissa = 1 + static_cast<float>(bits & 0x7FFFFF) * 0x1p-23f;
      const int exponent = static_cast<int>(bits >> 23 & 31) + static_cast<int>(row % 200) - 115;
      x[i] = std::ldexp(bits >> 39 & 1 ? -mantissa : mantissa, exponent);
    }
    const std::vector<float> y = RoundTrip(x);
    for (int64_t tile = 0; tile < n; tile += kTile) {
      const int64_t end = std::min(n, tile + kTile);
      double amax = 0;
      for (int64_t i = tile; i < end; ++i) amax = std::max(amax, std::abs(static_cast<double>(x[i])));
      for (int64_t i = tile; i < end; ++i) {
        const double bound = std::max(std::abs(static_cast<double>(x[i])) / 16, amax * std::exp2(-17.8));
        EXPECT_LE(std::abs(static_cast<double>(y[i] - x[i])), bound) << x[i] << " of " << amax;
      }
    }
  }
}

TEST(Fp8TilesTest, SpecialValuesComeBack) {
  std::vector<float> x(256, 1.0f);
  x[3] = NAN;
  x[130] = kInfinity;
  x[140] = -kInfinity;
  const std::vector<float> y = RoundTrip(x);
  EXPECT_TRUE(std::isnan(y[3]));
  EXPECT_EQ(y[4], 1.0f);  // NaN does not choose the scale
  EXPECT_EQ(y[130], kInfinity);
  EXPECT_EQ(y[140], -kInfinity);
  EXPECT_EQ(RoundTrip(std::vector<float>(5, 0.0f)), std::vector<float>(5, 0.0f));
  EXPECT_TRUE(std::signbit(RoundTrip({-0.0f})[0]));
  for (int e = -16; e <= 0; ++e) EXPECT_EQ(RoundTrip({1.0f, std::ldexp(1.0f, e)})[1], std::ldexp(1.0f, e));
  EXPECT_EQ(RoundTrip({0x1p-130f})[0], 0x1p-130f);
}

TEST(Fp8TilesTest, Bf16RowsGiveTheCodesOfTheirFloats) {
  std::vector<float> x(200);
  std::vector<BF16> narrow(200), back(200);
  for (int i = 0; i < 200; ++i) {
    narrow[i] = BF16::FromFloat(std::sin(static_cast<float>(i)));
    x[i] = narrow[i].ToFloat();
  }
  std::vector<uint8_t> a(QuantizedBytes(200)), b(QuantizedBytes(200));
  QuantizeRow(x.data(), 200, a.data());
  QuantizeRow(narrow.data(), 200, b.data());
  EXPECT_EQ(a, b);
  DequantizeRow(b.data(), 200, back.data());
  const std::vector<float> wide = RoundTrip(x);
  for (int i = 0; i < 200; ++i) EXPECT_EQ(back[i].ToFloat(), wide[i]);  // three bits fit into bf16
}

}  // namespace
}  // namespace moebius
