// JSON kept as written: integers of any size and the text of every number survive, which nlohmann::json
// (double beyond 64 bits) does not give. For values that programs take and return; everything else is
// core/io/json.h.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

namespace moebius::sandbox {

struct Value {
  enum class Kind { kNull, kBool, kInteger, kReal, kString, kArray, kObject };
  Kind kind = Kind::kNull;
  bool truth = false;
  std::string text;               // kInteger: canonical digits; kReal: as written; kString: UTF-8
  std::vector<Value> items;       // kArray; kObject: the values, beside keys
  std::vector<std::string> keys;  // kObject, as written, no duplicates
};

// Nested deeper is refused: printing and comparing recurse.
inline constexpr int kMaxValueDepth = 200;

// One value and only white space after it. DamagedError with `source` and byte offset: syntax, invalid UTF-8,
// lone surrogates, duplicate keys, NaN and infinities, depth. Time and memory are linear in the text (object
// keys: n log n).
absl::StatusOr<Value> ParseValue(std::string_view text, std::string_view source);

// One line of JSON (ASCII only: other characters are escaped).
std::string PrintValue(const Value& value);

// By value: integers exactly; where `expected` is written as a real number, any number within 1e-9 of it,
// relative or absolute; true is not 1; objects whatever their order.
bool SameValue(const Value& expected, const Value& actual);

// The member of an object, or nullptr.
const Value* Member(const Value& object, std::string_view key);

}  // namespace moebius::sandbox
