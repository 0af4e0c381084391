// Sums and maxima over ranks, in rank order.
#pragma once

#include <cstdint>
#include <vector>

#include "core/tensor/dtype.h"
#include "parallel/comm/communicator.h"

namespace moebius {

// Whether the dtype can be reduced: f32, f64, i64, bf16.
bool CanReduce(DType dtype);

// out [count] = ((c0 op c1) op c2) ... of the contributions [ranks][count]; `out` may be one of them. bf16 is
// summed in f32 and rounded once. A NaN anywhere is a NaN in the maximum.
void ReduceInRankOrder(DType dtype, ReduceOp op, const std::vector<const void*>& contributions, int64_t count,
                       void* out);

}  // namespace moebius
