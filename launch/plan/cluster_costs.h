// What a microbatch costs on a cluster: seconds of every phase of every stage, and what they are made of.
#pragma once

#include <array>
#include <string>
#include <vector>

#include "launch/plan/activation_bytes.h"
#include "launch/plan/cluster.h"
#include "launch/plan/layout_plan.h"
#include "launch/train/memory.h"
#include "parallel/node_map.h"

namespace moebius {

// Seconds.
struct PhaseTime {
  double dense = 0;
  double experts = 0;
  double attention = 0;
  double elementwise = 0;
  double exchange = 0;
  double compute() const { return dense + experts + attention + elementwise; }
  double total() const { return compute() + exchange; }
};
struct StageTime {
  PhaseTime forward, backward_input, backward_weight;
};

// Of `units` equal parts of the experts (ranks or nodes, in order), how many a token's experts lie on, on
// average, when the router chooses evenly within its groups (deepseek.md, node-limited routing): an average
// over choices without repetition.
double PartsVisited(const ModelConfig& config, int64_t units);
// The nodes of the expert groups, of all that differ in how they lie on nodes of so many ranks.
std::vector<NodeMap> ExpertGroups(const Layout& layout, int64_t per_node);

class ClusterCosts {
 public:
  // Activations are bf16. All arguments outlive the costs, but for `activations`: those under the recipe's
  // policy. UsageError: FP8 asked of an accelerator that has none.
  static absl::StatusOr<ClusterCosts> New(const proto::Recipe& recipe, const ModelConfig& config,
                                          const proto::Cluster& cluster, const ActivationBytes& activations);

  // Of a stage's layers, embedding left out.
  StageTime TimeOf(const LayoutPlan& plan, const StageRange& range) const;
  // Fills plan.costs, those of gradients and optimizer too; `states`: StateOf every pipeline rank.
  void Fill(const std::vector<RankState>& states, LayoutPlan& plan) const;

  // Seconds of one direction of a layer's exchange for a token, without latency and slowdown.
  double ExchangeSeconds(const Layout& layout, double row_bytes) const;

 private:
  double GroupSeconds(ExchangeKind kind, const NodeMap& nodes, double row_bytes) const;
  // Of a token in a MoE layer: rows for experts beyond its choices.
  double ExtraRowBytes(const Layout& layout) const;
  // Activations of a token in a layer of the trunk.
  LayerBytes BytesOf(const Layout& layout, bool moe) const;

  ClusterCosts(const proto::Recipe& recipe, const ModelConfig& config, const proto::Cluster& cluster,
               const ActivationBytes& activations)
      : recipe_(recipe), config_(config), cluster_(cluster), activations_(activations) {}
  double Imbalance(const Layout& layout) const;
  // Of one token in one layer of the trunk or of an MTP module.
  StageTime LayerTime(const LayoutPlan& plan, bool moe, bool in_trunk) const;
  StageTime HeadTime() const;
  double GroupBandwidth(bool leaves_node) const;  // bytes a second

  const proto::Recipe& recipe_;
  const ModelConfig& config_;
  const proto::Cluster& cluster_;
  ActivationBytes activations_;
  // FLOP/s of products.
  double dense_ = 0, experts_ = 0, weights_ = 0, head_ = 0, head_weights_ = 0, attention_forward_ = 0,
         attention_backward_ = 0;
};

}  // namespace moebius
