// Character data of an R package's lazy-load database (data/Rdata.rdx + Rdata.rdb), without R. Formats: R
// Internals, "Serialization Formats" (version 3, XDR) and R's src/library/base/R/lazyload.R, serialize.c.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

namespace moebius {

// The part of an R value that we read: character vectors, integer vectors, lists with their names, NULL.
struct RValue {
  enum class Kind { kNull, kStrings, kIntegers, kList, kOther };
  Kind kind = Kind::kNull;
  std::vector<std::string> strings;  // kStrings; NA is "NA"
  std::vector<int> integers;         // kIntegers
  std::vector<RValue> items;         // kList
  std::vector<std::string> names;    // attribute "names" of a vector or list, empty when it has none
};

// Reads one serialised value ("X\n", version 2 or 3). Nesting, lengths and what the bytes can hold are
// checked.
absl::StatusOr<RValue> UnserializeR(std::string_view bytes);

// The character vectors of a lazy-load database in the order of its index: (name, strings). `index` is the
// content of the .rdx file (gzip- or zlib-compressed), `data` that of the .rdb file: records of a 4-byte
// big-endian length and zlib data. Objects of other kinds are left out.
absl::StatusOr<std::vector<std::pair<std::string, std::vector<std::string>>>> ReadLazyLoadStrings(
    std::string_view index, std::string_view data);

}  // namespace moebius
