// Plain double-precision references of the dense kernels: loops that read like the formulas of kernel_args.h.
// Matrices are rows flattened, as Values() of arrays.h gives them.
#pragma once

#include <cstdint>
#include <vector>

#include "core/backend/kernel_args.h"

namespace moebius {

using Doubles = std::vector<double>;

Doubles ReferenceTransposed(const Doubles& x, int64_t rows, int64_t cols);
// [m, n] = a [m, k] · b [k, n].
Doubles ReferenceMatMul(const Doubles& a, const Doubles& b, int64_t m, int64_t n, int64_t k);

struct NormReference {
  Doubles y, rstd;
};
NormReference ReferenceNorm(const Doubles& s, const Doubles& gain, int64_t rows, int64_t n, double epsilon);

struct NormBackwardReference {
  Doubles dx, dgain;
};
NormBackwardReference ReferenceNormBackward(const Doubles& x, const Doubles& gain, const Doubles& dy,
                                            int64_t rows, int64_t n, double epsilon);

// x [tokens, heads, d]; angles [tokens, d / 2].
Doubles ReferenceRope(const Doubles& x, const Doubles& angles, int64_t tokens, int64_t heads, int64_t d,
                      RopeStyle style);

struct SwiGluReference {
  Doubles h, d_gate_up, d_row_weights;
};
SwiGluReference ReferenceSwiGlu(const Doubles& gate_up, const Doubles& weights, const Doubles& dh,
                                int64_t rows, int64_t width);

struct AdamWReference {
  Doubles w, m, v, ema;
};
void ReferenceAdamW(const AdamWArgs& args, const Doubles& grad, AdamWReference& state);

}  // namespace moebius
