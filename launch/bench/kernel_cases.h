// The calls that `moebius bench kernels` times: every kernel of the seam at sizes that training and decoding
// meet, on random numbers.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "launch/bench/kernel_inputs.h"

namespace moebius {

using KernelCall = std::function<void(const Context&)>;
struct KernelCase {
  std::string kernel;
  std::string what;  // dtype and sizes: "bf16 32768 x 1536"
  std::function<KernelCall(KernelInputs&)> make;
};

struct KernelSizes {
  int64_t tokens, length, heads, experts, top_k, width, batch;
  int64_t flat;  // elements: optimizer, casts, logits
  std::vector<int64_t> hidden, vocabularies, groups, group_rows;
};
// Sizes that fill a GPU, or that a CPU gets through in seconds.
KernelSizes SizesOf(bool gpu);

std::vector<KernelCase> FlatCases(const KernelSizes& sizes);  // elementwise, optimizer, loss
std::vector<KernelCase> RowCases(const KernelSizes& sizes);   // norms, embeddings, rows moved, SwiGLU, Rope
std::vector<KernelCase> RoutingCases(const KernelSizes& sizes);  // router, balance, sort
std::vector<KernelCase> ProductCases(const KernelSizes& sizes);  // products and attention

inline const char* Word(DType dtype) { return dtype == DType::kF32 ? "fp32" : "bf16"; }

}  // namespace moebius
