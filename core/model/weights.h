// Weights of Hugging Face checkpoint folders, in and out: config.json and model-*.safetensors in the names
// and shapes of released models. Everything goes by logical tensor, never by rank.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "core/io/safetensors_shards.h"
#include "core/model/model.h"

namespace moebius {

// The config.json of a folder. MissingError when there is none.
absl::StatusOr<ModelConfig> LoadConfig(const std::string& folder);

struct LoadOptions {
  // Tokens from this id on are new: their rows of model.embed_tokens.weight and lm_head.weight are the mean
  // of the rows before, whether the folder has rows there (padding) or ends earlier. Absent: none is new, and
  // tensors of another shape are an error.
  std::optional<int64_t> first_new_token = {};
};

// Fills every parameter of `model` from the folder. Reads F32, BF16, F16 and FP8 with block scales
// (`weight_scale_inv`, multiplied). A tensor that is missing, of another shape, or that no parameter wants is
// an error naming folder and tensor; what a model may leave out (MTP layers, copies of embedding and head,
// rotary buffers) is not.
absl::Status LoadWeights(const std::string& folder, Backend& backend, Stream& stream, Model& model,
                         const LoadOptions& load = {});

// OK where every tensor of the folder is one of `wanted`, the block scales of one, or what a model may leave
// out: whole MTP modules, the head of a tied model, rotary buffers. Else DamagedError with number and names.
absl::Status CheckAllWanted(const std::string& folder, const SafetensorsFolder& files,
                            const ModelConfig& config, const std::set<std::string>& wanted);

// Config and weights together. LoadModel: kUnavailable, too, for a router that the backend does not compute.
struct LoadedModel {
  ModelConfig config;
  std::unique_ptr<Model> model;
};
absl::StatusOr<LoadedModel> LoadModel(const std::string& folder, Backend& backend, Stream& stream,
                                      const ModelOptions& options);

// One tensor of a folder as fp32, dequantised.
absl::StatusOr<std::vector<float>> ReadTensorF32(const SafetensorsFolder& folder, const std::string& source,
                                                 const std::string& name);

// Elements [first, first + count) of one that is F32, BF16 or F16.
absl::StatusOr<std::vector<float>> ReadElementsF32(const SafetensorsFolder& folder, const std::string& source,
                                                   const std::string& name, int64_t first, int64_t count);

// What a checkpoint of this config holds, in the order it is written. Floating types are `dtype`, but for the
// selection bias, which is always F32.
std::vector<TensorSpec> CheckpointTensors(const ModelConfig& config, DType dtype);

// A file of a checkpoint with its hash, for the manifest.
struct WrittenFile {
  std::string name;
  FileHash hash;
};

// Writes tensors as STEM-*.safetensors with index, streaming: `read` gives a tensor's values as fp32.
using TensorReader = std::function<absl::StatusOr<std::vector<float>>(const std::string& name)>;
absl::StatusOr<std::vector<WrittenFile>> WriteTensors(const std::string& folder,
                                                      const std::vector<TensorSpec>& tensors,
                                                      const TensorReader& read, const std::string& stem);

// The parts of it, for ranks that write one set of files together: each file by one of them, the index (none
// for a single file) by one.
absl::StatusOr<WrittenFile> WriteShard(const std::string& folder, const ShardPlan& shard,
                                       const TensorReader& read);
absl::StatusOr<std::vector<WrittenFile>> WriteIndex(const std::string& folder,
                                                    const std::vector<ShardPlan>& shards,
                                                    const std::string& stem);
absl::StatusOr<WrittenFile> WriteConfig(const std::string& folder, const ModelConfig& config, DType dtype);

// The model's master weights as model-*.safetensors, and config.json.
absl::StatusOr<std::vector<WrittenFile>> SaveWeights(const std::string& folder, Backend& backend,
                                                     Stream& stream, const Model& model, DType dtype);

}  // namespace moebius
