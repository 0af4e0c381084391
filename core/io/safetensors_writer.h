// Writing safetensors files piece by piece, so that no tensor need be in memory whole.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/io/atomic_file.h"
#include "core/tensor/dtype.h"

namespace moebius {

// A tensor to be written.
struct TensorSpec {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;

  int64_t bytes() const;
};

// Header first, then the data in order(): falling element type (8-byte types first) then name, the reference
// writer's order and bytes. The file appears whole at Commit (atomic_file.h).
class SafetensorsWriter {
 public:
  using Metadata = std::map<std::string, std::string>;
  // Names must differ; CannotWriteError. transformers wants {"format": "pt"}.
  static absl::StatusOr<SafetensorsWriter> Create(const std::string& path, std::vector<TensorSpec> tensors,
                                                  const Metadata& metadata = {{"format", "pt"}});

  // The order in which Append expects the tensors.
  const std::vector<TensorSpec>& order() const { return order_; }
  // The next bytes of tensor `name`, which is the first one in order() that is not complete. As many pieces
  // as you like; what does not fit the plan is a CHECK.
  absl::Status Append(std::string_view name, std::span<const std::byte> bytes);
  // All tensors must be complete. Returns size and SHA-256 of the file.
  absl::StatusOr<FileHash> Commit();

 private:
  SafetensorsWriter(AtomicFile file, std::vector<TensorSpec> order)
      : file_(std::move(file)), order_(std::move(order)) {}
  void SkipComplete();
  AtomicFile file_;
  std::vector<TensorSpec> order_;
  size_t current_ = 0;   // position in order_
  int64_t written_ = 0;  // bytes of that tensor
};

}  // namespace moebius
