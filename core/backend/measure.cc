#include "core/backend/measure.h"

#include <algorithm>
#include <chrono>
#include <functional>
#include <limits>
#include <vector>

#include "core/backend/ops.h"
#include "core/base/random.h"

namespace moebius {
namespace {

using Clock = std::chrono::steady_clock;

// Shortest of as many runs as fit into `budget` seconds, three at least.
double BestSeconds(Stream& stream, double budget, const std::function<void()>& run) {
  double best = std::numeric_limits<double>::infinity(), spent = 0;
  for (int i = 0; i < 3 || spent < budget; ++i) {
    const auto start = Clock::now();
    run();
    stream.Synchronize();
    const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
    best = std::min(best, seconds);
    spent += seconds;
  }
  return best;
}

}  // namespace

int64_t ProductPeakSize(const Backend& backend) {
  return backend.piece_bytes() < (int64_t{128} << 20) ? 1024 : 8192;
}

double MeasureProductPeak(Backend& backend, DType dtype, double seconds) {
  const int64_t size = ProductPeakSize(backend);
  const std::unique_ptr<Stream> stream = backend.NewStream(StreamKind::kCompute);
  Arena scratch(backend);
  const Context context{backend, *stream, scratch};
  const TensorView a = scratch.New(dtype, {size, size}), b = scratch.New(dtype, {size, size}),
                   c = scratch.New(dtype, {size, size});
  // Random numbers: a GPU runs faster on zeros and constants, since fewer bits change.
  const RandomStream random(1, "product peak");
  std::vector<float> values(1 << 20);
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(random.Normal(i));
  const TensorView block = scratch.New(DType::kF32, {static_cast<int64_t>(values.size())});
  backend.CopyToDevice(*stream, values.data(), block);
  for (const TensorView& x : {a, b}) {
    const TensorView flat = x.Reshape({x.elements()});
    for (int64_t i = 0; i < flat.elements(); i += block.elements()) {
      Cast(context, block, flat.Rows(i, block.elements()));
    }
  }
  const double best = BestSeconds(
      *stream, seconds, [&] { MatMul(context, {.a = a, .b = b, .c = c, .transpose_b = Transpose::kYes}); });
  return 2.0 * size * size * size / best;
}

double MeasureReadBandwidth(Backend& backend) {
  const int64_t bytes = std::max(int64_t{256} << 20, 4 * backend.piece_bytes());
  const std::unique_ptr<Stream> stream = backend.NewStream(StreamKind::kCompute);
  Arena scratch(backend);
  const Context context{backend, *stream, scratch};
  const TensorView x = scratch.New(DType::kF32, {bytes / 4}), sum = scratch.New(DType::kF64, {1});
  Fill(context, x, 0.5f);
  return static_cast<double>(bytes) / BestSeconds(*stream, 0.2, [&] { SumSquares(context, x, sum); });
}

double MeasureCopyBandwidth(Backend& backend) {
  const int64_t bytes = std::max(int64_t{256} << 20, 4 * backend.piece_bytes());
  const std::unique_ptr<Stream> stream = backend.NewStream(StreamKind::kCompute);
  Arena scratch(backend);
  const Context context{backend, *stream, scratch};
  const TensorView x = scratch.New(DType::kF32, {bytes / 4}), y = scratch.New(DType::kF32, {bytes / 4});
  Fill(context, x, 0.5f);
  return 2.0 * static_cast<double>(bytes) / BestSeconds(*stream, 0.2, [&] { Cast(context, x, y); });
}

}  // namespace moebius
