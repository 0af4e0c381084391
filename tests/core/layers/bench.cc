#include "tests/core/layers/bench.h"

#include <cmath>
#include <cstdlib>

#include "core/base/random.h"
#include "tests/core/backend/test_backend.h"
#include "tests/core/layers/plain_backend.h"

namespace moebius {

void Poison(Arena& arena) {
  CHECK_EQ(arena.bytes(), 0) << "still in use";
  if (arena.peak_bytes() == 0) return;
  ArenaScope scope(arena);
  const TensorView all = arena.New(DType::kU8, {arena.peak_bytes()});
  std::memset(all.data, 0xFF, all.bytes());
}

namespace {

// MOEBIUS_TEST_BACKEND=plain: the same tests without a kernel of ours, to see whose mistake a failure is.
std::unique_ptr<Backend> BackendUnderTest() {
  const char* name = std::getenv("MOEBIUS_TEST_BACKEND");
  if (name != nullptr && std::string(name) == "plain") return MakePlainBackend();
  return NewTestBackend();
}

}  // namespace

Bench::Bench() : Bench(BackendUnderTest()) {}

Bench::Bench(std::unique_ptr<Backend> backend)
    : backend_(std::move(backend)),
      stream_(backend_->NewStream(StreamKind::kCompute)),
      poisoned_(*backend_),
      scratch_(poisoned_, int64_t{8} << 20),
      context_{*backend_, *stream_, scratch_} {}

std::vector<float> Bench::Read(TensorView view) {
  std::vector<float> values(view.elements());
  const Tensor flat(*backend_, DType::kF32, view.shape);
  backend_->Cast(*stream_, view, flat);
  backend_->CopyToHost(*stream_, flat, values.data());
  stream_->Synchronize();
  return values;
}

void Bench::Write(const std::vector<float>& values, TensorView view) {
  CHECK_EQ(static_cast<int64_t>(values.size()), view.elements());
  const Tensor flat(*backend_, DType::kF32, view.shape);
  backend_->CopyToDevice(*stream_, values.data(), flat);
  backend_->Cast(*stream_, flat, view);
  stream_->Synchronize();
}

std::vector<int32_t> Bench::ReadInts(TensorView view) {
  std::vector<int32_t> values(view.elements());
  backend_->CopyToHost(*stream_, view, values.data());
  stream_->Synchronize();
  return values;
}

Tensor Bench::Floats(DType dtype, Shape shape, const std::vector<float>& values) {
  Tensor tensor(poisoned_, dtype, shape);
  Write(values, tensor);
  return tensor;
}

Tensor Bench::Ints(const std::vector<int32_t>& values) {
  Tensor tensor(poisoned_, DType::kI32, {static_cast<int64_t>(values.size())});
  backend_->CopyToDevice(*stream_, values.data(), tensor);
  stream_->Synchronize();
  return tensor;
}

std::vector<float> Normals(const std::string& name, int64_t count, double scale) {
  const RandomStream random(17, name);
  std::vector<float> values(count);
  for (int64_t i = 0; i < count; ++i) values[i] = static_cast<float>(scale * random.Normal(i));
  return values;
}

std::vector<float> RoundedToBf16(std::vector<float> values) {
  for (float& value : values) value = BF16::FromFloat(value).ToFloat();
  return values;
}

double RelativeDistance(const std::vector<float>& a, const std::vector<float>& b) {
  CHECK_EQ(a.size(), b.size());
  double difference = 0, size = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    difference += (static_cast<double>(a[i]) - b[i]) * (static_cast<double>(a[i]) - b[i]);
    size += static_cast<double>(b[i]) * b[i];
  }
  return std::sqrt(difference) / std::max(std::sqrt(size), 1e-30);
}

OwnedLayout MakeLayout(Bench& bench, std::vector<int32_t> sequence_starts,
                       std::vector<int32_t> attention_starts) {
  std::vector<int32_t> positions;
  for (size_t s = 0; s + 1 < sequence_starts.size(); ++s) {
    for (int32_t i = sequence_starts[s]; i < sequence_starts[s + 1]; ++i)
      positions.push_back(i - sequence_starts[s]);
  }
  OwnedLayout out;
  out.positions = bench.Ints(positions);
  out.layout.positions = out.positions;
  out.layout.attention_starts = attention_starts.empty() ? sequence_starts : std::move(attention_starts);
  out.layout.sequence_starts = std::move(sequence_starts);
  return out;
}

Parameter* AddParameter(ParameterSet& set, const std::string& name, Shape shape, Init init) {
  return set.Add({.name = name,
                  .shape = shape,
                  .pieces = {{name, shape, 0}},
                  .init = init,
                  .keep_f32 = shape.rank() == 1});
}

void Randomize(Bench& bench, ParameterSet& set, double matrix_scale) {
  for (const auto& parameter : set.all()) {
    const int64_t n = parameter->shape().elements();
    const bool matrix = parameter->spec().init == Init::kNormal;
    const double scale =
        matrix ? matrix_scale / std::sqrt(parameter->shape()[parameter->shape().rank() - 1]) : 0.3;
    std::vector<float> values = Normals(parameter->name(), n, scale);
    if (parameter->spec().init == Init::kOnes) {
      for (float& value : values) value += 1;
    }
    SetParameter(bench.backend(), bench.stream(), *parameter, 0, RoundedToBf16(std::move(values)));
  }
}

}  // namespace moebius
