// Makes the parameters and layers of a Model from its config: the one place that knows which checkpoint
// tensors exist and how they are fused.
#pragma once

#include <memory>
#include <string>

#include "core/model/model.h"

namespace moebius {

class ModelBuilder {
 public:
  explicit ModelBuilder(Model& model) : model_(model), c_(model.config_) {}

  void Build();

 private:
  Parameter* Add(ParameterSpec spec);
  Parameter* Vector(const std::string& name, int64_t size, Init init = Init::kOnes);
  Parameter* Matrix(const std::string& name, int64_t out, int64_t in);
  Parameter* Fused(const std::string& name, int64_t in,
                   const std::vector<std::pair<std::string, int64_t>>& rows);

  std::unique_ptr<Block> MakeBlock(int64_t layer);
  std::unique_ptr<Layer> MakeMla(const std::string& prefix);
  std::unique_ptr<Layer> MakeGqa(const std::string& prefix);
  std::unique_ptr<SwiGluMlp> MakeDense(const std::string& prefix, int64_t intermediate);
  std::unique_ptr<MoeMlp> MakeMoe(const std::string& prefix, int64_t layer);
  void MakeMtp(int64_t depth);

  Model& model_;
  const ModelConfig& c_;
  bool in_mtp_ = false;
};

}  // namespace moebius
