#include "parallel/fp8_tiles.h"

#include <algorithm>

#include "parallel/row_values.h"

namespace moebius {
namespace {

constexpr int kBias = 127;
constexpr int kMaxExponent = 120;  // the largest that a finite float asks for; infinity takes it too

float PowerOfTwo(int exponent) {  // -126..127
  return std::bit_cast<float>(static_cast<uint32_t>(exponent + 127) << 23);
}

// The smallest e with amax <= 448 · 2^e, from the bits of amax: 448 is 1.75 · 2^8.
int ExponentFor(int32_t amax_bits) {
  if (amax_bits == 0) return 0;
  const int exponent = (amax_bits >> 23) - 127 - 8 + ((amax_bits & 0x7FFFFF) > 0x600000 ? 1 : 0);
  return std::clamp(exponent, -kBias, kMaxExponent);
}

}  // namespace

template <typename T>
void QuantizeRow(const T* x, int64_t n, uint8_t* out) {
  uint8_t* exponents = out + n;
  for (int64_t begin = 0; begin < n; begin += kTile) {
    const int64_t count = std::min(kTile, n - begin);
    int32_t amax = 0;
    for (int64_t i = begin; i < begin + count; ++i) {
      const int32_t magnitude = std::bit_cast<int32_t>(ToFloat(x[i])) & 0x7FFFFFFF;
      amax = std::max(amax, magnitude > 0x7F800000 ? 0 : magnitude);
    }
    const int exponent = ExponentFor(amax);
    const float scale = PowerOfTwo(-exponent);
    for (int64_t i = begin; i < begin + count; ++i) out[i] = F8E4M3FromFloat(ToFloat(x[i]) * scale);
    exponents[begin / kTile] = static_cast<uint8_t>(exponent + kBias);
  }
}

template <typename T>
void DequantizeRow(const uint8_t* in, int64_t n, T* x) {
  const uint8_t* exponents = in + n;
  for (int64_t begin = 0; begin < n; begin += kTile) {
    // 2^e alone may be too small for a normal float: in two steps.
    const int exponent = exponents[begin / kTile] - kBias;
    const float first = PowerOfTwo(120), second = PowerOfTwo(std::max(exponent, -126));
    const float third = exponent < -126 ? 0.5f : 1.0f;
    const int64_t end = begin + std::min(kTile, n - begin);
    for (int64_t i = begin; i < end; ++i) {
      const uint32_t code = in[i], magnitude = code & 0x7F;
      // The code's exponent and mantissa as those of a float, 2^120 too small; subnormals too.
      const float value = std::bit_cast<float>(magnitude << 20) * first * second * third;
      const uint32_t bits = magnitude == 0x7F ? 0x7FC00000u : std::bit_cast<uint32_t>(value);
      Set(std::bit_cast<float>(bits | ((code & 0x80) << 24)), x[i]);
    }
  }
}

template void QuantizeRow(const float*, int64_t, uint8_t*);
template void QuantizeRow(const BF16*, int64_t, uint8_t*);
template void DequantizeRow(const uint8_t*, int64_t, float*);
template void DequantizeRow(const uint8_t*, int64_t, BF16*);

}  // namespace moebius
