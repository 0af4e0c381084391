// Checkpoint folders in, checkpoint folders out: import and export stream tensor by tensor, so that a model
// larger than memory passes.
#pragma once

#include <map>
#include <optional>
#include <string>

#include "core/base/status.h"
#include "core/model/weights.h"
#include "core/tensor/dtype.h"

namespace moebius {

struct ConvertOptions {
  // Type of the written tensors; nothing: as stored (FP8 and F16 become F32).
  std::optional<DType> dtype;
  bool manifest = false;  // write manifest.json, which marks a folder as ours
  // Where given, asked for every tensor first; where it answers with nothing, the folder's own is written.
  TensorReader weights = nullptr;
};

struct ConvertResult {
  int64_t tensors = 0;
  int64_t bytes = 0;
  bool mtp_dropped =
      false;  // the config promises MTP modules that the folder has not (transformers drops them)
  std::string not_finite = {};  // the first tensor with a value that is not; "": none
  bool mtp_unnamed = false;     // the folder has more MTP modules than the config names: they were left out
};

// Reads the Hugging Face folder `from`, checks every tensor against its config.json, and writes `to` (which
// must not exist) in the released names: config.json, model-*.safetensors, and tokenizer and generation files
// as they are. What it wrote is read back and compared before the folder appears.
absl::StatusOr<ConvertResult> ConvertCheckpoint(const std::string& from, const std::string& to,
                                                const ConvertOptions& options);

// A checkpoint folder about to be written, from wherever its weights come.
struct CheckpointContent {
  ModelConfig config;
  std::vector<TensorSpec> tensors;
  TensorReader read;  // asked twice for each tensor: to write it and to compare it
  std::map<std::string, std::string> companions = {};  // name -> text of what lies beside the weights
  bool manifest = false;
};

// Writes config.json, model-*.safetensors, the companions and, where asked for, manifest.json to `to`, which
// must not exist; compares what it wrote with `read` before the folder appears. config.json says bfloat16
// where no floating tensor but the selection bias is wider.
absl::StatusOr<ConvertResult> WriteCheckpointFolder(const std::string& to, const CheckpointContent& content);

}  // namespace moebius
