#include "core/tensor/dtype.h"

#include <cmath>
#include <limits>

#include "gtest/gtest.h"

namespace moebius {
namespace {

TEST(DTypeTest, NamesAreThoseOfSafetensorsAndReadBack) {
  EXPECT_EQ(Name(DType::kBF16), "BF16");
  EXPECT_EQ(Name(DType::kF8E4M3), "F8_E4M3");
  for (const DType dtype :
       {DType::kF64, DType::kF32, DType::kF16, DType::kBF16, DType::kF8E4M3, DType::kF8E5M2, DType::kI64,
        DType::kI32, DType::kI16, DType::kI8, DType::kU32, DType::kU16, DType::kU8, DType::kBool}) {
    EXPECT_EQ(DTypeFromName(Name(dtype)), dtype);
    EXPECT_GE(SizeOf(dtype), 1);
  }
  EXPECT_EQ(DTypeFromName("F31"), std::nullopt);
}

TEST(DTypeTest, Bf16RoundsToNearestEven) {
  const auto round = [](float value) { return BF16::FromFloat(value).ToFloat(); };
  EXPECT_EQ(round(1.0f), 1.0f);
  EXPECT_EQ(round(1.00390625f), 1.0f) << "a tie goes to the even neighbour, down";
  EXPECT_EQ(round(1.01171875f), 1.015625f) << "a tie goes to the even neighbour, up";
  EXPECT_EQ(round(1.00390637f), 1.0078125f);
  EXPECT_EQ(round(-2.5f), -2.5f);
  EXPECT_EQ(round(3.4028235e38f), std::numeric_limits<float>::infinity());
  EXPECT_EQ(round(-std::numeric_limits<float>::infinity()), -std::numeric_limits<float>::infinity());
  EXPECT_TRUE(std::isnan(round(std::nanf(""))));
  EXPECT_TRUE(std::isnan(round(std::bit_cast<float>(0x7F800001u)))) << "the payload must not round away";
  EXPECT_TRUE(std::signbit(round(-0.0f)));
}

TEST(DTypeTest, F16Decodes) {
  EXPECT_EQ(F16ToFloat(0x3C00), 1.0f);
  EXPECT_EQ(F16ToFloat(0xC000), -2.0f);
  EXPECT_EQ(F16ToFloat(0x7BFF), 65504.0f);
  EXPECT_EQ(F16ToFloat(0x0001), std::ldexp(1.0f, -24));
  EXPECT_EQ(F16ToFloat(0x03FF), std::ldexp(1023.0f, -24));
  EXPECT_EQ(F16ToFloat(0x7C00), std::numeric_limits<float>::infinity());
  EXPECT_TRUE(std::isnan(F16ToFloat(0x7E00)));
}

TEST(DTypeTest, F8E4M3Decodes) {
  EXPECT_EQ(F8E4M3ToFloat(0x38), 1.0f);
  EXPECT_EQ(F8E4M3ToFloat(0xB8), -1.0f);
  EXPECT_EQ(F8E4M3ToFloat(0x7E), 448.0f);
  EXPECT_EQ(F8E4M3ToFloat(0x01), std::ldexp(1.0f, -9));
  EXPECT_EQ(F8E4M3ToFloat(0x07), std::ldexp(7.0f, -9));
  EXPECT_EQ(F8E4M3ToFloat(0x08), std::ldexp(1.0f, -6));
  EXPECT_TRUE(std::isnan(F8E4M3ToFloat(0x7F)));
  EXPECT_TRUE(std::isnan(F8E4M3ToFloat(0xFF)));
}

}  // namespace
}  // namespace moebius
