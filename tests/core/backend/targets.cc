#include "tests/core/backend/targets.h"

#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "core/backend/cpu/instruction_set.h"
#include "hwy/targets.h"

namespace moebius {

namespace {

constexpr int64_t kAll = 0;  // what Highway takes for "no mask"

int64_t Wanted() {
  const char* name = std::getenv("MOEBIUS_TEST_TARGET");
  if (name == nullptr) return kAll;
  if (std::string_view(name) == "AVX2") return HWY_AVX2 | HWY_SCALAR;
  if (std::string_view(name) == "SCALAR") return HWY_SCALAR;
  std::fprintf(stderr, "MOEBIUS_TEST_TARGET is %s; known are AVX2 and SCALAR\n", name);
  std::exit(64);
}

const bool kSet = [] {
  // Highway believes the mask, so it must not promise what the processor lacks.
  if (const int64_t wanted = Wanted(); wanted != kAll) {
    hwy::SetSupportedTargetsForTest(wanted & (hwy::SupportedTargets() | HWY_SCALAR));
  }
  return true;
}();

}  // namespace

double SumError() { return (hwy::SupportedTargets() & (HWY_AVX2 | HWY_AVX3 | HWY_NEON)) != 0 ? 1 : 10; }

BF16Anywhere::BF16Anywhere() {
  if (HasAvx512() && !HasBF16() && Wanted() == kAll) hwy::SetSupportedTargetsForTest(HWY_AVX2 | HWY_SCALAR);
}
BF16Anywhere::~BF16Anywhere() {
  if (Wanted() == kAll) hwy::SetSupportedTargetsForTest(kAll);
}

}  // namespace moebius
