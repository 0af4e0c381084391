// Fill in the middle: a document is rearranged prefix-suffix-middle (PSM), so that a model learns to write
// what stands between two texts: begin prefix hole suffix end middle (Bavarian et al. 2022; DeepSeek-V3 uses
// rate 0.1, before packing: DeepSeek-V3 report, section 4.1).
#pragma once

#include <cstdint>
#include <optional>

namespace moebius {

struct FimCuts {
  int64_t middle_begin = 0;  // prefix is [0, middle_begin)
  int64_t middle_end = 0;    // suffix is [middle_end, length)
};

// Whether the document with this index is rearranged, and where it is cut: uniform over 0 <= begin <= end <=
// length, in whatever unit length has. A pure function of (seed, document_index, rate, length).
std::optional<FimCuts> ChooseFimCuts(uint64_t seed, int64_t document_index, double rate, int64_t length);

}  // namespace moebius
