#include "core/backend/cpu/instruction_set.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/backend/cpu/instruction_set.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
//
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace moebius::HWY_NAMESPACE {
const char* CurrentTargetName() { return hwy::TargetName(HWY_TARGET); }
}  // namespace moebius::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace moebius {

HWY_EXPORT(CurrentTargetName);

std::string InstructionSetName() { return HWY_DYNAMIC_DISPATCH(CurrentTargetName)(); }

#if defined(__x86_64__)
bool HasAvx512() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
bool HasAvx512Vnni() { return HasAvx512() && __builtin_cpu_supports("avx512vnni"); }
bool HasAvxVnni() { return __builtin_cpu_supports("avxvnni"); }
bool HasBF16() { return HasAvx512() && __builtin_cpu_supports("avx512bf16"); }
bool HasBF16Dots() { return HasBF16() && __builtin_cpu_is("amd"); }
#else
bool HasAvx512() { return false; }
bool HasAvx512Vnni() { return false; }
bool HasAvxVnni() { return false; }
bool HasBF16() { return false; }
bool HasBF16Dots() { return false; }
#endif

}  // namespace moebius
#endif  // HWY_ONCE
