// The stages of the model that one rank holds, assembled with their seams to the other ranks.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "core/model/model.h"
#include "parallel/exchange/buffer_pool.h"
#include "parallel/exchange/two_level_exchange.h"
#include "parallel/mesh.h"

namespace moebius {

// Which layers each stage of a schedule holds: costs by trained FLOPs a layer, with embedding and head.
absl::StatusOr<std::vector<StageRange>> PlanStages(const ModelConfig& config, int stages);

// Trained FLOPs a token of the layers (embedding, head and MTP modules included) of each range: forward, and
// both backwards together twice as many.
std::vector<double> StageFlops(const ModelConfig& config, const std::vector<StageRange>& ranges,
                               int64_t sequence_length);

// Whether the last stage needs the embedding table too (tied head, MTP modules).
bool SharesEmbedding(const ModelConfig& config);

class Stages {
 public:
  // Collective. Allocates the models, whose exchanges go the way of layout().exchange; options.stage,
  // experts, make_exchange and embedding_table are set here. All arguments outlive the stages, schedule and
  // ranges excepted.
  Stages(Mesh& mesh, Backend& backend, Stream& compute, const ModelConfig& config, const Schedule& schedule,
         const std::vector<StageRange>& ranges, const ModelOptions& options);

  const ModelConfig& config() const { return config_; }
  int count() const { return static_cast<int>(models_.size()); }  // on this rank
  int stage(int i) const { return stages_[i]; }                   // of the schedule
  int index(int stage) const;                                     // of models; CHECK that it is here
  Model& model(int i) const { return *models_[i]; }
  std::vector<Model*> models() const;
  // The embedding table that first and last stage share although they are two; null if there is none here.
  Parameter* shared_table() const { return shared_table_; }
  // Number, in the whole model, of the first MoE layer of model i; MTP modules come last.
  int64_t first_moe_layer(int i) const { return first_moe_layer_[i]; }
  int64_t num_moe_layers() const { return num_moe_layers_; }  // of the whole model, MTP modules included
  int64_t pool_bytes() const { return pool_.reserved_bytes(); }

 private:
  std::unique_ptr<TokenExchange> MakeExchange(Mesh& mesh, int64_t num_experts, int layer);

  ModelConfig config_;
  BufferPool pool_;                       // before the models, whose exchanges use it
  std::optional<TwoLevelGroups> groups_;  // the same; none where exchange is flat
  std::vector<int> stages_;
  std::vector<std::unique_ptr<Model>> models_;
  std::vector<int64_t> first_moe_layer_;
  int64_t num_moe_layers_ = 0;
  Parameter* shared_table_ = nullptr;
};

}  // namespace moebius
