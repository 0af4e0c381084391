// AdamW over the parameters of a model: fp32 master weights, moments in fp32 or bf16, an optional moving
// average of the weights. One update is one fused pass that also clears the gradient.
#pragma once

#include <string>
#include <vector>

#include "core/backend/context.h"
#include "core/layers/parameter.h"

namespace moebius {

struct AdamWConfig {
  double beta1 = 0.9;
  double beta2 = 0.95;
  double epsilon = 1e-8;
  double weight_decay = 0.1;  // matrices only
  DType moments = DType::kF32;
  double ema_decay = 0;    // 0: no moving average
  bool update_mtp = true;  // false: MTP modules stay as they are (their loss has no weight)
};

class AdamWOptimizer {
 public:
  // What is kept of one slice of a parameter, all [count].
  struct State {
    ParameterSlice slice;
    Tensor m;
    Tensor v;
    Tensor ema;  // empty without moving average
  };

  // `slices`: what this rank owns (ZeRO-1), once in the world; alone, all parameters whole.
  AdamWOptimizer(const std::vector<ParameterSlice>& slices, Backend& backend, Stream& stream,
                 const AdamWConfig& config);

  // Sum of squares of the gradients of all slices, in double in a fixed order.
  double GradientSquares(const Context& context) const;
  // Update number `step` (1 for the first) with gradients multiplied by grad_scale; they are zero afterwards.
  void Step(const Context& context, double lr, double grad_scale, int64_t step);
  // The moving average starts at the weights: call once they are there.
  void ResetEma(const Context& context);

  const AdamWConfig& config() const { return config_; }
  const std::vector<State>& states() const { return states_; }
  int64_t bytes() const;

 private:
  AdamWConfig config_;
  std::vector<State> states_;
};

}  // namespace moebius
