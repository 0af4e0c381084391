// Files of one JSON object a line (metrics.jsonl, expert_load.jsonl) that survive kill -9: a line is one
// write, and a torn last line is cut off before the next one is appended.
#pragma once

#include <cstdint>
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/io/file.h"

namespace moebius {

class JsonLinesWriter {
 public:
  // Appends to `path` (made when absent), after removing a last line without its newline. 73 when not
  // writable.
  static absl::StatusOr<JsonLinesWriter> Open(const std::string& path);

  // `object` is one JSON object without newlines. On a full disk the file keeps its earlier lines whole (73).
  absl::Status Append(std::string_view object);

  // What was appended has reached the disk (73).
  absl::Status Sync();

  const std::string& path() const { return path_; }

 private:
  JsonLinesWriter(std::string path, FileDescriptor fd, int64_t size)
      : path_(std::move(path)), fd_(std::move(fd)), size_(size) {}
  std::string path_;
  FileDescriptor fd_;
  int64_t size_;
};

// Calls `line` for each object in order; stops at the first error. A torn last line is left out. 66 when
// absent, 65 naming file and line for anything that is no JSON object.
absl::Status ReadJsonLines(
    const std::string& path,
    const std::function<absl::Status(const nlohmann::json& object, int64_t line_number)>& line);

// Rewrites the file atomically without the lines whose "step" is above `last_step`, so that a resumed run
// appends where its checkpoint was taken. Kept lines keep their bytes. Fine when the file is absent.
absl::Status CutJsonLines(const std::string& path, int64_t last_step);

}  // namespace moebius
