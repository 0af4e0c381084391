#include "launch/plan/cluster_costs.h"

#include <algorithm>
#include <cmath>

#include "core/backend/phantom.h"
#include "core/model/cost.h"
#include "launch/plan/cluster.pb.h"
#include "launch/recipe.pb.h"
#include "launch/train/setup.h"
#include "parallel/row_format.h"

namespace moebius {
namespace {

constexpr double kGiga = 1e9;
constexpr double kTera = 1e12;
// AdamW reads and writes master weight and two moments, reads a gradient and writes a bf16 copy (cpu.md,
// "Memory").
constexpr double kOptimizerBytes = 30;
// A forward reads and writes its activations once, both backwards together twice.
constexpr double kForwardShare = 1.0 / 3;
// Attention's backward: five products where the forward has two (cost.md 2.2).
constexpr double kAttentionBackward = 2.5;

// The layer at work has gradients and scratch of so many times its activations: what runs of whole models on
// the device that counts come to (the plan's test holds it to them).
constexpr double kWorkingLayers = 2.6;

StageTime& operator+=(StageTime& sum, const StageTime& x) {
  const auto add = [](PhaseTime& a, const PhaseTime& b) {
    a.dense += b.dense;
    a.experts += b.experts;
    a.attention += b.attention;
    a.elementwise += b.elementwise;
    a.exchange += b.exchange;
  };
  add(sum.forward, x.forward);
  add(sum.backward_input, x.backward_input);
  add(sum.backward_weight, x.backward_weight);
  return sum;
}

void Scale(StageTime& time, double factor) {
  for (PhaseTime* p : {&time.forward, &time.backward_input, &time.backward_weight}) {
    for (double* part : {&p->dense, &p->experts, &p->attention, &p->elementwise, &p->exchange})
      *part *= factor;
  }
}

// Kept of a sequence after the forward of a model of `layers` layers, all dense or all MoE.
int64_t BytesAfterForward(const ModelConfig& full, bool moe, int64_t layers, int64_t length,
                          const Objective& objective) {
  ModelConfig config = full;
  config.num_hidden_layers = layers;
  config.num_nextn_predict_layers = 0;
  config.first_k_dense_replace = moe ? 0 : layers;
  config.mlp_only_layers.clear();
  config.decoder_sparse_step = 1;
  const std::unique_ptr<PhantomBackend> phantom = MakePhantomBackend({});
  const std::unique_ptr<Stream> stream = phantom->NewStream(StreamKind::kCompute);
  const Model model(config, *phantom, *stream, {.storage = {.act = DType::kBF16}, .max_positions = length});
  Arena scratch(*phantom);
  const Context context{*phantom, *stream, scratch};
  Microbatch microbatch(*phantom, model.num_slots());
  microbatch.Load(*stream, std::vector<int32_t>(length + 1), 1, length, 0);
  model.Forward(context, objective, microbatch);
  return microbatch.saved.activations().bytes();
}

// Ways to choose k of n, as a ratio of two such numbers: C(n - without, k) / C(n, k).
double ShareWithout(int64_t n, int64_t without, int64_t k) {
  double share = 1;
  for (int64_t i = 0; i < k; ++i) {
    share *= std::max<double>(0, static_cast<double>(n - without - i)) / static_cast<double>(n - i);
  }
  return share;
}

// That j of the `taken` groups of a part are among the `chosen` of `groups`.
double Hypergeometric(int64_t groups, int64_t chosen, int64_t taken, int64_t j) {
  const auto ways = [](int64_t n, int64_t k) {
    if (k < 0 || k > n) return 0.0;
    double product = 1;
    for (int64_t i = 0; i < k; ++i) product *= static_cast<double>(n - i) / static_cast<double>(i + 1);
    return product;
  };
  return ways(taken, j) * ways(groups - taken, chosen - j) / ways(groups, chosen);
}

bool Overlaps(const Schedule& schedule) {
  for (const auto& actions : schedule.actions) {
    for (const Action& action : actions) {
      if (action.kind == ActionKind::kOverlap) return true;
    }
  }
  return false;
}

}  // namespace

ActivationBytes MeasureActivations(const proto::Recipe& recipe, const ModelConfig& config) {
  const int64_t length = recipe.batch().sequence_length();
  const RecomputePolicy policy = TrainConfigOf(recipe).recompute;
  const auto bytes = [&](bool moe, int64_t layers, const RecomputePolicy& recompute) {
    const Objective objective{.token_scale = 1, .recompute = recompute, .rounding = RoundingOf(recipe)};
    return static_cast<double>(BytesAfterForward(config, moe, layers, length, objective)) /
           static_cast<double>(length);
  };
  const auto layer = [&](bool moe) {
    const RecomputePolicy none{.swiglu = false};
    return LayerBytes{.kept = bytes(moe, 3, policy) - bytes(moe, 2, policy),
                      .made = bytes(moe, 3, none) - bytes(moe, 2, none)};
  };
  ActivationBytes out;
  out.dense_layer = layer(false);
  if (config.n_routed_experts > 0) out.moe_layer = layer(true);
  out.head.kept = std::max(0.0, bytes(false, 2, policy) - 2 * out.dense_layer.kept);
  return out;
}

double PartsVisited(const ModelConfig& c, int64_t units) {
  const int64_t groups = std::max<int64_t>(1, c.n_group), chosen = std::max<int64_t>(1, c.topk_group);
  const int64_t in_group = c.n_routed_experts / groups, k = c.num_experts_per_tok;
  const int64_t candidates = in_group * chosen, in_unit = c.n_routed_experts / units;
  double hit = 0;
  if (in_unit >= in_group) {  // a part is whole groups
    const int64_t taken = in_unit / in_group;
    for (int64_t j = 1; j <= std::min(taken, chosen); ++j) {
      hit += Hypergeometric(groups, chosen, taken, j) * (1 - ShareWithout(candidates, in_group * j, k));
    }
  } else {
    hit = static_cast<double>(chosen) / static_cast<double>(groups) *
          (1 - ShareWithout(candidates, in_unit, k));
  }
  return hit * static_cast<double>(units);
}

absl::StatusOr<ClusterCosts> ClusterCosts::New(const proto::Recipe& recipe, const ModelConfig& config,
                                               const proto::Cluster& cluster,
                                               const ActivationBytes& activations) {
  ClusterCosts costs(recipe, config, cluster, activations);
  const proto::Cluster::Accelerator& a = cluster.accelerator();
  const bool fp8 = RoundingOf(recipe) != Rounding::kNone;
  if (fp8 && a.fp8_tflops() == 0) {
    return UsageError("the recipe computes in FP8, " + cluster.name() +
                      " has no accelerator.fp8_tflops; set precision.compute=BF16");
  }
  const proto::Cluster::Products& p = fp8 ? a.fp8() : a.bf16();
  const double peak = (fp8 ? a.fp8_tflops() : a.bf16_tflops()) * kTera, bf16 = a.bf16_tflops() * kTera;
  costs.dense_ = peak * p.dense();
  costs.experts_ = peak * p.experts();
  costs.weights_ = peak * p.weights();
  costs.head_ = bf16 * a.bf16().dense();
  costs.head_weights_ = bf16 * a.bf16().weights();
  costs.attention_forward_ = bf16 * a.attention_forward();
  costs.attention_backward_ = bf16 * a.attention_backward();
  return costs;
}

double ClusterCosts::GroupBandwidth(bool leaves_node) const {
  return (leaves_node ? cluster_.between_nodes() : cluster_.within_node()).gb_per_s() * kGiga;
}

double ClusterCosts::ExchangeSeconds(const Layout& layout, double row_bytes) const {
  const int64_t per_node = cluster_.ranks_per_node(), ranks = layout.expert;
  // Each choice is a row, also where several lie on one rank.
  const auto rows = static_cast<double>(config_.num_experts_per_tok);
  const double within = GroupBandwidth(false), between = GroupBandwidth(true);
  if (layout.exchange.kind == ExchangeKind::kGather) {
    const int64_t near = std::min(ranks, per_node);
    return std::max(static_cast<double>(near - 1) * row_bytes / within,
                    static_cast<double>(ranks - near) * row_bytes / between);
  }
  if (ranks <= per_node)
    return rows * static_cast<double>(ranks - 1) / static_cast<double>(ranks) * row_bytes / within;
  const double off_node = 1 - static_cast<double>(per_node) / static_cast<double>(ranks);
  // Uneven groups go the flat way (IsTwoLevel).
  if (layout.exchange.kind == ExchangeKind::kFlat || ranks % per_node != 0)
    return rows * off_node * row_bytes / between;
  const int64_t nodes = ranks / per_node;
  // Once to each node, then each choice from rank to rank there; both ways are busy at once.
  const double fan_out = rows * static_cast<double>(per_node - 1) / static_cast<double>(per_node);
  return std::max(PartsVisited(config_, nodes) * off_node * row_bytes / between,
                  fan_out * row_bytes / within);
}

LayerBytes ClusterCosts::BytesOf(const Layout& layout, bool moe) const {
  LayerBytes bytes = moe ? activations_.moe_layer : activations_.dense_layer;
  if (!moe || layout.expert == 1 || layout.exchange.kind != ExchangeKind::kGather) return bytes;
  // Rows that there is room for beyond a token's choices: of its input and of both halves of gate_up, in
  // bf16.
  const int64_t k = config_.num_experts_per_tok, local = config_.n_routed_experts / layout.expert;
  const double more = static_cast<double>(layout.expert * std::min(k, local) - k);
  const double row = 2.0 * static_cast<double>(config_.hidden_size + 2 * config_.moe_intermediate_size);
  bytes.kept += more * row;
  bytes.made += more * row;
  return bytes;
}

StageTime ClusterCosts::LayerTime(const Layout& layout, bool moe, double slowdown) const {
  const LayerCost flops = LayerCostOf(config_, moe, recipe_.batch().sequence_length());
  const double imbalance = layout.expert > 1 ? cluster_.exchange().imbalance() : 1;
  const LayerBytes bytes = BytesOf(layout, moe);
  const double memory = bytes.made * cluster_.accelerator().elementwise_passes() /
                        (cluster_.accelerator().memory_gb_per_s() * kGiga);
  StageTime t;
  t.forward = {.dense = flops.dense / dense_,
               .experts = flops.experts * imbalance / experts_,
               .attention = flops.attention / attention_forward_,
               .elementwise = memory * kForwardShare};
  t.backward_input = t.forward;
  t.backward_input.attention = kAttentionBackward * flops.attention / attention_backward_;
  t.backward_input.elementwise = memory * (1 - kForwardShare);
  switch (recipe_.recompute().policy()) {
    case proto::Recompute::NONE:
      break;
    case proto::Recompute::SELECTIVE:
      t.backward_input.dense += flops.up / dense_;
      break;
    case proto::Recompute::BLOCKS:
      t.backward_input.dense += t.forward.dense;
      t.backward_input.experts += t.forward.experts;
      t.backward_input.attention += t.forward.attention;
      t.backward_input.elementwise += t.forward.elementwise;
      break;
  }
  t.backward_weight.dense = flops.dense / weights_;
  t.backward_weight.experts = flops.experts * imbalance / weights_;
  if (layout.expert > 1) {
    const double taken = 1 - cluster_.exchange().share_of_compute();
    for (PhaseTime* p : {&t.forward, &t.backward_input, &t.backward_weight}) {
      p->dense /= taken;
      p->experts /= taken;
      p->attention /= taken;
    }
    if (moe) {
      const auto bytes_of = [&](WireFormat format) {
        return static_cast<double>(RowBytes(FormatOf(format, DType::kBF16), config_.hidden_size));
      };
      // Out and back in the forward, and gradients the same way round.
      const double both = ExchangeSeconds(layout, bytes_of(layout.exchange.dispatch)) +
                          ExchangeSeconds(layout, bytes_of(layout.exchange.combine));
      t.forward.exchange = both * slowdown * imbalance;
      const bool again = recipe_.recompute().policy() == proto::Recompute::BLOCKS;
      t.backward_input.exchange = (again ? 2 : 1) * t.forward.exchange;
    }
  }
  return t;
}

StageTime ClusterCosts::HeadTime() const {
  const double flops = 2.0 * static_cast<double>(config_.vocab_size * config_.hidden_size);
  StageTime t;
  t.forward.dense = flops / head_;
  t.backward_input.dense = flops / head_;
  t.backward_weight.dense = flops / head_weights_;
  return t;
}

StageTime ClusterCosts::TimeOf(const LayoutPlan& plan, const StageRange& range) const {
  const double slowdown = Overlaps(plan.schedule) ? cluster_.exchange().slowdown() : 1;
  StageTime sum;
  double exchanges = 0;
  const auto add = [&](bool moe) {
    sum += LayerTime(plan.layout, moe, slowdown);
    if (moe && plan.layout.expert > 1) exchanges += 2;
  };
  for (int64_t l = range.first_layer; l < range.last_layer; ++l) add(config_.IsMoe(l));
  if (range.head) {
    sum += HeadTime();
    for (int64_t k = 0; TrainsMtp(recipe_) && k < config_.num_nextn_predict_layers; ++k) {
      add(config_.IsMoe(config_.num_hidden_layers + k));
      sum += HeadTime();
      const double projection = 4.0 * static_cast<double>(config_.hidden_size * config_.hidden_size);
      StageTime t;
      t.forward.dense = t.backward_input.dense = projection / dense_;
      t.backward_weight.dense = projection / weights_;
      sum += t;
    }
  }
  Scale(sum, plan.microbatch_tokens);
  const bool leaves_node = plan.layout.expert > cluster_.ranks_per_node();
  const double latency =
      (leaves_node ? cluster_.between_nodes() : cluster_.within_node()).latency_us() * 1e-6;
  sum.forward.exchange += exchanges * latency;
  sum.backward_input.exchange += exchanges * latency;
  return sum;
}

double ClusterCosts::WorkingBytes(const LayoutPlan& plan) const {
  const double layers = kWorkingLayers + (recipe_.recompute().policy() == proto::Recompute::BLOCKS ? 1 : 0);
  return layers * std::max(activations_.dense_layer.made, BytesOf(plan.layout, true).made) *
         plan.largest_microbatch_tokens;
}

void ClusterCosts::Fill(const std::vector<RankState>& states, LayoutPlan& plan) const {
  const int64_t per_node = cluster_.ranks_per_node(), holders = plan.schedule.directions();
  const double bf16_row = 2.0 * static_cast<double>(config_.hidden_size);
  const int64_t replicas = int64_t{plan.layout.data} * plan.layout.expert;
  const bool several_nodes = plan.layout.ranks() > per_node;
  // Ranks of one pipeline coordinate are neighbours; where two coordinates hold a stage, the first and the
  // last do, at both ends of the job.
  const bool spans_nodes = replicas > per_node || (holders > 1 && several_nodes);
  const double bandwidth = GroupBandwidth(spans_nodes);
  const auto ring = [](int64_t ranks) { return static_cast<double>(ranks - 1) / static_cast<double>(ranks); };
  plan.costs.stages.clear();
  for (const StageRange& range : plan.ranges) {
    const StageTime t = TimeOf(plan, range);
    double kept = range.head ? activations_.head.kept : 0;
    for (int64_t l = range.first_layer; l < range.last_layer; ++l) {
      kept += BytesOf(plan.layout, config_.IsMoe(l)).kept;
    }
    for (int64_t k = 0; range.head && TrainsMtp(recipe_) && k < config_.num_nextn_predict_layers; ++k) {
      kept += BytesOf(plan.layout, config_.IsMoe(config_.num_hidden_layers + k)).kept;
    }
    plan.costs.stages.push_back({.forward = t.forward.total(),
                                 .backward_input = t.backward_input.total(),
                                 .backward_weight = t.backward_weight.total(),
                                 .forward_exchange = t.forward.exchange,
                                 .backward_exchange = t.backward_input.exchange,
                                 .activation_bytes = kept * plan.largest_microbatch_tokens});
  }
  // One stage boundary between nodes holds up the whole pipeline.
  const proto::Cluster::Network& link = several_nodes ? cluster_.between_nodes() : cluster_.within_node();
  plan.costs.transfer_latency = link.latency_us() * 1e-6;
  plan.costs.transfer_time = plan.microbatch_tokens * bf16_row / (link.gb_per_s() * kGiga);
  // The busiest rank: fp32 gradients are summed to their owners, the owners' bf16 weights go back to all.
  double reduce = 0, optimize = 0;
  for (const RankState& s : states) {
    const double shared = s.dense * ring(replicas * holders) + s.experts * ring(plan.layout.data * holders);
    const double owned = s.dense / static_cast<double>(replicas * holders) +
                         s.experts / static_cast<double>(plan.layout.data * holders);
    reduce = std::max(reduce, 4 * shared / bandwidth);
    optimize =
        std::max(optimize, 2 * shared / bandwidth +
                               owned * kOptimizerBytes / (cluster_.accelerator().memory_gb_per_s() * kGiga));
  }
  const double held = std::max<double>(1, static_cast<double>(plan.schedule.StagesOf(0).size()));
  for (StageCosts& stage : plan.costs.stages) stage.reduce_grad = reduce / held;
  plan.costs.optimize = optimize;
}

}  // namespace moebius
