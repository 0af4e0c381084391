#include "launch/plan/cluster.h"

#include "core/base/status.h"
#include "core/base/strings.h"
#include "launch/plan/cluster.pb.h"
#include "launch/textproto.h"

namespace moebius {
namespace {

std::vector<NumberRange> ClusterRanges() {
  std::vector<NumberRange> ranges = {{"accelerator.bf16_tflops", 1e-6, 1e6},
                                     {"accelerator.fp8_tflops", 0, 1e6},
                                     {"accelerator.memory_gb", 1e-3, 1e6},
                                     {"accelerator.memory_gb_per_s", 1e-3, 1e6},
                                     {"accelerator.usd_per_hour", 0, 1e6},
                                     {"accelerator.attention_forward", 1e-3, 1},
                                     {"accelerator.attention_backward", 1e-3, 1},
                                     {"accelerator.elementwise_passes", 0, 1000},
                                     {"accelerator.reserved_gb", 0, 1e6},
                                     {"ranks_per_node", 1, 1 << 20},
                                     {"exchange.share_of_compute", 0, 1, true},
                                     {"exchange.slowdown", 1, 100},
                                     {"exchange.imbalance", 1, 1000},
                                     {"failures.rank_hours", 0, 1e12},
                                     {"failures.save_s", 0, 1e6},
                                     {"failures.restart_s", 0, 1e6}};
  for (const char* precision : {"bf16", "fp8"}) {
    for (const char* product : {"dense", "experts", "weights"}) {
      ranges.push_back({Concat("accelerator.", precision, ".", product), 1e-3, 1});
    }
  }
  for (const char* network : {"within_node", "between_nodes"}) {
    ranges.push_back({Concat(network, ".gb_per_s"), 1e-3, 1e6});
    ranges.push_back({Concat(network, ".latency_us"), 0, 1e6});
  }
  return ranges;
}

}  // namespace

absl::StatusOr<std::shared_ptr<proto::Cluster>> LoadCluster(const std::string& path) {
  const auto read = std::make_shared<proto::Cluster>();
  proto::Cluster& cluster = *read;
  Origins origins;
  RETURN_IF_ERROR(ReadTextproto(path, &cluster, &origins));
  std::vector<std::string> errors;
  CheckRanges(cluster, origins, ClusterRanges(), &errors);
  const auto need = [&](bool has, const char* field, const char* what) {
    if (!has) errors.push_back(Concat(path, ": ", field, " is missing; ", what));
  };
  const proto::Cluster::Accelerator& a = cluster.accelerator();
  need(a.has_bf16_tflops(), "accelerator.bf16_tflops", "set the peak of dense bf16 products");
  need(a.has_memory_gb(), "accelerator.memory_gb", "set the memory of one accelerator");
  need(a.has_memory_gb_per_s(), "accelerator.memory_gb_per_s", "set the bandwidth of its memory");
  const auto products = [&](const proto::Cluster::Products& p, const char* precision) {
    need(p.has_dense() && p.has_experts() && p.has_weights(), Concat("accelerator.", precision).c_str(),
         "give the shares of the peak that dense products, experts and weight gradients reach: dense, "
         "experts, weights");
  };
  products(a.bf16(), "bf16");
  if (a.fp8_tflops() > 0) products(a.fp8(), "fp8");
  need(cluster.within_node().has_gb_per_s(), "within_node.gb_per_s", "set what a rank sends to its own node");
  need(cluster.between_nodes().has_gb_per_s(), "between_nodes.gb_per_s",
       "set what a rank sends to other nodes");
  if (!errors.empty()) return UsageError(Join(errors, "\n"));
  if (!cluster.has_name()) cluster.set_name(path);
  return read;
}

}  // namespace moebius
