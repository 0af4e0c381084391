// Reads little-endian numbers, strings and typed values of a GGUF header from front to back, never beyond the
// file's end. Every error names file, field and byte.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>

#include "core/base/status.h"
#include "core/io/gguf.h"

namespace moebius {

static_assert(std::endian::native == std::endian::little, "numbers are copied as they lie in the file");

class GgufCursor {
 public:
  GgufCursor(std::span<const std::byte> bytes, const std::string& source) : bytes_(bytes), source_(source) {}

  int64_t position() const { return position_; }
  int64_t left() const { return static_cast<int64_t>(bytes_.size()) - position_; }

  // `field` is what messages call the thing being read.
  template <typename T>
  absl::StatusOr<T> Number(std::string_view field) {
    if (left() < static_cast<int64_t>(sizeof(T))) return EndsInside(field);
    T value;
    std::memcpy(&value, bytes_.data() + position_, sizeof(T));
    position_ += sizeof(T);
    return value;
  }
  // A count of things that take `least` bytes each at least: refused when they cannot be in the file.
  absl::StatusOr<int64_t> Count(std::string_view field, int64_t least, int64_t max);
  absl::StatusOr<std::string_view> String(std::string_view field);
  // A value with its type before it.
  absl::StatusOr<GgufValue> Value(std::string_view field);
  absl::Status Damaged(std::string_view field, const std::string& what) const;

 private:
  absl::Status EndsInside(std::string_view field) const;
  absl::StatusOr<GgufValue> Array(std::string_view field);
  absl::StatusOr<GgufValue> Scalar(uint32_t type, std::string_view field);

  std::span<const std::byte> bytes_;
  const std::string& source_;
  int64_t position_ = 0;
};

}  // namespace moebius
