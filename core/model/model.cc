#include "core/model/model.h"

#include "core/base/strings.h"
#include "core/model/builder.h"

namespace moebius {
Model::Model(const ModelConfig& config, Backend& backend, Stream& stream, const ModelOptions& options)
    : config_(config), options_(options) {
  ModelBuilder(*this).Build();
  if (!options.allocate) return;
  const int64_t positions =
      options.max_positions > 0 ? options.max_positions : config.max_position_embeddings;
  rotary_ =
      MakeRotaryTable(backend, stream, positions, config.rope_dim(), config.rope_theta, config.rope_scaling,
                      config.attention == AttentionKind::kMla ? RopeStyle::kInterleaved : RopeStyle::kHalf);
  parameters_.Allocate(backend, stream, options.storage);
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
