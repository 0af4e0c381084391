// Reading safetensors files. Layout: 8 bytes N (little-endian), N bytes of JSON header, then the data of all
// tensors without holes or overlaps to the end of the file (huggingface/safetensors, README "Format").
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/io/file.h"
#include "core/tensor/dtype.h"

namespace moebius {

inline constexpr int64_t kMaxSafetensorsHeader = 100'000'000;

struct TensorInfo {
  std::string name;
  std::string dtype_name;  // as in the file
  std::optional<DType>
      dtype;  // nothing for legal types that we do not compute with (U64, C64, F8_E8M0, F4, ...)
  std::vector<int64_t> shape;  // row-major; empty for a scalar
  int64_t begin = 0;           // bytes from the start of the data part
  int64_t bytes = 0;

  int64_t elements() const;  // product of the shape, 1 for a scalar
};

// One open file, checked: header at most kMaxSafetensorsHeader, no key twice, known dtypes, dimensions not
// negative, shape x dtype = bytes without overflow, tensors cover the data part exactly. Reading is
// thread-safe.
class SafetensorsFile {
 public:
  // MissingError, or DamagedError naming file, tensor and field.
  static absl::StatusOr<SafetensorsFile> Open(const std::string& path);

  const std::string& path() const { return file_.path(); }
  const std::vector<TensorInfo>& tensors() const { return tensors_; }  // in the order of their data
  const TensorInfo* Find(std::string_view name) const;                 // null when absent
  const std::map<std::string, std::string>& metadata() const { return metadata_; }

  // Bytes [offset, offset + out.size()) of a tensor of this file, by pread: a file cut short meanwhile is an
  // error.
  absl::Status Read(const TensorInfo& tensor, int64_t offset, std::span<std::byte> out) const;
  // The tensor where it lies in the mapped file (of any alignment; see MappedFile about SIGBUS).
  std::span<const std::byte> Mapped(const TensorInfo& tensor) const;

 private:
  SafetensorsFile(RandomAccessFile file, MappedFile map) : file_(std::move(file)), map_(std::move(map)) {}
  absl::Status ParseHeader(std::string_view text);
  absl::Status CheckCoverage();

  RandomAccessFile file_;
  MappedFile map_;
  int64_t data_start_ = 0;
  std::vector<TensorInfo> tensors_;
  std::unordered_map<std::string, size_t> index_;  // name -> position in tensors_
  std::map<std::string, std::string> metadata_;
};

}  // namespace moebius
