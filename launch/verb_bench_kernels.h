#pragma once

#include "launch/cli.h"

namespace moebius {

Verb BenchKernelsVerb();  // `moebius bench kernels`

}  // namespace moebius
