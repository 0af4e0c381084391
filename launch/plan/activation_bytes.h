// What the layers of a model keep of a token, by running them on a device that only counts (phantom.h).
#pragma once

#include "core/model/config.h"
#include "launch/recipe.h"

namespace moebius {

// Bytes of a token in a layer.
struct LayerBytes {
  double kept = 0;  // from F to the end of W
  double held = 0;  // beside them from I to W, where W comes later: gradients, and what was computed again
  double made = 0;  // of all activations, without recomputation
};

// Bytes of a token while a phase runs, beside kept and held: of the layer at work. B is I with W behind it.
struct WorkBytes {
  double forward = 0;
  double backward = 0;
  double input = 0;
  double scratch = 0;  // of calls; one for all phases
};

struct ActivationBytes {
  LayerBytes dense_layer, moe_layer;
  LayerBytes head;  // with MTP modules, where they are trained
  WorkBytes work;   // the most of any layer
};

// Under the recipe's recompute.policy, with activations in bf16.
ActivationBytes MeasureActivations(const proto::Recipe& recipe, const ModelConfig& config);

}  // namespace moebius
