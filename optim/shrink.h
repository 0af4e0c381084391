// A model small enough to be proven on a laptop that still has every feature of the one it stands for.
#pragma once

#include <string>
#include <vector>

#include "core/model/config.h"

namespace moebius {

struct ShrunkModel {
  ModelConfig config;
  // "hidden_size 7168 -> 32", for every size that differs; in the order of the config.
  std::vector<std::string> changes;
};

// The same config always gives the same model. Kept: the family, MLA or GQA with its ratio of heads, q_lora,
// expert groups and their choice, shared experts, selection bias, scoring, dense layers first and between,
// MTP, tied or untied embedding, qk-norm, rotary scaling. Changed: widths, vocabulary, positions, and the
// number of layers and experts, which may also grow: 8 layers fill 4 pipeline ranks of 2 stages, 8 experts 8
// expert ranks. UsageError when the config itself does not pass Validate afterwards.
absl::StatusOr<ShrunkModel> Shrink(const ModelConfig& config);

}  // namespace moebius
