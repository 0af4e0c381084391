// Arrays for kernel tests: random tensors, their values as doubles, and comparisons.
#pragma once

#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "core/backend/backend.h"
#include "core/base/random.h"
#include "gtest/gtest.h"

namespace moebius {

inline double ValueAt(const TensorView& view, int64_t row, int64_t column) {
  const int64_t at = row * view.stride + column;
  switch (view.dtype) {
    case DType::kF32:
      return static_cast<const float*>(view.data)[at];
    case DType::kBF16:
      return static_cast<const BF16*>(view.data)[at].ToFloat();
    case DType::kI32:
      return static_cast<const int32_t*>(view.data)[at];
    case DType::kI64:
      return static_cast<double>(static_cast<const int64_t*>(view.data)[at]);
    default:
      CHECK(false) << view;
      return 0;
  }
}

inline void SetAt(const TensorView& view, int64_t row, int64_t column, double value) {
  const int64_t at = row * view.stride + column;
  switch (view.dtype) {
    case DType::kF32:
      static_cast<float*>(view.data)[at] = static_cast<float>(value);
      break;
    case DType::kBF16:
      static_cast<BF16*>(view.data)[at] = BF16::FromFloat(static_cast<float>(value));
      break;
    case DType::kI32:
      static_cast<int32_t*>(view.data)[at] = static_cast<int32_t>(value);
      break;
    case DType::kI64:
      static_cast<int64_t*>(view.data)[at] = static_cast<int64_t>(value);
      break;
    default:
      CHECK(false) << view;
  }
}

// Rows flattened, without the stride's gaps.
inline std::vector<double> Values(const TensorView& view) {
  std::vector<double> out;
  out.reserve(view.elements());
  for (int64_t r = 0; r < view.rows(); ++r) {
    for (int64_t c = 0; c < view.cols(); ++c) out.push_back(ValueAt(view, r, c));
  }
  return out;
}

inline Tensor RandomTensor(Allocator& allocator, DType dtype, Shape shape, const std::string& name,
                           double scale = 1) {
  Tensor tensor(allocator, dtype, shape);
  const RandomStream random(7, name);
  const TensorView view = tensor;
  for (int64_t r = 0; r < view.rows(); ++r) {
    for (int64_t c = 0; c < view.cols(); ++c) SetAt(view, r, c, scale * random.Normal(r * view.cols() + c));
  }
  return tensor;
}

// All bytes set to a pattern that no kernel writes, so that a forgotten element is seen.
inline Tensor DirtyTensor(Allocator& allocator, DType dtype, Shape shape) {
  Tensor tensor(allocator, dtype, shape);
  std::memset(tensor.view().data, 0x7F, tensor.view().bytes());
  return tensor;
}

inline Tensor Int32Tensor(Allocator& allocator, const std::vector<int32_t>& values) {
  Tensor tensor(allocator, DType::kI32, {static_cast<int64_t>(values.size())});
  if (!values.empty()) std::memcpy(tensor.view().data, values.data(), values.size() * sizeof(int32_t));
  return tensor;
}

// |got - want| <= tolerance * max(floor, largest |want|), everywhere.
inline void ExpectNear(const std::vector<double>& got, const std::vector<double>& want, double tolerance,
                       const std::string& what, double floor = 1) {
  ASSERT_EQ(got.size(), want.size()) << what;
  double largest = floor;
  for (const double w : want) largest = std::max(largest, std::abs(w));
  for (size_t i = 0; i < got.size(); ++i) {
    ASSERT_FALSE(!(std::abs(got[i] - want[i]) <= tolerance * largest))
        << what << ", element " << i << ": " << got[i] << ", reference " << want[i] << ", largest "
        << largest;
  }
}

inline bool SameBits(const TensorView& a, const TensorView& b) {
  return a.bytes() == b.bytes() && std::memcmp(a.data, b.data, a.bytes()) == 0;
}

}  // namespace moebius
