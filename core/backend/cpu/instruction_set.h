// What this processor offers, as far as kernels choose by it.
#pragma once

#include <string>

namespace moebius {

std::string InstructionSetName();  // the set that Highway's dispatch picks: "AVX2", "AVX3", ...
bool HasAvx512();                  // AVX-512 F, BW, DQ, VL: oneDNN's products run at full speed
bool HasBF16Products();            // AVX512-BF16 or AMX: products of bf16 run faster than those of fp32

}  // namespace moebius
