// A stream of bytes from a file, decompressed on the way: plain, gzip (.gz, .dz) or Zstandard (.zst), told
// apart by their first bytes. For seeking use file.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <span>
#include <string>

#include "absl/status/statusor.h"

namespace moebius {

class ByteSource {
 public:
  virtual ~ByteSource() = default;
  // Up to out.size() bytes into `out`; how many, 0 only at the end (or for an empty `out`). DamagedError for
  // compressed data that are corrupt or end early; an error stays.
  virtual absl::StatusOr<size_t> Read(std::span<char> out) = 0;
};

inline constexpr int64_t kNoByteLimit = std::numeric_limits<int64_t>::max();

// Opens `path`. Reading more than max_bytes of (decompressed) content is a DamagedError: a guard against
// files of a few kilobytes that unpack to terabytes. A name ending in .gz, .dz or .zst whose content is
// neither empty nor of that kind is a DamagedError.
absl::StatusOr<std::unique_ptr<ByteSource>> OpenByteSource(const std::string& path,
                                                           int64_t max_bytes = kNoByteLimit);

// The rest of a source in memory.
absl::StatusOr<std::string> ReadAll(ByteSource& source);

}  // namespace moebius
