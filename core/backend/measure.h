// The limits of this machine, measured through the backend's own kernels: what shares and expected times
// refer to.
#pragma once

#include "core/backend/backend.h"

namespace moebius {

// Rows and columns of the product that a peak is measured with: 1024, on a GPU 8192.
int64_t ProductPeakSize(const Backend& backend);
// FLOP/s of a product of that size cubed in `dtype`, best of about `seconds` of tries.
double MeasureProductPeak(Backend& backend, DType dtype, double seconds = 0.1);
// Bytes/s of reading a buffer that no cache holds, best of a few passes.
double MeasureReadBandwidth(Backend& backend);
// Bytes/s of copying such a buffer, those read and those written counted.
double MeasureCopyBandwidth(Backend& backend);

}  // namespace moebius
