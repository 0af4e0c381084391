// What this processor offers, as far as kernels choose by it.
#pragma once

#include <string>

namespace moebius {

std::string InstructionSetName();  // the set that Highway's dispatch picks: "AVX2", "AVX3", ...
bool HasAvx512();                  // AVX-512 F, BW, DQ, VL: oneDNN's fp32 products run at full speed
bool HasAvx512Vnni();
bool HasAvxVnni();  // the same without AVX-512
bool HasBF16();     // AVX512-BF16 (every processor with AMX has it too)

// AVX512-BF16 whose dot products (vdpbf16ps) outrun fp32: twice its rate on AMD's Zen 4 and 5. Intel's take
// two cycles each, half the rate of fp32 (measured on Emerald Rapids: 82 against 165 GFLOP/s a core).
bool HasBF16Dots();

}  // namespace moebius
