// The backend that kernel tests run on: the CPU, or the GPU where MOEBIUS_TEST_GPU is defined; the bodies are
// the same. A test that names MakeCpuBackend is about the CPU alone.
#pragma once

#include <memory>
#include <vector>

#include "core/backend/backend.h"

namespace moebius {

#ifdef MOEBIUS_TEST_GPU
inline constexpr bool kTestsGpu = true;
#else
inline constexpr bool kTestsGpu = false;
#endif

// Host code may read and write its tensors whenever no call is in progress: the GPU's lie in mapped host
// memory, and every call waits for the device. Without a usable GPU the process ends (CHECK) with the reason.
std::unique_ptr<Backend> NewTestBackend(ProductEngine products = ProductEngine::kAuto);

// A device as a program uses it: the GPU's tensors lie in its own memory, and nothing waits unasked. The CPU
// pretends to be one that records.
std::unique_ptr<Backend> NewDeviceBackend();

// Backends that must give the same bits: the CPU with one, two and three threads, or the GPU twice. Each may
// use memory of the others and of NewTestBackend.
std::vector<std::unique_ptr<Backend>> NewTestBackends(ProductEngine products = ProductEngine::kAuto);

// How far a result may be from double precision, as a part of the largest value: what is summed in fp32, and
// for bf16 the rounding of the result (half of its last bit) and of the probabilities of attention. A product
// of FP8 operands may miss by `fp8_product` of the sum of its terms' magnitudes: fp32 sums on the CPU, on a
// GPU a tensor core's of 128 terms with 14 bits (deepseek.md 2.3).
struct Tolerance {
  double elementwise, product, attention, decode, fp8_product;
};
inline Tolerance ToleranceOf(DType dtype) {
  constexpr double kFp8 = kTestsGpu ? 1e-3 : 1e-6;
  if (dtype == DType::kF32) {
    return {.elementwise = 2e-6, .product = 3e-6, .attention = 5e-6, .decode = 5e-6, .fp8_product = kFp8};
  }
  return {.elementwise = 0.004, .product = 0.004, .attention = 2e-2, .decode = 1e-2, .fp8_product = kFp8};
}

}  // namespace moebius
