// Tensors: a TensorView borrows (pointer, dtype, shape, row stride; pass by value), a Tensor owns.
//
// A view has 1 to 4 dimensions, row-major. Its elements along the last dimension are adjacent; consecutive
// rows (over all other dimensions flattened) lie `stride` elements apart. So a slice of columns, such as the
// rotary part of each head of [tokens, heads, 192], is a view too. No other strides exist.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <ostream>

#include "core/base/check.h"
#include "core/tensor/dtype.h"

namespace moebius {

// Where memory comes from; a Backend is one.
class Allocator {
 public:
  virtual ~Allocator() = default;
  // 64-byte aligned, uninitialised, never null; running out of memory ends the process with a message.
  virtual void* Allocate(int64_t bytes) = 0;
  virtual void Free(void* memory) = 0;
};

class Shape {
 public:
  Shape() = default;
  Shape(std::initializer_list<int64_t> dims) {
    CHECK_LE(dims.size(), size_t{4});
    for (const int64_t dim : dims) dims_[rank_++] = dim;
  }
  int rank() const { return rank_; }
  int64_t operator[](int i) const { return dims_[i]; }
  int64_t elements() const {
    int64_t n = 1;
    for (int i = 0; i < rank_; ++i) n *= dims_[i];
    return n;
  }
  friend bool operator==(const Shape&, const Shape&) = default;

 private:
  std::array<int64_t, 4> dims_{};
  int rank_ = 0;
};
std::ostream& operator<<(std::ostream& out, const Shape& shape);

struct TensorView {
  void* data = nullptr;
  DType dtype = DType::kF32;
  Shape shape;
  int64_t stride = 0;  // elements between rows; shape's last dimension when contiguous

  TensorView() = default;
  TensorView(void* data_in, DType dtype_in, Shape shape_in)
      : data(data_in),
        dtype(dtype_in),
        shape(shape_in),
        stride(shape_in.rank() ? shape_in[shape_in.rank() - 1] : 0) {}

  explicit operator bool() const { return data != nullptr; }
  int64_t cols() const { return shape[shape.rank() - 1]; }
  int64_t rows() const {  // product of all dimensions but the last
    int64_t n = 1;
    for (int i = 0; i + 1 < shape.rank(); ++i) n *= shape[i];
    return n;
  }
  int64_t elements() const { return shape.elements(); }
  int64_t bytes() const { return elements() * SizeOf(dtype); }
  bool contiguous() const { return stride == cols() || rows() <= 1; }

  // Typed pointer to the first element; the dtype must be T's.
  template <typename T>
  T* as() const;

  // The same rows, columns [begin, begin + count): [.., count], stride unchanged.
  TensorView Columns(int64_t begin, int64_t count) const;
  // Rows [begin, begin + count) of a 2-D view (or elements of a 1-D one).
  TensorView Rows(int64_t begin, int64_t count) const;
  // Entry i of the first dimension; rank drops by one.
  TensorView Index(int64_t i) const;
  // Another shape over the same elements. Contiguous views take any; strided ones keep their last dimension,
  // or split it evenly when each row is one piece: [tokens, heads * d] -> [tokens, heads, d] needs
  // contiguity.
  TensorView Reshape(Shape new_shape) const;
};
std::ostream& operator<<(std::ostream& out, const TensorView& view);  // "BF16[4096, 512]"

template <typename T>
struct DTypeOf;
template <>
struct DTypeOf<float> {
  static constexpr DType value = DType::kF32;
};
template <>
struct DTypeOf<double> {
  static constexpr DType value = DType::kF64;
};
template <>
struct DTypeOf<BF16> {
  static constexpr DType value = DType::kBF16;
};
template <>
struct DTypeOf<int32_t> {
  static constexpr DType value = DType::kI32;
};
template <>
struct DTypeOf<int64_t> {
  static constexpr DType value = DType::kI64;
};
template <>
struct DTypeOf<uint8_t> {
  static constexpr DType value = DType::kU8;
};

template <typename T>
T* TensorView::as() const {
  CHECK(dtype == DTypeOf<T>::value) << *this;
  return static_cast<T*>(data);
}

// Owns its memory; movable. The allocator must outlive it.
class Tensor {
 public:
  Tensor() = default;
  Tensor(Allocator& allocator, DType dtype, Shape shape);
  ~Tensor();
  Tensor(Tensor&& other) noexcept;
  Tensor& operator=(Tensor&& other) noexcept;

  const TensorView& view() const { return view_; }
  operator TensorView() const { return view_; }
  explicit operator bool() const { return view_.data != nullptr; }

 private:
  Allocator* allocator_ = nullptr;
  TensorView view_;
};

}  // namespace moebius
