// One element of a row, whatever its dtype, as the float that sums and roundings work on.
#pragma once

#include "core/tensor/dtype.h"

namespace moebius {

inline float ToFloat(float x) { return x; }
inline float ToFloat(BF16 x) { return x.ToFloat(); }
inline void Set(float value, float& x) { x = value; }
inline void Set(float value, BF16& x) { x = BF16::FromFloat(value); }

}  // namespace moebius
