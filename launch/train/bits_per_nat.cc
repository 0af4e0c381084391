#include "launch/train/bits_per_nat.h"

#include <cmath>

namespace moebius {

double BitsPerNat(const Loader& loader, const LoaderOptions& options) {
  double bytes = 0, weights = 0;
  for (size_t i = 0; i < options.parts.size(); ++i) {
    const TokenFile& file = loader.file(static_cast<int>(i));
    if (file.info().bytes <= 0) return 0;
    bytes += options.parts[i].weight * static_cast<double>(file.info().bytes) /
             static_cast<double>(file.num_tokens());
    weights += options.parts[i].weight;
  }
  return weights / bytes / M_LN2;
}

}  // namespace moebius
