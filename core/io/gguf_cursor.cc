#include "core/io/gguf_cursor.h"

#include "core/base/strings.h"

namespace moebius {
namespace {

// Value types of the format.
enum : uint32_t {
  kUint8,
  kInt8,
  kUint16,
  kInt16,
  kUint32,
  kInt32,
  kFloat32,
  kBool,
  kString,
  kArray,
  kUint64,
  kInt64,
  kFloat64
};

// Bytes of one value of a type, of a string at least; 0 for an array or no type.
int64_t LeastBytes(uint32_t type) {
  constexpr int64_t kBytes[] = {1, 1, 2, 2, 4, 4, 4, 1, 8, 0, 8, 8, 8};
  return type < std::size(kBytes) ? kBytes[type] : 0;
}

// Moves `count` scalars that `next` reads into a list of their kind.
template <typename T, typename Next>
absl::StatusOr<GgufValue> Collect(int64_t count, const Next& next) {
  std::vector<T> out;
  out.reserve(count);
  for (int64_t i = 0; i < count; ++i) {
    ASSIGN_OR_RETURN(const GgufValue value, next());
    if (const bool* flag = std::get_if<bool>(&value)) {
      if constexpr (std::is_same_v<T, int64_t>) out.push_back(*flag ? 1 : 0);
    } else {
      out.push_back(std::get<T>(value));
    }
  }
  return out;
}

}  // namespace

absl::Status GgufCursor::Damaged(std::string_view field, const std::string& what) const {
  return DamagedError(
      Concat(source_, ": ", Printable(field), " ", what, "; the file is damaged; fetch it again"));
}

absl::Status GgufCursor::EndsInside(std::string_view field) const {
  return Damaged(field, Concat("begins at byte ", position_, " and goes beyond the file's end"));
}

absl::StatusOr<int64_t> GgufCursor::Count(std::string_view field, int64_t least, int64_t max) {
  ASSIGN_OR_RETURN(const uint64_t count, Number<uint64_t>(field));
  if (count > static_cast<uint64_t>(max)) return Damaged(field, Concat("is ", count, ", more than ", max));
  if (count > static_cast<uint64_t>(left() / least)) {
    return Damaged(field, Concat("is ", count, ", more than the ", left(), " bytes after it can hold"));
  }
  return static_cast<int64_t>(count);
}

absl::StatusOr<std::string_view> GgufCursor::String(std::string_view field) {
  ASSIGN_OR_RETURN(const uint64_t size, Number<uint64_t>(field));
  if (size > static_cast<uint64_t>(left())) {
    return Damaged(field, Concat("is a string of ", size, " bytes, the file has ", left(), " more"));
  }
  const std::string_view text(reinterpret_cast<const char*>(bytes_.data()) + position_, size);
  position_ += static_cast<int64_t>(size);
  return text;
}

absl::StatusOr<GgufValue> GgufCursor::Scalar(uint32_t type, std::string_view field) {
  switch (type) {
    case kUint8: {
      ASSIGN_OR_RETURN(const int64_t value, Number<uint8_t>(field));
      return value;
    }
    case kInt8: {
      ASSIGN_OR_RETURN(const int64_t value, Number<int8_t>(field));
      return value;
    }
    case kUint16: {
      ASSIGN_OR_RETURN(const int64_t value, Number<uint16_t>(field));
      return value;
    }
    case kInt16: {
      ASSIGN_OR_RETURN(const int64_t value, Number<int16_t>(field));
      return value;
    }
    case kUint32: {
      ASSIGN_OR_RETURN(const int64_t value, Number<uint32_t>(field));
      return value;
    }
    case kInt32: {
      ASSIGN_OR_RETURN(const int64_t value, Number<int32_t>(field));
      return value;
    }
    case kUint64: {
      ASSIGN_OR_RETURN(const uint64_t value, Number<uint64_t>(field));
      if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
        return Damaged(field, Concat("is ", value, ", beyond 63 bits"));
      }
      return static_cast<int64_t>(value);
    }
    case kInt64: {
      ASSIGN_OR_RETURN(const int64_t value, Number<int64_t>(field));
      return value;
    }
    case kFloat32: {
      ASSIGN_OR_RETURN(const double value, Number<float>(field));
      return value;
    }
    case kFloat64: {
      ASSIGN_OR_RETURN(const double value, Number<double>(field));
      return value;
    }
    case kBool: {
      ASSIGN_OR_RETURN(const uint8_t value, Number<uint8_t>(field));
      if (value > 1) return Damaged(field, Concat("is a bool of value ", int{value}));
      return value == 1;
    }
    case kString: {
      ASSIGN_OR_RETURN(const std::string_view value, String(field));
      return value;
    }
    default:
      return Damaged(field, Concat("has the value type ", type, ", which the format does not have"));
  }
}

absl::StatusOr<GgufValue> GgufCursor::Array(std::string_view field) {
  ASSIGN_OR_RETURN(const uint32_t type, Number<uint32_t>(field));
  if (LeastBytes(type) == 0) return Damaged(field, Concat("is a list of value type ", type));
  ASSIGN_OR_RETURN(const int64_t count, Count(field, LeastBytes(type), std::numeric_limits<int64_t>::max()));
  const auto next = [&] { return Scalar(type, field); };
  if (type == kString) return Collect<std::string_view>(count, next);
  if (type == kFloat32 || type == kFloat64) return Collect<double>(count, next);
  return Collect<int64_t>(count, next);
}

absl::StatusOr<GgufValue> GgufCursor::Value(std::string_view field) {
  ASSIGN_OR_RETURN(const uint32_t type, Number<uint32_t>(field));
  return type == kArray ? Array(field) : Scalar(type, field);
}

}  // namespace moebius
