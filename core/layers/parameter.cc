#include "core/layers/parameter.h"

#include <algorithm>
#include <thread>

#include "core/base/random.h"

namespace moebius {
namespace {

TensorView Flat(TensorView view) { return view.Reshape({view.elements()}); }

void FillNormal(const RandomStream& stream, float sigma, std::vector<float>& values) {
  // A pure function of the index, so any split gives the same numbers.
  const int64_t n = values.size();
  const int num_threads = n < (1 << 16) ? 1 : std::max(1u, std::thread::hardware_concurrency());
  std::vector<std::thread> threads;
  for (int t = 0; t < num_threads; ++t) {
    threads.emplace_back([&, t] {
      for (int64_t i = n * t / num_threads; i < n * (t + 1) / num_threads; ++i) {
        values[i] = sigma * static_cast<float>(stream.Normal(i));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace

void Parameter::Allocate(Allocator& allocator, const ParameterStorage& storage) {
  const DType dtype = spec_.keep_f32 ? DType::kF32 : storage.act;
  weight_memory_ = Tensor(allocator, dtype, spec_.shape);
  weight_ = weight_memory_;
  if (dtype == DType::kF32) {
    master_ = weight_;
  } else if (storage.training) {
    master_memory_ = Tensor(allocator, DType::kF32, spec_.shape);
    master_ = master_memory_;
  }
  if (storage.training && storage.gradients && spec_.trainable) {
    grad_memory_ = Tensor(allocator, DType::kF32, spec_.shape);
    grad_ = grad_memory_;
  }
}

Parameter* ParameterSet::Add(ParameterSpec spec) {
  int64_t offset = 0;
  for (const Piece& piece : spec.pieces) {
    CHECK_EQ(piece.offset, offset) << spec.name << " piece " << piece.name;
    offset += piece.shape.elements();
  }
  CHECK_EQ(offset, spec.shape.elements()) << spec.name;
  parameters_.push_back(std::make_unique<Parameter>(std::move(spec)));
  return parameters_.back().get();
}

void ParameterSet::Allocate(Backend& backend, Stream& stream, const ParameterStorage& storage) {
  for (const auto& parameter : parameters_) {
    parameter->Allocate(backend, storage);
    if (parameter->grad()) backend.Zero(stream, parameter->grad());
  }
}

void ParameterSet::Initialize(Backend& backend, Stream& stream, uint64_t seed, float sigma) {
  for (const auto& parameter : parameters_) {
    for (const Piece& piece : parameter->spec().pieces) {
      std::vector<float> values(piece.shape.elements(), parameter->spec().init == Init::kOnes ? 1.0f : 0.0f);
      if (parameter->spec().init == Init::kNormal) {
        FillNormal(RandomStream(seed, "init/" + piece.name), sigma, values);
      }
      SetParameter(backend, stream, *parameter, piece.offset, values);
    }
  }
}

int64_t ParameterSet::elements() const {
  int64_t n = 0;
  for (const auto& parameter : parameters_) n += parameter->shape().elements();
  return n;
}

void SetParameter(Backend& backend, Stream& stream, Parameter& parameter, int64_t offset,
                  const std::vector<float>& values) {
  const int64_t n = values.size();
  const TensorView weight = Flat(parameter.weight()).Rows(offset, n);
  if (parameter.master()) {
    const TensorView master = Flat(parameter.master()).Rows(offset, n);
    backend.CopyToDevice(stream, values.data(), master);
    if (weight.data != master.data) backend.Cast(stream, master, weight);
    stream.Synchronize();
    return;
  }
  Tensor staging(backend, DType::kF32, {n});
  backend.CopyToDevice(stream, values.data(), staging);
  backend.Cast(stream, staging, weight);
  stream.Synchronize();
}

std::vector<float> GetParameter(Backend& backend, Stream& stream, const Parameter& parameter, int64_t offset,
                                int64_t count) {
  std::vector<float> values(count);
  if (parameter.master()) {
    backend.CopyToHost(stream, Flat(parameter.master()).Rows(offset, count), values.data());
    stream.Synchronize();
    return values;
  }
  Tensor staging(backend, DType::kF32, {count});
  backend.Cast(stream, Flat(parameter.weight()).Rows(offset, count), staging);
  backend.CopyToHost(stream, staging, values.data());
  stream.Synchronize();
  return values;
}

}  // namespace moebius
