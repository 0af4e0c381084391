#include "parallel/stages.h"

#include <algorithm>

#include "core/model/cost.h"
#include "parallel/exchange/expert_exchange.h"
#include "parallel/exchange/gather_exchange.h"
#include "parallel/pipeline/stage_split.h"

namespace moebius {
namespace {

constexpr int64_t kTypicalLength = 4096;  // attention's share of a layer's cost

// Trained FLOPs of a layer.
double LayerFlops(const ModelConfig& config, bool moe, int64_t length) {
  const LayerCost cost = LayerCostOf(config, moe, length);
  return 3 * (cost.dense + cost.experts + cost.attention);
}

SplitCosts CostsOf(const ModelConfig& config, int64_t length) {
  SplitCosts costs;
  const double dense = LayerFlops(config, false, length);
  const double moe = config.n_routed_experts > 0 ? LayerFlops(config, true, length) : 0;
  for (int64_t l = 0; l < config.num_hidden_layers; ++l)
    costs.layers.push_back(config.IsMoe(l) ? moe : dense);
  costs.head = 6.0 * static_cast<double>(config.vocab_size) * static_cast<double>(config.hidden_size) +
               CostOf(config, length).train_flops_mtp;
  return costs;
}

}  // namespace

absl::StatusOr<std::vector<StageRange>> PlanStages(const ModelConfig& config, int stages) {
  ASSIGN_OR_RETURN(const std::vector<LayerRange> split, SplitLayers(CostsOf(config, kTypicalLength), stages));
  std::vector<StageRange> out;
  for (int s = 0; s < stages; ++s) {
    out.push_back({.first_layer = split[s].first_layer,
                   .last_layer = split[s].last_layer,
                   .embedding = s == 0,
                   .head = s + 1 == stages});
  }
  return out;
}

std::vector<double> StageFlops(const ModelConfig& config, const std::vector<StageRange>& ranges,
                               int64_t sequence_length) {
  const SplitCosts costs = CostsOf(config, sequence_length);
  std::vector<double> out;
  for (const StageRange& range : ranges) {
    double sum = range.head ? costs.head : 0;
    for (int64_t l = range.first_layer; l < range.last_layer; ++l) sum += costs.layers[l];
    out.push_back(sum);
  }
  return out;
}

bool SharesEmbedding(const ModelConfig& config) {
  return config.tie_word_embeddings || config.num_nextn_predict_layers > 0;
}

Stages::Stages(Mesh& mesh, Backend& backend, Stream& compute, const ModelConfig& config,
               const Schedule& schedule, const std::vector<StageRange>& ranges, const ModelOptions& options)
    : config_(config), pool_(backend, compute), stages_(schedule.StagesOf(mesh.at().pipeline)) {
  num_moe_layers_ = config.NumMoe(config.num_hidden_layers);
  if (config.n_routed_experts > 0) num_moe_layers_ += config.num_nextn_predict_layers;
  const NodeMap nodes = NodesOf(mesh.experts(), mesh.world().node_of_rank());
  if (mesh.layout().expert > 1 && IsTwoLevel(mesh.layout().exchange.kind, nodes)) {
    // In a world that has failed either exchange does nothing, so the flat one will do.
    absl::StatusOr<TwoLevelGroups> groups = SplitByNode(mesh.experts(), mesh.stream("tokens"), nodes);
    if (groups.ok()) groups_ = std::move(*groups);
  }
  const bool shares = schedule.stages > 1 && SharesEmbedding(config);
  for (const int stage : stages_) {
    ModelOptions o = options;
    o.stage = ranges[stage];
    const int expert_ranks = mesh.layout().expert;
    if (expert_ranks > 1) {
      const int64_t local = config.n_routed_experts / expert_ranks;
      o.experts = {.first = mesh.at().expert * local, .count = local};
      // MoE layers are made in order.
      o.make_exchange = [this, &mesh, layer = static_cast<int>(config.NumMoe(o.stage.first_layer))](
                            int64_t num_experts) mutable -> std::unique_ptr<TokenExchange> {
        return MakeExchange(mesh, num_experts, layer++);
      };
    }
    o.embedding_table = shared_table_;
    models_.push_back(std::make_unique<Model>(config, backend, compute, o));
    first_moe_layer_.push_back(config.NumMoe(o.stage.first_layer));
    if (shares && (o.stage.embedding || o.stage.head) && shared_table_ == nullptr) {
      shared_table_ = models_.back()->embedding_table();
    }
  }
}

std::unique_ptr<TokenExchange> Stages::MakeExchange(Mesh& mesh, int64_t num_experts, int layer) {
  const ExchangeOptions& options = mesh.layout().exchange;
  Stream& stream = mesh.stream("tokens");
  if (groups_) {
    return std::make_unique<TwoLevelExchange>(*groups_, stream, pool_, num_experts, layer, options);
  }
  if (options.kind == ExchangeKind::kGather) {
    return std::make_unique<GatherExchange>(mesh.experts(), stream, pool_, num_experts, layer);
  }
  const NodeMap nodes = NodesOf(mesh.experts(), mesh.world().node_of_rank());
  return std::make_unique<ExpertExchange>(mesh.experts(), nodes, stream, pool_, num_experts, layer, options);
}

int Stages::index(int stage) const {
  const auto found = std::find(stages_.begin(), stages_.end(), stage);
  CHECK(found != stages_.end()) << "stage " << stage;
  return static_cast<int>(found - stages_.begin());
}

std::vector<Model*> Stages::models() const {
  std::vector<Model*> out;
  for (const auto& model : models_) out.push_back(model.get());
  return out;
}

}  // namespace moebius
