// What a model folder says beside its shapes and weights: which tokens end a text, and the dtype to compute
// in.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/base/status.h"
#include "core/model/config.h"
#include "core/tensor/dtype.h"

namespace moebius {

// Ids that end a text: those of config.json and of generation_config.json (one or a list each), where
// they are; in this order. DamagedError for a generation_config.json that is not in order.
absl::StatusOr<std::vector<int32_t>> EndOfTextIds(const std::string& folder, const ModelConfig& config);

// What --compute means for a folder: "fp32", "bf16", or "auto": bf16 unless config.json says that the weights
// are stored in fp32, fp32 where it says nothing.
absl::StatusOr<DType> ComputeTypeOf(const std::string& choice, const std::string& folder);

}  // namespace moebius
