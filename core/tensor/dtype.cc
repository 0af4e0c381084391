#include "core/tensor/dtype.h"

#include <cmath>
#include <limits>

#include "core/base/check.h"

namespace moebius {
namespace {

struct Entry {
  DType dtype;
  std::string_view name;
  int64_t size;
};
constexpr Entry kEntries[] = {
    {DType::kF64, "F64", 8},   {DType::kF32, "F32", 4},        {DType::kF16, "F16", 2},
    {DType::kBF16, "BF16", 2}, {DType::kF8E4M3, "F8_E4M3", 1}, {DType::kF8E5M2, "F8_E5M2", 1},
    {DType::kI64, "I64", 8},   {DType::kI32, "I32", 4},        {DType::kI16, "I16", 2},
    {DType::kI8, "I8", 1},     {DType::kU32, "U32", 4},        {DType::kU16, "U16", 2},
    {DType::kU8, "U8", 1},     {DType::kBool, "BOOL", 1},
};

const Entry& Find(DType dtype) {
  const size_t i = static_cast<size_t>(dtype);
  CHECK_LT(i, std::size(kEntries));
  return kEntries[i];
}

}  // namespace

int64_t SizeOf(DType dtype) { return Find(dtype).size; }
std::string_view Name(DType dtype) { return Find(dtype).name; }

std::optional<DType> DTypeFromName(std::string_view name) {
  for (const Entry& entry : kEntries) {
    if (entry.name == name) return entry.dtype;
  }
  return std::nullopt;
}

std::ostream& operator<<(std::ostream& out, DType dtype) { return out << Name(dtype); }

float F16ToFloat(uint16_t bits) {
  const int exponent = (bits >> 10) & 31;
  const int mantissa = bits & 1023;
  const float sign = (bits & 0x8000) ? -1.0f : 1.0f;
  if (exponent == 31)
    return mantissa ? std::numeric_limits<float>::quiet_NaN() : sign * std::numeric_limits<float>::infinity();
  if (exponent == 0) return sign * std::ldexp(static_cast<float>(mantissa), -24);
  return sign * std::ldexp(static_cast<float>(mantissa + 1024), exponent - 25);
}

float F8E4M3ToFloat(uint8_t bits) {
  const int exponent = (bits >> 3) & 15;
  const int mantissa = bits & 7;
  const float sign = (bits & 0x80) ? -1.0f : 1.0f;
  if (exponent == 15 && mantissa == 7) return std::numeric_limits<float>::quiet_NaN();
  if (exponent == 0) return sign * std::ldexp(static_cast<float>(mantissa), -9);
  return sign * std::ldexp(static_cast<float>(mantissa + 8), exponent - 10);
}

}  // namespace moebius
