// Tensors of random numbers for the calls that `moebius bench kernels` times.
#pragma once

#include <vector>

#include "core/backend/context.h"
#include "core/base/random.h"

namespace moebius {

// Makes a call's tensors, which stay valid until the arena is reset.
class KernelInputs {
 public:
  // `scratch` is what kernels take theirs from, `arena` where tensors lie.
  KernelInputs(Backend& backend, Stream& stream, Arena& scratch, Arena& arena);

  const Context& context() const { return context_; }
  TensorView New(DType dtype, Shape shape) { return arena_.New(dtype, shape); }
  TensorView Random(DType dtype, Shape shape);                   // f32 or bf16: standard normal
  TensorView Positive(DType dtype, Shape shape);                 // f32 or bf16: in [0.5, 1.5)
  TensorView Below(int64_t n, Shape shape);                      // i32, uniform in [0, n)
  TensorView Choices(int64_t tokens, int64_t k, int64_t among);  // [tokens, k] i32, distinct in a row
  TensorView Integers(const std::vector<int32_t>& values);       // [n] i32
  TensorView Offsets(int64_t groups, int64_t rows);  // [groups + 1] i64: about `rows` each, uneven

 private:
  TensorView Tile(const TensorView& block, DType dtype, Shape shape);

  Context context_;
  Arena& arena_;
  RandomStream random_{1, "bench kernels"};
  uint64_t next_ = 0;         // of random_
  Tensor normal_, positive_;  // [2^20] f32, repeated in every tensor
};

}  // namespace moebius
