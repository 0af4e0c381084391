#include "core/backend/measure.h"

#include <algorithm>
#include <chrono>
#include <functional>
#include <limits>

#include "core/backend/ops.h"

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

double MeasureProductPeak(Backend& backend, DType dtype, double seconds) {
  constexpr int64_t kSize = 1024;
  const std::unique_ptr<Stream> stream = backend.NewStream(StreamKind::kCompute);
  Arena scratch(backend);
  const Context context{backend, *stream, scratch};
  const TensorView a = scratch.New(dtype, {kSize, kSize}), b = scratch.New(dtype, {kSize, kSize}),
                   c = scratch.New(dtype, {kSize, kSize});
  // Real numbers, not zeros: some processors clock differently on them.
  Fill(context, a, 0.7f);
  Fill(context, b, -1.3f);
  const double best = BestSeconds(
      *stream, seconds, [&] { MatMul(context, {.a = a, .b = b, .c = c, .transpose_b = Transpose::kYes}); });
  return 2.0 * kSize * kSize * kSize / best;
}

double MeasureReadBandwidth(Backend& backend, int64_t bytes) {
  const std::unique_ptr<Stream> stream = backend.NewStream(StreamKind::kCompute);
  Arena scratch(backend);
  const Context context{backend, *stream, scratch};
  const TensorView x = scratch.New(DType::kF32, {bytes / 4}), sum = scratch.New(DType::kF64, {1});
  Fill(context, x, 0.5f);
  return static_cast<double>(bytes) / BestSeconds(*stream, 0.2, [&] { SumSquares(context, x, sum); });
}

}  // namespace moebius
