// A GGUF file as a checkpoint of ours: config.json from its metadata, its weights dequantised under their
// Hugging Face names. Architecture llama (Llama, SmolLM2, Mistral without sliding window); tokenizer files
// are the caller's.
#pragma once

#include <map>
#include <string>

#include "core/io/gguf.h"
#include "core/model/convert.h"

namespace moebius {

// UsageError for an architecture or a feature that we do not have, DamagedError naming file and key for sizes
// that are missing or contradict each other.
absl::StatusOr<ModelConfig> ConfigFromGguf(const GgufFile& file);

// The tensor of `file` that a Hugging Face llama calls `name`, as transformers lays it out. GGUF orders the
// rows of q_proj and k_proj for rotation in neighbouring pairs: row 2 i + p of a head is row p head_dim / 2 +
// i here.
absl::StatusOr<std::vector<float>> ReadGgufTensor(const GgufFile& file, const ModelConfig& config,
                                                  const std::string& name);

// Writes the folder `to` (WriteCheckpointFolder says how) with `companions` (name -> text) in it. Without
// options.dtype BF16 stays BF16 and everything else becomes F32, which holds every dequantised value exactly.
// A tensor that is missing, of another shape, or that the architecture does not have is an error.
absl::StatusOr<ConvertResult> ImportGguf(const GgufFile& file, const std::string& to,
                                         const ConvertOptions& options,
                                         const std::map<std::string, std::string>& companions);

}  // namespace moebius
