#include "launch/plan/cluster_costs.h"

#include <algorithm>
#include <map>

#include "core/model/cost.h"
#include "launch/plan/cluster.pb.h"
#include "launch/recipe.pb.h"
#include "launch/train/settings.h"
#include "parallel/exchange/row_format.h"
#include "parallel/node_map.h"

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

// Ways to choose k of n, as a ratio of two such numbers: C(n - without, k) / C(n, k).
double ShareWithout(int64_t n, int64_t without, int64_t k) {
  double share = 1;
  for (int64_t i = 0; i < k; ++i) {
    share *= std::max<double>(0, static_cast<double>(n - without - i)) / static_cast<double>(n - i);
  }
  return share;
}

double Ways(int64_t n, int64_t k) {
  double product = k < 0 || k > n ? 0 : 1;
  for (int64_t i = 0; i < k; ++i) product *= static_cast<double>(n - i) / static_cast<double>(i + 1);
  return product;
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

double PartsVisited(const ModelConfig& c, int64_t units) {
  const int64_t groups = std::max<int64_t>(1, c.n_group), chosen = std::max<int64_t>(1, c.topk_group);
  const int64_t in_group = c.n_routed_experts / groups, in_unit = c.n_routed_experts / units;
  double visited = 0;
  for (int64_t unit = 0; unit < units; ++unit) {
    const int64_t first = unit * in_unit, last = first + in_unit;
    // Ways to choose so many of the groups that the part lies in, with so many of its experts in them.
    std::map<std::pair<int64_t, int64_t>, double> choices{{{0, 0}, 1}};
    int64_t touched = 0;
    for (int64_t group = first / in_group; group * in_group < last; ++group) {
      const int64_t shared = std::min(last, (group + 1) * in_group) - std::max(first, group * in_group);
      ++touched;
      auto with = choices;
      for (const auto& [key, ways] : choices) with[{key.first + 1, key.second + shared}] += ways;
      choices = std::move(with);
    }
    for (const auto& [key, ways] : choices) {
      const double share = ways * Ways(groups - touched, chosen - key.first) / Ways(groups, chosen);
      visited += share * (1 - ShareWithout(in_group * chosen, key.second, c.num_experts_per_tok));
    }
  }
  return visited;
}

std::vector<NodeMap> ExpertGroups(const Layout& layout, int64_t per_node) {
  std::vector<NodeMap> groups;
  // Where groups begin in their node repeats after per_node of them.
  for (int64_t g = 0; g < std::min<int64_t>(layout.ranks() / layout.expert, per_node); ++g) {
    std::vector<int> node_of_member;
    for (int64_t r = g * layout.expert; r < (g + 1) * layout.expert; ++r)
      node_of_member.push_back(static_cast<int>(r / per_node));
    groups.emplace_back(node_of_member);
  }
  return groups;
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
  double slowest = 0;
  for (const NodeMap& nodes : ExpertGroups(layout, cluster_.ranks_per_node()))
    slowest = std::max(slowest, GroupSeconds(layout.exchange.kind, nodes, row_bytes));
  return slowest;
}

double ClusterCosts::GroupSeconds(ExchangeKind kind, const NodeMap& nodes, double row_bytes) const {
  int64_t ranks = 0, fewest = nodes.members(0), most = 0;
  for (int n = 0; n < nodes.nodes(); ++n) {
    ranks += nodes.members(n);
    fewest = std::min<int64_t>(fewest, nodes.members(n));
    most = std::max<int64_t>(most, nodes.members(n));
  }
  const double within = GroupBandwidth(false), between = GroupBandwidth(true);
  if (kind == ExchangeKind::kGather) {
    return std::max(static_cast<double>(most - 1) * row_bytes / within,
                    static_cast<double>(ranks - fewest) * row_bytes / between);
  }
  // Each choice is a row, also where several lie on one rank. The fewest on a node send the most elsewhere.
  const auto rows = static_cast<double>(config_.num_experts_per_tok);
  const double off_node = 1 - static_cast<double>(fewest) / static_cast<double>(ranks);
  if (nodes.nodes() == 1)
    return rows * static_cast<double>(ranks - 1) / static_cast<double>(ranks) * row_bytes / within;
  if (!IsTwoLevel(kind, nodes)) return rows * off_node * row_bytes / between;
  // Once to each node, then each choice from rank to rank there; both ways are busy at once.
  const double fan_out = rows * static_cast<double>(most - 1) / static_cast<double>(most);
  return std::max(PartsVisited(config_, nodes.nodes()) * off_node * row_bytes / between,
                  fan_out * row_bytes / within);
}

double ClusterCosts::Imbalance(const Layout& layout) const {
  return layout.expert > 1 ? cluster_.exchange().imbalance() : 1;
}

// Of rows for experts beyond a token's choices: those that GATHER has room for, or that the busiest rank
// gets.
double ClusterCosts::ExtraRowBytes(const Layout& layout) const {
  const int64_t k = config_.num_experts_per_tok, local = config_.n_routed_experts / layout.expert;
  const bool gathers = layout.expert > 1 && layout.exchange.kind == ExchangeKind::kGather;
  const double rows = gathers ? static_cast<double>(layout.expert * std::min(k, local) - k)
                              : static_cast<double>(k) * (Imbalance(layout) - 1);
  // A row's input, and both halves of gate_up where they are kept, in bf16.
  const int64_t wide = recipe_.parallel().max_expert_rows() > 0 ? 0 : 2 * config_.moe_intermediate_size;
  return rows * 2.0 * static_cast<double>(config_.hidden_size + wide);
}

LayerBytes ClusterCosts::BytesOf(const Layout& layout, bool moe) const {
  if (!moe) return activations_.dense_layer;
  LayerBytes bytes = activations_.moe_layer;
  const double more = ExtraRowBytes(layout);
  const bool again = recipe_.recompute().policy() == proto::Recompute::BLOCKS;
  bytes.kept += again ? 0 : more;
  bytes.held += again ? 2 * more : more;
  bytes.made += more;
  return bytes;
}

StageTime ClusterCosts::LayerTime(const LayoutPlan& plan, bool moe, bool in_trunk) const {
  const Layout& layout = plan.layout;
  const LayerCost flops = LayerCostOf(config_, moe, recipe_.batch().sequence_length());
  const double imbalance = Imbalance(layout);
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
  // What is computed again; MTP modules are not (Model::ForwardMtp).
  const auto policy = recipe_.recompute().policy();
  const bool again = policy == proto::Recompute::BLOCKS && in_trunk;
  if (again) {
    t.backward_input.dense += t.forward.dense;
    t.backward_input.experts += t.forward.experts;
    t.backward_input.attention += t.forward.attention;
    t.backward_input.elementwise += t.forward.elementwise;
  } else if (policy != proto::Recompute::NONE) {
    const double dropped = policy == proto::Recompute::SELECTIVE ? (bytes.made - bytes.kept) / bytes.made : 0;
    t.backward_input.dense += flops.up / dense_;
    t.backward_input.elementwise += t.forward.elementwise * dropped;
  }
  t.backward_weight.dense = flops.dense / weights_;
  t.backward_weight.experts = flops.experts * imbalance / weights_;
  if (layout.expert == 1) return t;
  // What the exchange and the products beside it take from each other.
  const bool beside = Overlaps(plan.schedule);
  const double left = beside ? 1 - cluster_.exchange().share_of_compute() : 1;
  for (PhaseTime* p : {&t.forward, &t.backward_input, &t.backward_weight}) {
    p->dense /= left;
    p->experts /= left;
    p->attention /= left;
  }
  if (!moe) return t;
  const auto bytes_of = [&](WireFormat format) {
    return static_cast<double>(RowBytes(FormatOf(format, DType::kBF16), config_.hidden_size));
  };
  // Out and back in the forward, and gradients the same way round.
  const double both = ExchangeSeconds(layout, bytes_of(layout.exchange.dispatch)) +
                      ExchangeSeconds(layout, bytes_of(layout.exchange.combine));
  t.forward.exchange = both * imbalance * (beside ? cluster_.exchange().slowdown() : 1);
  t.backward_input.exchange = (again ? 2 : 1) * t.forward.exchange;
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
  StageTime sum;
  double exchanges = 0;
  const auto add = [&](int64_t layer) {
    const bool moe = config_.IsMoe(layer);
    sum += LayerTime(plan, moe, layer < config_.num_hidden_layers);
    if (moe && plan.layout.expert > 1) exchanges += 2;
  };
  for (int64_t l = range.first_layer; l < range.last_layer; ++l) add(l);
  if (range.head) {
    sum += HeadTime();
    for (int64_t k = 0; TrainsMtp(recipe_) && k < config_.num_nextn_predict_layers; ++k) {
      add(config_.num_hidden_layers + k);
      sum += HeadTime();
      const double projection = 4.0 * static_cast<double>(config_.hidden_size * config_.hidden_size);
      StageTime t;
      t.forward.dense = t.backward_input.dense = projection / dense_;
      t.backward_weight.dense = projection / weights_;
      sum += t;
    }
  }
  Scale(sum, plan.microbatch_tokens);
  const std::vector<NodeMap> groups = ExpertGroups(plan.layout, cluster_.ranks_per_node());
  const bool leaves_node =
      std::any_of(groups.begin(), groups.end(), [](const NodeMap& nodes) { return nodes.nodes() > 1; });
  const double latency =
      (leaves_node ? cluster_.between_nodes() : cluster_.within_node()).latency_us() * 1e-6;
  sum.forward.exchange += exchanges * latency;
  sum.backward_input.exchange += exchanges * latency;
  return sum;
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
    LayerBytes bytes = range.head ? activations_.head : LayerBytes();
    for (int64_t l = range.first_layer; l < range.last_layer; ++l) {
      const LayerBytes layer = BytesOf(plan.layout, config_.IsMoe(l));
      bytes.kept += layer.kept;
      bytes.held += layer.held;
    }
    // Of MTP modules, which are not computed again.
    const double more = config_.n_routed_experts > 0 ? ExtraRowBytes(plan.layout) : 0;
    for (int64_t k = 0; range.head && TrainsMtp(recipe_) && k < config_.num_nextn_predict_layers; ++k) {
      bytes.kept += more;
      bytes.held += more;
    }
    const WorkBytes& work = activations_.work;
    const double tokens = plan.largest_microbatch_tokens;
    plan.costs.stages.push_back({.forward = t.forward.total(),
                                 .backward_input = t.backward_input.total(),
                                 .backward_weight = t.backward_weight.total(),
                                 .forward_exchange = t.forward.exchange,
                                 .backward_exchange = t.backward_input.exchange,
                                 .activation_bytes = bytes.kept * tokens,
                                 .held_bytes = bytes.held * tokens,
                                 .forward_work_bytes = (work.forward + more) * tokens,
                                 .backward_work_bytes = (work.backward + 2 * more) * tokens,
                                 .input_work_bytes = work.input * tokens});
  }
  plan.costs.scratch_bytes = activations_.work.scratch * plan.largest_microbatch_tokens;
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
