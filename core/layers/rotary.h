// Rotary position tables: cos and sin of position x frequency, with YaRN (Peng et al., arXiv 2309.00071, as
// in the released DeepSeek-V3) and Llama-3 scaling of the frequencies.
#pragma once

#include <cstdint>
#include <vector>

#include "core/backend/context.h"

namespace moebius {

enum class RopeScalingKind { kNone, kYarn, kLlama3 };

struct RopeScaling {
  RopeScalingKind kind = RopeScalingKind::kNone;
  double factor = 1;
  int64_t original_max_position_embeddings = 0;
  double beta_fast = 32;
  double beta_slow = 1;
  double mscale = 1;
  double mscale_all_dim = 0;
  double low_freq_factor = 1;
  double high_freq_factor = 4;
};

// [dim / 2] angular frequencies.
std::vector<double> RopeFrequencies(int64_t dim, double theta, const RopeScaling& scaling);
// YaRN's 0.1 * mscale * ln(factor) + 1; 1 where factor <= 1.
double YarnMscale(double factor, double mscale);
// What cos and sin are multiplied by: mscale(mscale) / mscale(mscale_all_dim) under YaRN, else 1.
double RopeAttentionFactor(const RopeScaling& scaling);

// The tables for positions [0, max_positions), shared by the layers of a model: f32.
struct RotaryTable {
  Tensor cos;  // [max_positions, dim / 2]
  Tensor sin;
  RopeStyle style = RopeStyle::kInterleaved;
};
RotaryTable MakeRotaryTable(Backend& backend, Stream& stream, int64_t max_positions, int64_t dim,
                            double theta, const RopeScaling& scaling, RopeStyle style);
// x [T, heads, dim] act at positions [T] i32, in place; and the inverse, which takes gradients back.
void Rotate(const Context& context, const RotaryTable& table, TensorView positions, TensorView x);
void RotateBack(const Context& context, const RotaryTable& table, TensorView positions, TensorView x);

}  // namespace moebius
