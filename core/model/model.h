// A model, or the contiguous part of one that a pipeline stage holds, assembled from layers. Its phases run
// one microbatch; schedules, ranks and optimizers live above.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/layers/block.h"
#include "core/layers/embedding.h"
#include "core/layers/loss_head.h"
#include "core/layers/mtp_module.h"
#include "core/layers/parameter.h"
#include "core/model/config.h"
#include "core/model/microbatch.h"

namespace moebius {

// What a stage holds. The default is the whole model.
struct StageRange {
  int64_t first_layer = 0;
  int64_t last_layer = -1;  // one past the last; -1: all
  bool embedding = true;
  bool head = true;  // final norm, output head, MTP modules
};

// Which experts of every MoE layer a rank holds.
struct ExpertRange {
  int64_t first = 0;
  int64_t count = -1;  // -1: all
};

using ExchangeFactory = std::function<std::unique_ptr<TokenExchange>(int64_t num_experts)>;

struct ModelOptions {
  StageRange stage = {};
  ExpertRange experts = {};
  ExchangeFactory make_exchange = nullptr;  // how tokens reach experts; default: LocalExchange
  // The embedding of another stage on this rank, shared with it; it outlives the model. Not in parameters().
  Parameter* embedding_table = nullptr;
  ParameterStorage storage = {};
  int64_t max_positions = 0;  // of a sequence; 0: config.max_position_embeddings
  // The rotary tables start short, as contexts of millions have tables of gigabytes; who runs more positions
  // says so before (ServePositions), as Decoder and ScoreSequences do.
  bool positions_on_demand = false;
  bool allocate = true;  // false: shapes and names only; nothing can run
  bool mtp = true;       // false: leave the MTP modules out (generation, scoring)
};

// What the trained objective multiplies: everything is already divided by the size of the global batch.
struct Objective {
  float token_scale = 0;          // 1 / (sequences x sequence_length): of each token's cross-entropy
  float inverse_temperature = 1;  // of the logits that losses and entropies are computed from
  bool entropies = false;         // computes Microbatch::entropies
  float entropy_scale = 0;        // with `entropies`: this times their sum is taken off the objective
  float mtp_scale = 0;  // loss_weight / depths / (sequences x sequence_length); 0: MTP modules are not run
  BalanceFactors balance = {};
  RecomputePolicy recompute = {};
  // Of the products of linear layers and experts; embedding, head, router, norms and attention never round.
  Rounding rounding = Rounding::kNone;
  bool gradients = true;  // false: losses only
  bool predicts = true;   // false: the forward ends with Microbatch::hidden, without gradients

  // A forward that no backward follows: nothing inside a block is needed again.
  static Objective WithoutBackward(int64_t max_expert_rows = 0) {
    return {.recompute = {.blocks = true, .max_expert_rows = max_expert_rows}, .gradients = false};
  }
};

// A checkpoint tensor that is a copy of another: released MTP layers store embedding and head again.
struct PieceAlias {
  std::string name;
  std::string of;
};

// A phase of a microbatch, cut where tokens travel. Its steps in order are the phase; between a post and the
// wait that follows, steps of another microbatch's phase may run.
struct PhaseStep {
  SegmentKind kind;
  const char* name;
  std::function<void()> run;
  // Parameters (of ParameterSet::all(), first to one past the last) to whose gradients the phase adds nothing
  // more.
  int first_complete = 0;
  int last_complete = 0;
};
using Phase = std::vector<PhaseStep>;
void RunPhase(const Phase& phase);

class Model {
 public:
  // The config must have passed Validate.
  Model(const ModelConfig& config, Backend& backend, Stream& stream, const ModelOptions& options);

  const ModelConfig& config() const { return config_; }
  const ModelOptions& options() const { return options_; }
  int64_t max_positions() const {
    return options_.max_positions > 0 ? options_.max_positions : config_.max_position_embeddings;
  }
  // Makes the rotary tables reach positions [0, count), at most max_positions(). What was recorded before
  // still finds its own.
  void ServePositions(Backend& backend, Stream& stream, int64_t count) const;
  ParameterSet& parameters() { return parameters_; }
  const ParameterSet& parameters() const { return parameters_; }
  std::vector<PieceAlias> aliases() const;
  int num_slots() const { return slots_.count(); }

