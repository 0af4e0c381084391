#include "tests/core/backend/reference.h"

#include <cmath>

namespace moebius {

Doubles ReferenceTransposed(const Doubles& x, int64_t rows, int64_t cols) {
  Doubles out(x.size());
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < cols; ++c) out[c * rows + r] = x[r * cols + c];
  }
  return out;
}

Doubles ReferenceMatMul(const Doubles& a, const Doubles& b, int64_t m, int64_t n, int64_t k) {
  Doubles c(m * n);
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t p = 0; p < k; ++p) {
      for (int64_t j = 0; j < n; ++j) c[i * n + j] += a[i * k + p] * b[p * n + j];
    }
  }
  return c;
}

NormReference ReferenceNorm(const Doubles& s, const Doubles& gain, int64_t rows, int64_t n, double epsilon) {
  NormReference out{.y = Doubles(rows * n), .rstd = Doubles(rows)};
  for (int64_t r = 0; r < rows; ++r) {
    double squares = 0;
    for (int64_t i = 0; i < n; ++i) squares += s[r * n + i] * s[r * n + i];
    out.rstd[r] = 1 / std::sqrt(squares / n + epsilon);
    for (int64_t i = 0; i < n; ++i) out.y[r * n + i] = s[r * n + i] * out.rstd[r] * gain[i];
  }
  return out;
}

NormBackwardReference ReferenceNormBackward(const Doubles& x, const Doubles& gain, const Doubles& dy,
                                            int64_t rows, int64_t n, double epsilon) {
  NormBackwardReference out{.dx = Doubles(rows * n), .dgain = Doubles(n)};
  const NormReference forward = ReferenceNorm(x, gain, rows, n, epsilon);
  for (int64_t r = 0; r < rows; ++r) {
    const double rstd = forward.rstd[r];
    double dot = 0;
    for (int64_t i = 0; i < n; ++i) dot += dy[r * n + i] * gain[i] * x[r * n + i];
    for (int64_t i = 0; i < n; ++i) {
      const int64_t at = r * n + i;
      out.dx[at] = rstd * dy[at] * gain[i] - x[at] * rstd * rstd * rstd * dot / n;
      out.dgain[i] += dy[at] * x[at] * rstd;
    }
  }
  return out;
}

Doubles ReferenceRope(const Doubles& x, const Doubles& angles, int64_t tokens, int64_t heads, int64_t d,
                      RopeStyle style) {
  Doubles out(x.size());
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t h = 0; h < heads; ++h) {
      for (int64_t i = 0; i < d / 2; ++i) {
        const int64_t row = (t * heads + h) * d;
        const bool pairs = style == RopeStyle::kInterleaved;
        const int64_t a = row + (pairs ? 2 * i : i), b = row + (pairs ? 2 * i + 1 : i + d / 2);
        const double angle = angles[t * (d / 2) + i];
        out[a] = x[a] * std::cos(angle) - x[b] * std::sin(angle);
        out[b] = x[a] * std::sin(angle) + x[b] * std::cos(angle);
      }
    }
  }
  return out;
}

SwiGluReference ReferenceSwiGlu(const Doubles& gate_up, const Doubles& weights, const Doubles& dh,
                                int64_t rows, int64_t width) {
  SwiGluReference out{
      .h = Doubles(rows * width), .d_gate_up = Doubles(rows * 2 * width), .d_row_weights = Doubles(rows)};
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t i = 0; i < width; ++i) {
      const double g = gate_up[r * 2 * width + i], u = gate_up[r * 2 * width + width + i],
                   d = dh[r * width + i];
      const double sigmoid = 1 / (1 + std::exp(-g)), silu = g * sigmoid;
      const double slope = sigmoid + g * sigmoid * (1 - sigmoid);
      out.h[r * width + i] = silu * u * weights[r];
      out.d_gate_up[r * 2 * width + i] = d * weights[r] * u * slope;
      out.d_gate_up[r * 2 * width + width + i] = d * weights[r] * silu;
      out.d_row_weights[r] += d * silu * u;
    }
  }
  return out;
}

void ReferenceAdamW(const AdamWArgs& args, const Doubles& grad, AdamWReference& s) {
  // The settings are fp32 numbers; their exact values count.
  const double b1 = args.beta1, b2 = args.beta2, decay = args.ema_decay;
  for (size_t i = 0; i < grad.size(); ++i) {
    const double g = grad[i] * args.grad_scale;
    s.m[i] = b1 * s.m[i] + (1 - b1) * g;
    s.v[i] = b2 * s.v[i] + (1 - b2) * g * g;
    const double m_hat = s.m[i] / (1 - std::pow(b1, args.step)),
                 v_hat = s.v[i] / (1 - std::pow(b2, args.step));
    s.w[i] -= args.lr * (m_hat / (std::sqrt(v_hat) + args.epsilon) + args.weight_decay * s.w[i]);
    s.ema[i] = decay * s.ema[i] + (1 - decay) * s.w[i];
  }
}

}  // namespace moebius
