// The largest of a few hundred values: what routing selects by.
#pragma once

#include <cstdint>

namespace moebius {

// indices = those of the k largest of n values, by falling value, a tie to the lower index. n >= k >= 1. NaN
// is never preferred to a number. `kept`: room for k values.
inline void TopK(const float* values, int64_t n, int64_t k, int32_t* indices, float* kept) {
  int64_t count = 0;
  for (int64_t i = 0; i < n; ++i) {
    if (count == k && !(values[i] > kept[k - 1]) && kept[k - 1] == kept[k - 1]) continue;
    int64_t at = count < k ? count++ : k - 1;
    for (; at > 0 && (values[i] > kept[at - 1] || kept[at - 1] != kept[at - 1]); --at) {
      kept[at] = kept[at - 1];
      indices[at] = indices[at - 1];
    }
    kept[at] = values[i];
    indices[at] = static_cast<int32_t>(i);
  }
}

}  // namespace moebius