  // F: losses of the microbatch, its routing statistics and, with objective.gradients, the head's gradients.
  // A stage without embedding reads microbatch.hidden.
  Phase ForwardPhase(const Context& context, const Objective& objective, Microbatch& microbatch) const;
  // I and W; kLater leaves W to WeightPhase, kNow runs it block by block and frees what it needed. A stage
  // without head reads microbatch.d_hidden (and kNow overwrites what lies there); one without embedding
  // leaves the gradient of its input there.
  enum class Weights { kNow, kLater };
  Phase BackwardPhase(const Context& context, const Objective& objective, Microbatch& microbatch,
                      Weights weights) const;
  Phase WeightPhase(const Context& context, const Objective& objective, Microbatch& microbatch) const;

  void Forward(const Context& context, const Objective& objective, Microbatch& microbatch) const {
    RunPhase(ForwardPhase(context, objective, microbatch));
  }
  void Backward(const Context& context, const Objective& objective, Microbatch& microbatch,
                Weights weights) const {
    RunPhase(BackwardPhase(context, objective, microbatch, weights));
  }
  void BackwardWeight(const Context& context, const Objective& objective, Microbatch& microbatch) const {
    RunPhase(WeightPhase(context, objective, microbatch));
  }

  // Layers with experts, MTP modules last: the order of Microbatch::records.
  std::vector<const MoeMlp*> moe_layers() const;
  const std::vector<std::unique_ptr<Block>>& blocks() const { return blocks_; }
  const TokenEmbedding& embedding() const { return *embedding_; }
  // Null in a stage that does not embed.
  Parameter* embedding_table() const { return embedding_table_; }
  const RmsNormLayer& final_norm() const { return *final_norm_; }
  const LossHead& head() const { return *head_; }
  // By depth; empty where the config or the options have none.
  const std::vector<std::unique_ptr<MtpModule>>& mtp() const { return mtp_; }

 private:
  friend class ModelBuilder;

  void StartForward(const Pass& pass, Microbatch& microbatch) const;
  void StartRouting(const Pass& pass, Microbatch& microbatch) const;
  void RecordRouting(const Pass& pass, const Block& block, Microbatch& microbatch) const;
  void StartBlock(const Pass& pass, Microbatch& microbatch) const;
  void EndBlock(const Pass& pass, const Block& block, Microbatch& microbatch) const;
  void EndForward(const Pass& pass, const Objective& objective, Microbatch& microbatch) const;
  void ForwardMtp(const Context& context, const Objective& objective, Microbatch& microbatch) const;
  void StartBackward(const Pass& pass, Weights weights, Microbatch& microbatch) const;
  void StartBlockBackward(const Pass& pass, size_t block, Weights weights, Microbatch& microbatch) const;
  void EndBlockBackward(const Pass& pass, const Block& block, Weights weights, Microbatch& microbatch) const;
  void EndBackward(const Pass& pass, Weights weights, Microbatch& microbatch) const;
  void BackwardMtp(const Context& context, const Objective& objective, Microbatch& microbatch,
                   Weights weights) const;

  ModelConfig config_;
  ModelOptions options_;
  SlotCounter slots_;
  ParameterSet parameters_;
  mutable RotaryTable rotary_;
  mutable std::vector<RotaryTable> outgrown_;
  std::vector<std::unique_ptr<TokenExchange>> exchanges_;
  Parameter* embedding_table_ = nullptr;
  std::optional<TokenEmbedding> embedding_;
  std::vector<std::unique_ptr<Block>> blocks_;
  std::vector<int> first_parameter_;  // of each block, and one past the last block's
  std::optional<RmsNormLayer> final_norm_;
  std::optional<LossHead> head_;
  std::vector<std::unique_ptr<MtpModule>> mtp_;
  std::vector<std::unique_ptr<TokenEmbedding>> mtp_embeddings_;
};

}  // namespace moebius
