// What a nat of a token's loss is in bits of a byte of text.
#pragma once

#include "data/loader.h"

namespace moebius {

// Of a token of the mixture: 1 / (ln 2 x mean bytes of a token). 0 where a part does not say how long its
// text is.
double BitsPerNat(const Loader& loader, const LoaderOptions& options);

}  // namespace moebius
