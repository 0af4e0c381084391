#include "launch/bench/kernel_inputs.h"

#include <algorithm>
#include <numeric>

#include "core/backend/ops.h"

namespace moebius {

KernelInputs::KernelInputs(Backend& backend, Stream& stream, Arena& scratch, Arena& arena)
    : context_{backend, stream, scratch}, arena_(arena) {
  std::vector<float> normal(1 << 20), positive(normal.size());
  for (size_t i = 0; i < normal.size(); ++i) {
    normal[i] = static_cast<float>(random_.Normal(next_++));
    positive[i] = 0.5f + static_cast<float>(random_.Uniform(next_++));
  }
  const Shape shape{static_cast<int64_t>(normal.size())};
  normal_ = Tensor(backend, DType::kF32, shape);
  positive_ = Tensor(backend, DType::kF32, shape);
  backend.CopyToDevice(stream, normal.data(), normal_);
  backend.CopyToDevice(stream, positive.data(), positive_);
  stream.Synchronize();
}

TensorView KernelInputs::Tile(const TensorView& block, DType dtype, Shape shape) {
  const TensorView x = New(dtype, shape), flat = x.Reshape({x.elements()});
  for (int64_t i = 0; i < flat.elements(); i += block.elements()) {
    const int64_t count = std::min(block.elements(), flat.elements() - i);
    Cast(context_, block.Rows(0, count), flat.Rows(i, count));
  }
  return x;
}
TensorView KernelInputs::Random(DType dtype, Shape shape) { return Tile(normal_, dtype, shape); }
TensorView KernelInputs::Positive(DType dtype, Shape shape) { return Tile(positive_, dtype, shape); }

TensorView KernelInputs::Integers(const std::vector<int32_t>& values) {
  const TensorView x = New(DType::kI32, {static_cast<int64_t>(values.size())});
  context_.backend.CopyToDevice(context_.stream, values.data(), x);
  context_.stream.Synchronize();
  return x;
}

TensorView KernelInputs::Below(int64_t n, Shape shape) {
  std::vector<int32_t> values(shape.elements());
  for (int32_t& value : values) value = static_cast<int32_t>(random_.Below(next_++, n));
  return Integers(values).Reshape(shape);
}

TensorView KernelInputs::Choices(int64_t tokens, int64_t k, int64_t among) {
  std::vector<int32_t> values, all(among);
  std::iota(all.begin(), all.end(), 0);
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t i = 0; i < k; ++i) {
      std::swap(all[i], all[i + random_.Below(next_++, among - i)]);
      values.push_back(all[i]);
    }
  }
  return Integers(values).Reshape({tokens, k});
}

TensorView KernelInputs::Offsets(int64_t groups, int64_t rows) {
  std::vector<int64_t> values(groups + 1);
  for (int64_t g = 1; g < groups; ++g)
    values[g] = g * rows + static_cast<int64_t>(random_.Below(next_++, rows / 2 + 1)) - rows / 4;
  values[groups] = groups * rows;
  const TensorView x = New(DType::kI64, {groups + 1});
  context_.backend.CopyToDevice(context_.stream, values.data(), x);
  context_.stream.Synchronize();
  return x;
}

}  // namespace moebius
