// Small models with random weights, one of each family and feature that generation must get right.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/model/model.h"

namespace moebius {

// "mla", "mla_plain_q_yarn", "v2_softmax", "llama", "qwen2", "qwen3", "qwen3_moe", "mixtral".
std::vector<std::string> TinyNames();
ModelConfig TinyConfig(const std::string& name);

class TinyModel {
 public:
  // Weights are a pure function of the config; bf16 ones are the f32 ones rounded.
  TinyModel(const ModelConfig& config, DType act);
  TinyModel(const ModelConfig& config, DType act, std::unique_ptr<Backend> backend);

  Backend& backend() { return *backend_; }
  Stream& stream() { return *stream_; }
  Model& model() { return *model_; }

  // The oracle: logits [V] after the last of `ids`, from the training forward over the whole sequence.
  std::vector<float> Logits(const std::vector<int32_t>& ids);
  // ln p of each token from the second on, likewise.
  std::vector<float> LogProbs(const std::vector<int32_t>& ids);

 private:
  void Forward(const std::vector<int32_t>& ids, Microbatch& microbatch, Arena& scratch);

  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Stream> stream_;
  std::unique_ptr<Model> model_;
};

// `count` ids below `vocab`; a pure function of the arguments.
std::vector<int32_t> RandomIds(const std::string& name, int64_t count, int64_t vocab);

}  // namespace moebius
