#include "core/layers/rotary.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "core/backend/ops.h"

namespace moebius {
namespace {

constexpr double kTwoPi = 2 * std::numbers::pi;

// The dimension whose wavelength makes `rotations` turns within the original length.
double CorrectionDim(double rotations, int64_t dim, double theta, int64_t original_length) {
  return dim * std::log(original_length / (rotations * kTwoPi)) / (2 * std::log(theta));
}

void ApplyYarn(int64_t dim, double theta, const RopeScaling& s, std::vector<double>& frequencies) {
  double low = std::floor(CorrectionDim(s.beta_fast, dim, theta, s.original_max_position_embeddings));
  double high = std::ceil(CorrectionDim(s.beta_slow, dim, theta, s.original_max_position_embeddings));
  low = std::max(low, 0.0);
  high = std::min(high, static_cast<double>(dim - 1));
  if (low == high) high += 0.001;
  for (size_t i = 0; i < frequencies.size(); ++i) {
    const double smooth = 1 - std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
    frequencies[i] = frequencies[i] / s.factor * (1 - smooth) + frequencies[i] * smooth;
  }
}

void ApplyLlama3(const RopeScaling& s, std::vector<double>& frequencies) {
  const double low_wavelength = s.original_max_position_embeddings / s.low_freq_factor;
  const double high_wavelength = s.original_max_position_embeddings / s.high_freq_factor;
  for (double& frequency : frequencies) {
    const double wavelength = kTwoPi / frequency;
    if (wavelength < high_wavelength) continue;
    if (wavelength > low_wavelength) {
      frequency /= s.factor;
    } else {
      const double smooth = (s.original_max_position_embeddings / wavelength - s.low_freq_factor) /
                            (s.high_freq_factor - s.low_freq_factor);
      frequency = (1 - smooth) * frequency / s.factor + smooth * frequency;
    }
  }
}

}  // namespace

std::vector<double> RopeFrequencies(int64_t dim, double theta, const RopeScaling& scaling) {
  std::vector<double> frequencies(dim / 2);
  for (int64_t i = 0; i < dim / 2; ++i) frequencies[i] = std::pow(theta, -2.0 * i / dim);
  if (scaling.kind == RopeScalingKind::kYarn) ApplyYarn(dim, theta, scaling, frequencies);
  if (scaling.kind == RopeScalingKind::kLlama3) ApplyLlama3(scaling, frequencies);
  return frequencies;
}

double YarnMscale(double factor, double mscale) {
  return factor <= 1 ? 1.0 : 0.1 * mscale * std::log(factor) + 1.0;
}

double RopeAttentionFactor(const RopeScaling& s) {
  if (s.kind != RopeScalingKind::kYarn) return 1;
  if (s.mscale != 0 && s.mscale_all_dim != 0)
    return YarnMscale(s.factor, s.mscale) / YarnMscale(s.factor, s.mscale_all_dim);
  return YarnMscale(s.factor, 1);
}

RotaryTable MakeRotaryTable(Backend& backend, Stream& stream, int64_t max_positions, int64_t dim,
                            double theta, const RopeScaling& scaling, RopeStyle style) {
  const std::vector<double> frequencies = RopeFrequencies(dim, theta, scaling);
  const double factor = RopeAttentionFactor(scaling);
  std::vector<float> cosines(max_positions * dim / 2);
  std::vector<float> sines(cosines.size());
  for (int64_t p = 0; p < max_positions; ++p) {
    for (int64_t i = 0; i < dim / 2; ++i) {
      cosines[p * dim / 2 + i] = static_cast<float>(factor * std::cos(p * frequencies[i]));
      sines[p * dim / 2 + i] = static_cast<float>(factor * std::sin(p * frequencies[i]));
    }
  }
  RotaryTable table{Tensor(backend, DType::kF32, {max_positions, dim / 2}),
                    Tensor(backend, DType::kF32, {max_positions, dim / 2}), style};
  backend.CopyToDevice(stream, cosines.data(), table.cos);
  backend.CopyToDevice(stream, sines.data(), table.sin);
  stream.Synchronize();
  return table;
}

void Rotate(const Context& context, const RotaryTable& table, TensorView positions, TensorView x) {
  Rope(context, {.x = x, .positions = positions, .cos = table.cos, .sin = table.sin, .style = table.style});
}

void RotateBack(const Context& context, const RotaryTable& table, TensorView positions, TensorView x) {
  Rope(context, {.x = x,
                 .positions = positions,
                 .cos = table.cos,
                 .sin = table.sin,
                 .style = table.style,
                 .inverse = true});
}

}  // namespace moebius
