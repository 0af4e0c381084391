#include "launch/plan/activation_bytes.h"

#include <algorithm>

#include "core/backend/phantom.h"
#include "core/model/model.h"
#include "launch/recipe.pb.h"
#include "launch/train/settings.h"

namespace moebius {
namespace {

// Enough for blocks of arenas not to show.
constexpr int64_t kTokens = 1 << 16;

// A few layers, all dense or all MoE, with what the objective does to a microbatch of them.
class Probe {
 public:
  Probe(const ModelConfig& full, bool moe, int64_t layers, int64_t length, const Objective& objective)
      : length_(length), sequences_(std::max<int64_t>(1, kTokens / length)), objective_(objective) {
    ModelConfig config = full;
    config.num_hidden_layers = layers;
    config.first_k_dense_replace = moe ? 0 : layers;
    config.mlp_only_layers.clear();
    config.decoder_sparse_step = 1;
    if (objective.mtp_scale == 0) config.num_nextn_predict_layers = 0;
    depths_ = static_cast<int>(config.num_nextn_predict_layers);
    model_.emplace(config, *phantom_, *stream_,
                   ModelOptions{.storage = {.act = DType::kBF16}, .max_positions = length});
    before_ = phantom_->peak_bytes();
    microbatch_.emplace(*phantom_, pool_, model_->num_slots());
    microbatch_->Load(*stream_, std::vector<int32_t>(sequences_ * (length + 1)), sequences_, length, depths_);
  }

  void Forward() { model_->Forward(context_, objective_, *microbatch_); }
  void Backward(Model::Weights weights) { model_->Backward(context_, objective_, *microbatch_, weights); }

  // All of a token.
  double bytes() const {
    Saved& saved = microbatch_->saved;
    return Each(saved.activations().bytes() + saved.gradients().bytes() + saved.transient().bytes());
  }
  double peak() const { return Each(phantom_->peak_bytes() - before_) - scratch(); }
  double scratch() const { return Each(scratch_.peak_bytes()); }

 private:
  double Each(int64_t bytes) const {
    return static_cast<double>(bytes) / static_cast<double>(sequences_ * length_);
  }

  const int64_t length_, sequences_;
  const Objective objective_;
  int depths_ = 0;
  const std::unique_ptr<PhantomBackend> phantom_ = MakePhantomBackend({});
  const std::unique_ptr<Stream> stream_ = phantom_->NewStream(StreamKind::kCompute);
  Arena scratch_{*phantom_};
  const Context context_{*phantom_, *stream_, scratch_};
  BlockPool pool_{*phantom_};
  int64_t before_ = 0;
  std::optional<Model> model_;
  mutable std::optional<Microbatch> microbatch_;
};

}  // namespace

ActivationBytes MeasureActivations(const proto::Recipe& recipe, const ModelConfig& config) {
  const int64_t length = recipe.batch().sequence_length();
  ActivationBytes out;
  // kept and held of a model of so many layers; `work` is the most of all models.
  const auto run = [&](bool moe, int64_t layers, const Objective& objective) {
    Probe split(config, moe, layers, length, objective), whole(config, moe, layers, length, objective);
    LayerBytes all;
    WorkBytes& work = out.work;
    split.Forward();
    all.kept = split.bytes();
    work.forward = std::max(work.forward, split.peak() - all.kept);
    split.Backward(Model::Weights::kLater);
    all.held = split.bytes() - all.kept;
    work.input = std::max(work.input, split.peak() - all.kept - all.held);
    whole.Forward();
    whole.Backward(Model::Weights::kNow);
    work.backward = std::max(work.backward, whole.peak() - all.kept);
    work.scratch = std::max({work.scratch, split.scratch(), whole.scratch()});
    return all;
  };
  const auto made = [&](bool moe, int64_t layers) {
    Probe probe(config, moe, layers, length, {.token_scale = 1, .recompute = {.swiglu = false}});
    probe.Forward();
    return probe.bytes();
  };
  Objective objective{
      .token_scale = 1, .recompute = TrainConfigOf(recipe).recompute, .rounding = RoundingOf(recipe)};
  const auto layer = [&](bool moe) {
    const LayerBytes two = run(moe, 2, objective), three = run(moe, 3, objective);
    return LayerBytes{
        .kept = three.kept - two.kept, .held = three.held - two.held, .made = made(moe, 3) - made(moe, 2)};
  };
  out.dense_layer = layer(false);
  if (config.n_routed_experts > 0) out.moe_layer = layer(true);
  if (TrainsMtp(recipe)) objective.mtp_scale = 1;
  const LayerBytes two = run(false, 2, objective);
  out.head = {.kept = std::max(0.0, two.kept - 2 * out.dense_layer.kept),
              .held = std::max(0.0, two.held - 2 * out.dense_layer.held)};
  return out;
}

}  // namespace moebius
