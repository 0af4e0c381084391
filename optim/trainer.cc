#include "optim/trainer.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numeric>

#include "core/backend/ops.h"
#include "core/model/score.h"

namespace moebius {
namespace {

// PyTorch's clip_grad_norm_ divides by norm + 1e-6; golden runs are made with it.
constexpr double kClipEpsilon = 1e-6;

// Weight decay must not shrink modules that are not trained.
AdamWConfig OptimizerOf(const TrainConfig& config) {
  AdamWConfig out = config.optimizer;
  out.update_mtp = config.mtp_loss_weight != 0;
  return out;
}

double Mean(const std::vector<std::vector<int64_t>>& layers, double (*of)(const std::vector<int64_t>&)) {
  if (layers.empty()) return 0;
  double sum = 0;
  for (const auto& counts : layers) sum += of(counts);
  return sum / static_cast<double>(layers.size());
}

}  // namespace

double MaxViolation(const std::vector<int64_t>& counts) {
  const double total = std::accumulate(counts.begin(), counts.end(), 0.0);
  if (total == 0) return 0;
  const double mean = total / static_cast<double>(counts.size());
  return (static_cast<double>(*std::max_element(counts.begin(), counts.end())) - mean) / mean;
}

double LoadEntropy(const std::vector<int64_t>& counts) {
  const double total = std::accumulate(counts.begin(), counts.end(), 0.0);
  if (total == 0 || counts.size() < 2) return 1;
  double entropy = 0;
  for (const int64_t count : counts) {
    if (count > 0) entropy -= count / total * std::log(count / total);
  }
  return entropy / std::log(static_cast<double>(counts.size()));
}

Trainer::Trainer(Model& model, Backend& backend, Stream& stream, const TrainConfig& config)
    : model_(model),
      backend_(backend),
      stream_(stream),
      config_(config),
      scratch_(backend),
      optimizer_(model.parameters(), backend, stream, OptimizerOf(config)),
      microbatch_(backend, model.num_slots()) {}

Objective Trainer::MakeObjective(const StepBatch& batch) const {
  const double tokens = static_cast<double>(batch.sequences) * static_cast<double>(batch.length);
  const int64_t depths = model_.config().num_nextn_predict_layers;
  Objective objective;
  objective.token_scale = static_cast<float>(1 / tokens);
  if (depths > 0) objective.mtp_scale = static_cast<float>(config_.mtp_loss_weight / (depths * tokens));
  objective.balance.sequence = static_cast<float>(config_.sequence_loss / batch.sequences);
  objective.balance.auxiliary = static_cast<float>(config_.auxiliary_loss / batch.sequences);
  objective.balance.z = static_cast<float>(config_.router_z_loss / tokens);
  objective.recompute = config_.recompute;
  return objective;
}

void Trainer::RunMicrobatch(const Objective& objective, const StepBatch& batch, int64_t first, int64_t count,
                            Sums& sums) {
  Microbatch& mb = microbatch_;
  const Context context = this->context();
  const int64_t row = batch.length + 1;
  std::vector<std::vector<int32_t>> starts;
  if (!batch.document_starts.empty()) {
    starts.assign(batch.document_starts.begin() + first, batch.document_starts.begin() + first + count);
  }
  const int depths =
      objective.mtp_scale != 0 ? static_cast<int>(model_.config().num_nextn_predict_layers) : 0;
  mb.Load(stream_, batch.tokens.subspan(first * row, count * row), count, batch.length, depths, starts);
  model_.Forward(context, objective, mb);
  sums.loss += SumLosses(backend_, stream_, mb.losses);
  for (const Microbatch::Depth& depth : mb.depths)
    sums.mtp_loss += SumLosses(backend_, stream_, depth.losses);
  sums.counts.resize(mb.routing.size());
  for (size_t layer = 0; layer < mb.routing.size(); ++layer) {
    const RoutingStatistics& r = mb.routing[layer];
    sums.balance += r.balance_loss_sum;
    sums.auxiliary += r.auxiliary_loss_sum;
    sums.z += r.z_sum;
    sums.counts[layer].resize(r.counts.size());
    for (size_t e = 0; e < r.counts.size(); ++e) sums.counts[layer][e] += r.counts[e];
  }
  model_.Backward(context, objective, mb, Model::Weights::kNow);
  mb.saved.Reset();
}

StepMetrics Trainer::Step(const StepBatch& batch) {
  const auto start = std::chrono::steady_clock::now();
  CHECK_EQ(static_cast<int64_t>(batch.tokens.size()), batch.sequences * (batch.length + 1));
  const Objective objective = MakeObjective(batch);
  const int64_t each = config_.microbatch_sequences > 0 ? config_.microbatch_sequences : batch.sequences;
  Sums sums;
  for (int64_t first = 0; first < batch.sequences; first += each) {
    RunMicrobatch(objective, batch, first, std::min(each, batch.sequences - first), sums);
  }
  const double tokens = static_cast<double>(batch.sequences) * static_cast<double>(batch.length);
  const Context context = this->context();
  StepMetrics m;
  m.loss = sums.loss / tokens;
  if (objective.mtp_scale != 0) {
    m.mtp_loss = sums.mtp_loss / (tokens * static_cast<double>(model_.config().num_nextn_predict_layers));
  }
  m.balance_loss = sums.balance / static_cast<double>(batch.sequences);
  m.auxiliary_loss = sums.auxiliary / static_cast<double>(batch.sequences);
  m.z_loss = sums.z / tokens;
  m.max_violation = Mean(sums.counts, MaxViolation);
  m.load_entropy = Mean(sums.counts, LoadEntropy);
  m.grad_norm = optimizer_.GradientNorm(context);
  m.step = ++state_.step;
  m.lr = LearningRate(config_.schedule, state_.step, config_.steps);
  state_.sequences += batch.sequences;
  state_.tokens += batch.sequences * batch.length;
  m.skipped = !std::isfinite(m.loss) || !std::isfinite(m.mtp_loss) || !std::isfinite(m.grad_norm);
  if (m.skipped) {
    optimizer_.ClearGradients(context);
    ++state_.skipped_steps;
    ++state_.bad_in_a_row;
  } else {
    const double clip =
        config_.clip_norm > 0 ? std::min(1.0, config_.clip_norm / (m.grad_norm + kClipEpsilon)) : 1.0;
    optimizer_.Step(context, m.lr, clip, ++state_.updates);
    UpdateBiases(sums.counts);
    state_.bad_in_a_row = 0;
  }
  stream_.Synchronize();
  m.expert_counts = std::move(sums.counts);
  m.peak_bytes = HeldBytes();
  m.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return m;
}

void Trainer::UpdateBiases(const std::vector<std::vector<int64_t>>& counts) {
  if (config_.bias_update_speed == 0) return;
  const std::vector<const MoeMlp*> layers = model_.moe_layers();
  // Modules that were not run (loss weight 0) have no counts and stay as they are.
  for (size_t layer = 0; layer < counts.size(); ++layer) {
    Parameter* bias = layers[layer]->parameters().bias;
    if (bias == nullptr) continue;
    const std::vector<int64_t>& c = counts[layer];
    const int64_t experts = c.size(), total = std::accumulate(c.begin(), c.end(), int64_t{0});
    std::vector<float> b = GetParameter(backend_, stream_, *bias, 0, experts);
    for (int64_t e = 0; e < experts; ++e) {
      // mean - count, multiplied out so that the sign is exact.
      const int64_t below = total - c[e] * experts;
      b[e] += static_cast<float>(config_.bias_update_speed) * static_cast<float>((below > 0) - (below < 0));
    }
    SetParameter(backend_, stream_, *bias, 0, b);
  }
}

double Trainer::Evaluate(std::span<const int32_t> ids, std::span<const int32_t> starts) {
  double sum = 0;
  for (const auto& row : ScoreSequences(model_, context(), microbatch_, ids, starts)) {
    for (const float logprob : row) sum -= logprob;
  }
  return sum;
}

int64_t Trainer::HeldBytes() const {
  int64_t bytes = optimizer_.bytes() + scratch_.peak_bytes() + microbatch_.saved.peak_bytes();
  for (const auto& parameter : model_.parameters().all()) {
    bytes += parameter->weight().bytes();
    if (parameter->master() && parameter->master().data != parameter->weight().data)
      bytes += parameter->master().bytes();
    if (parameter->grad()) bytes += parameter->grad().bytes();
  }
  return bytes;
}

}  // namespace moebius
