#include "launch/train/dry_run.h"

#include <algorithm>
#include <cstdio>

#include "core/base/strings.h"
#include "core/model/cost.h"
#include "launch/environment.h"
#include "launch/recipe.pb.h"
#include "launch/train/memory.h"
#include "launch/train/settings.h"

namespace moebius {

std::string DescribePlan(const proto::Recipe& r, const ModelConfig& config, const Backend& backend,
                         double peak_flops) {
  const proto::Parallel& p = r.parallel();
  const bool several = std::max({p.pipeline(), p.data(), p.expert()}) > 1;
  const absl::StatusOr<int64_t> peak = PredictPeakBytes(r, config, backend);
  const int64_t length = r.batch().sequence_length();
  const ModelCost cost = CostOf(config, length);
  const bool mtp = TrainsMtp(r) && config.num_nextn_predict_layers > 0;
  const double flops = cost.train_flops + (mtp ? cost.train_flops_mtp : 0);
  const double tokens = SequencesOfRun(r) * static_cast<double>(MostTokens(r));
  const DType act = ComputeOf(r, backend);
  const double stored = static_cast<double>(cost.parameters + cost.mtp_parameters);
  const double moments = r.optimizer().moments() == proto::Optimizer::BF16 ? 2 : 4;
  const double copy = act == DType::kBF16 ? 2 : 0;
  const double ema = r.optimizer().ema_decay() > 0 ? 4 : 0;
  const double state = stored * (4 + 4 + 2 * moments + copy + ema);
  // Half of the product peak is what the benchmark model reaches at least; small models come lower.
  const double seconds = tokens * flops / (0.5 * peak_flops);
  char line[256];
  std::string out = Concat("model        ", config.model_type, ", ", WithCommas(cost.parameters),
                           " parameters (", WithCommas(cost.active), " active)");
  if (mtp) out += Concat(" + ", WithCommas(cost.mtp_parameters), " in MTP modules");
  std::snprintf(line, sizeof line, "\ncompute      %.4g GFLOP a token trained, %.4g PFLOP in all",
                flops / 1e9, flops * tokens / 1e15);
  out += line;
  out += Concat(
      "\ndata         ", r.task() == proto::PRETRAIN ? "" : "at most ",
      WithCommas(static_cast<int64_t>(std::min(tokens, 9e18))), " tokens in ", WithCommas(r.steps()),
      " steps of ", r.batch().sequences(),
      r.batch().ramp_size() > 0 ? Concat(" to ", r.batch().ramp().rbegin()->to_sequences()) : std::string(),
      " x ", length);
  out += Concat("\nmemory       ",
                peak.ok() ? Concat(HumanBytes(static_cast<double>(*peak)), " at the peak of one rank alone: ")
                          : std::string(),
                HumanBytes(state), " for weights, gradients and moments",
                peak.ok() ? ", the rest for activations"
                          : " of the model once, which ranks share and repeat; moebius plan has each rank's");
  if (!peak.ok() && !several)
    out += Concat("\nnote         one rank alone is refused: ", std::string(peak.status().message()));
  if (peak_flops > 0) {
    out += Concat("\ntime         ", r.task() == proto::PRETRAIN ? "about " : "at most about ",
                  HumanSeconds(seconds), " at half of this machine's measured ",
                  static_cast<int64_t>(peak_flops / 1e9), " GFLOP/s");
  }
  out += Concat("\nbackend      ", backend.Name(), ", computing in ", ComputeText(r, act), "\n");
  return out;
}

}  // namespace moebius
