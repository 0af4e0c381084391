// TensorBoard event files, written by hand: records with masked CRC-32C around small protobuf messages whose
// fields are listed in tensorboard.cc. https://github.com/tensorflow/tensorboard, compat/proto/event.proto.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/io/file.h"
#include "launch/metrics.h"

namespace moebius {

class TensorboardWriter {
 public:
  // A new event file in `folder` (made when absent). A run that goes on at `first_step` > 0 tells TensorBoard
  // to forget what earlier files say about that step and later ones. 73 when not writable.
  static absl::StatusOr<TensorboardWriter> Open(const std::string& folder, int64_t first_step);

  // Every finite number of the row as a scalar, under the names of metrics.jsonl.
  absl::Status AddScalars(const MetricsRow& row, double wall_time_s);
  // A text of the text plugin, shown as Markdown.
  absl::Status AddText(const std::string& tag, int64_t step, std::string_view text, double wall_time_s);
  // Records are gathered in memory; Flush writes them (Add* does too, every 64 KiB). Call it every few
  // seconds.
  absl::Status Flush();

  const std::string& path() const { return path_; }

 private:
  TensorboardWriter(std::string path, FileDescriptor fd) : path_(std::move(path)), fd_(std::move(fd)) {}
  absl::Status AddRecord(std::string_view event);

  std::string path_;
  FileDescriptor fd_;
  std::string buffer_;
};

// CRC-32C (Castagnoli): of "123456789" it is 0xE3069283.
uint32_t Crc32c(std::string_view bytes);

}  // namespace moebius
