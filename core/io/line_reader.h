// The lines of a text file, streamed: plain, gzip or zstd (byte_source.h). JSONL is LineReader + ParseJson
// with Where() as the source of its messages.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "core/io/byte_source.h"

namespace moebius {

class LineReader {
 public:
  struct Options {
    int64_t max_line_bytes = 8 << 20;
    int64_t max_bytes = kNoByteLimit;  // of the whole (decompressed) file
  };
  static absl::StatusOr<LineReader> Open(const std::string& path, Options options);
  static absl::StatusOr<LineReader> Open(const std::string& path) { return Open(path, Options()); }

  // The next line without its end ("\n" or "\r\n"), valid until the next call; false after the last one. A
  // byte order mark at the start of the file is dropped. A line above max_line_bytes is a DamagedError naming
  // it; the next call goes on behind it. Any other error (damaged compression, I/O) stays.
  absl::StatusOr<bool> Next(std::string_view* line);

  // Number of the line that Next gave last, from 1 (0 before the first call).
  int64_t line_number() const { return line_number_; }
  // "PATH line 12".
  std::string Where() const;

 private:
  LineReader(std::string path, Options options, std::unique_ptr<ByteSource> source)
      : path_(std::move(path)), options_(options), source_(std::move(source)) {}
  absl::StatusOr<bool> Fill();
  absl::Status TooLong();

  std::string path_;
  Options options_;
  std::unique_ptr<ByteSource> source_;
  std::string buffer_;
  size_t begin_ = 0, end_ = 0;  // unread bytes of buffer_
  int64_t line_number_ = 0;
  bool at_end_ = false, skipping_ = false;
  absl::Status error_;
};

}  // namespace moebius
