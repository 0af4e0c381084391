// The optimizer's tensors in a checkpoint folder, read by logical tensor and range: "m.NAME" whole, or as
// slices "m.NAME[FIRST:LAST]" of the flat tensor, whichever layout wrote them.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "core/base/status.h"
#include "core/io/safetensors_shards.h"
#include "core/model/weights.h"

namespace moebius {

class StoredSlices {
 public:
  // DamagedError where the slices of a tensor have a hole, overlap, or are none.
  static absl::StatusOr<StoredSlices> Open(const std::string& folder);

  // Whether there is a tensor whose name begins with `prefix`.
  bool HasKind(const std::string& prefix) const;
  int64_t Elements(const std::string& tensor) const;  // 0 where there is none
  // Elements [first, last) of a tensor that has `elements` in all. DamagedError where it is missing or has
  // another number.
  absl::StatusOr<std::vector<float>> Read(const std::string& tensor, int64_t elements, int64_t first,
                                          int64_t last) const;

 private:
  struct Slice {
    int64_t last;
    std::string name;
  };

  StoredSlices(std::string folder, SafetensorsFolder files)
      : folder_(std::move(folder)), files_(std::move(files)) {}

  std::string folder_;
  SafetensorsFolder files_;
  std::map<std::string, std::map<int64_t, Slice>> tensors_;  // slices by their first element
};

// The moving averages of the weights in a checkpoint; empty for a tensor that has none (what is not trained
// by the optimizer). UsageError where the run kept no averages.
absl::StatusOr<TensorReader> AveragedWeights(const std::string& folder);

}  // namespace moebius
