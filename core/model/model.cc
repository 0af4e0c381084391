#include "core/model/model.h"

#include <algorithm>
#include <utility>

#include "core/base/check.h"
#include "core/base/strings.h"
#include "core/model/builder.h"

namespace moebius {
namespace {

constexpr int64_t kFewestPositions = 1024;

}  // namespace

Model::Model(const ModelConfig& config, Backend& backend, Stream& stream, const ModelOptions& options)
    : config_(config), options_(options) {
  ModelBuilder(*this).Build();
  if (!options.allocate) return;
  ServePositions(backend, stream, options.positions_on_demand ? 1 : max_positions());
  parameters_.Allocate(backend, stream, options.storage);
}

void Model::ServePositions(Backend& backend, Stream& stream, int64_t count) const {
  const int64_t served = rotary_.cos ? rotary_.cos.view().rows() : 0;
  if (count <= served) return;
  CHECK_LE(count, max_positions());
  if (served > 0) outgrown_.push_back(std::move(rotary_));
  rotary_ = MakeRotaryTable(
      backend, stream, std::min(max_positions(), std::max({count, 2 * served, kFewestPositions})),
      config_.rope_dim(), config_.rope_theta, config_.rope_scaling,
      config_.attention == AttentionKind::kMla ? RopeStyle::kInterleaved : RopeStyle::kHalf);
}

std::vector<PieceAlias> Model::aliases() const {
  std::vector<PieceAlias> out;
  for (size_t k = 0; k < mtp_.size(); ++k) {
    const std::string prefix =
        Concat("model.layers.", config_.num_hidden_layers + static_cast<int64_t>(k), ".");
    out.push_back({prefix + "embed_tokens.weight", "model.embed_tokens.weight"});
    out.push_back({prefix + "shared_head.head.weight",
                   config_.tie_word_embeddings ? "model.embed_tokens.weight" : "lm_head.weight"});
  }
  return out;
}

std::vector<const MoeMlp*> Model::moe_layers() const {
  std::vector<const MoeMlp*> out;
  for (const auto& block : blocks_) {
    if (block->moe() != nullptr) out.push_back(block->moe());
  }
  for (const auto& module : mtp_) {
    if (module->block().moe() != nullptr) out.push_back(module->block().moe());
  }
  return out;
}

}  // namespace moebius
