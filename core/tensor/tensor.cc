#include "core/tensor/tensor.h"

#include <utility>

namespace moebius {

std::ostream& operator<<(std::ostream& out, const Shape& shape) {
  out << "[";
  for (int i = 0; i < shape.rank(); ++i) out << (i ? ", " : "") << shape[i];
  return out << "]";
}

std::ostream& operator<<(std::ostream& out, const TensorView& view) {
  out << view.dtype << view.shape;
  if (!view.contiguous()) out << " stride " << view.stride;
  return out;
}

TensorView TensorView::Columns(int64_t begin, int64_t count) const {
  CHECK(begin >= 0 && count >= 0 && begin + count <= cols()) << *this << " columns " << begin << "+" << count;
  TensorView out = *this;
  out.data = static_cast<char*>(data) + begin * SizeOf(dtype);
  switch (shape.rank()) {
    case 1:
      out.shape = {count};
      break;
    case 2:
      out.shape = {shape[0], count};
      break;
    case 3:
      out.shape = {shape[0], shape[1], count};
      break;
    default:
      out.shape = {shape[0], shape[1], shape[2], count};
      break;
  }
  return out;
}

TensorView TensorView::Rows(int64_t begin, int64_t count) const {
  CHECK(begin >= 0 && count >= 0 && begin + count <= shape[0]) << *this << " rows " << begin << "+" << count;
  if (shape.rank() == 1) return Columns(begin, count);
  TensorView out = *this;
  const int64_t rows_each = rows() / (shape[0] ? shape[0] : 1);
  out.data = static_cast<char*>(data) + begin * rows_each * stride * SizeOf(dtype);
  switch (shape.rank()) {
    case 2:
      out.shape = {count, shape[1]};
      break;
    case 3:
      out.shape = {count, shape[1], shape[2]};
      break;
    default:
      out.shape = {count, shape[1], shape[2], shape[3]};
      break;
  }
  return out;
}

TensorView TensorView::Index(int64_t i) const {
  CHECK_GE(shape.rank(), 2);
  TensorView out = Rows(i, 1);
  switch (shape.rank()) {
    case 2:
      out.shape = {shape[1]};
      break;
    case 3:
      out.shape = {shape[1], shape[2]};
      break;
    default:
      out.shape = {shape[1], shape[2], shape[3]};
      break;
  }
  return out;
}

TensorView TensorView::Reshape(Shape new_shape) const {
  CHECK_EQ(new_shape.elements(), elements()) << *this << " to " << new_shape;
  TensorView out = *this;
  out.shape = new_shape;
  if (contiguous()) {
    out.stride = out.cols();
  } else {
    CHECK_EQ(new_shape[new_shape.rank() - 1], cols()) << "a strided view keeps its last dimension: " << *this;
  }
  return out;
}

Tensor::Tensor(Allocator& allocator, DType dtype, Shape shape)
    : allocator_(&allocator), view_(allocator.Allocate(shape.elements() * SizeOf(dtype)), dtype, shape) {}

Tensor::~Tensor() {
  if (view_.data != nullptr) allocator_->Free(view_.data);
}

Tensor::Tensor(Tensor&& other) noexcept
    : allocator_(other.allocator_), view_(std::exchange(other.view_, TensorView())) {}

Tensor& Tensor::operator=(Tensor&& other) noexcept {
  std::swap(allocator_, other.allocator_);
  std::swap(view_, other.view_);
  return *this;
}

}  // namespace moebius
