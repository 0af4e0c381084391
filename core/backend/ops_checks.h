// What the checked entry points (ops.cc, ops_attention.cc, ops_routing.cc) share: shape checks and the count
// of time and work. Not for use outside them.
#pragma once

#include <chrono>
#include <span>
#include <string_view>

#include "core/backend/context.h"

namespace moebius::ops {

inline bool IsAct(DType dtype) { return dtype == DType::kF32 || dtype == DType::kBF16; }

// A view of `rows` x `cols` (any rank: leading dimensions are flattened) of the given dtype.
inline void CheckMatrix(const TensorView& view, std::string_view name, DType dtype, int64_t rows,
                        int64_t cols) {
  CHECK(view.shape.rank() >= 1) << name << " is missing";
  CHECK(view.dtype == dtype) << name << " is " << view << ", want " << dtype;
  CHECK(view.rows() == rows && view.cols() == cols)
      << name << " is " << view << ", want " << rows << " rows of " << cols;
  CHECK(view.stride >= view.cols() || rows <= 1) << name << " has overlapping rows: " << view;
  CHECK(view.data != nullptr || view.elements() == 0) << name << " has no memory: " << view;
}

// A contiguous view of `elements` elements, whatever its shape.
inline void CheckFlat(const TensorView& view, std::string_view name, DType dtype, int64_t elements) {
  CHECK(view.shape.rank() >= 1) << name << " is missing";
  CHECK(view.dtype == dtype) << name << " is " << view << ", want " << dtype;
  CHECK(view.elements() == elements) << name << " is " << view << ", want " << elements << " elements";
  CHECK(view.contiguous()) << name << " must be contiguous: " << view;
  CHECK(view.data != nullptr || elements == 0) << name << " has no memory: " << view;
}

inline void CheckShape(const TensorView& view, std::string_view name, DType dtype, const Shape& shape) {
  CHECK(view.dtype == dtype && view.shape == shape) << name << " is " << view << ", want " << dtype << shape;
  CheckMatrix(view, name, dtype, view.rows(), view.cols());
}

inline void CheckSequences(std::span<const int32_t> starts, int64_t tokens) {
  CHECK(starts.size() >= 2 || (starts.size() == 1 && tokens == 0)) << starts.size() << " sequence starts";
  CHECK_EQ(starts.front(), 0) << "the first sequence starts at 0";
  CHECK_EQ(starts.back(), tokens) << "the last entry of sequence_starts is the number of tokens";
  for (size_t i = 1; i < starts.size(); ++i) CHECK_LE(starts[i - 1], starts[i]) << "sequence_starts ascend";
}

template <typename... Views>
double Bytes(const Views&... views) {
  return (0.0 + ... + (views ? static_cast<double>(views.bytes()) : 0.0));
}

// Runs the call; with a profile, waits for it and counts it. A profile serialises the stream: it is for
// measurement, not for production steps on devices that run asynchronously.
template <typename Call>
void Run(const Context& context, std::string_view name, double flops, double bytes, const Call& call) {
  if (context.profile == nullptr) {
    call();
    return;
  }
  context.stream.Synchronize();
  const auto start = std::chrono::steady_clock::now();
  call();
  context.stream.Synchronize();
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  context.profile->Add(name, seconds.count(), flops, bytes);
}

}  // namespace moebius::ops
