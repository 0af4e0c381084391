// Products in 8 bits: how they are cut into tasks, by their shapes alone.
#include <algorithm>
#include <vector>

#include "core/backend/cpu/cpu_backend.h"
#include "core/backend/cpu/int8.h"
#include "core/backend/cpu/matvec.h"
#include "core/backend/cpu/pieces.h"

namespace moebius {
namespace {

constexpr int64_t kTaskRows = 256;                   // of x, that stay in L2 while all panels pass them
constexpr int64_t kTaskBytes = int64_t{128} << 10;   // of weights: some microseconds of memory time
constexpr int64_t kTaskProducts = int64_t{4} << 20;  // or of arithmetic
constexpr int64_t kTaskPanels = 12;                  // whole tiles of every target's kernel

int64_t GroupBytes(int64_t out, int64_t in) { return Int8Panels(out) * Int8PanelBytes(in); }

int64_t PanelsATask(int64_t panels, int64_t in, int64_t rows) {
  const int64_t fitting = std::min(kTaskBytes / Int8PanelBytes(in), kTaskProducts / (rows * in * kInt8Panel));
  const int64_t wanted = std::min(fitting, panels / kWantedTasks) / kTaskPanels * kTaskPanels;
  return std::max(wanted, kTaskPanels);
}

}  // namespace

int64_t CpuBackend::Int8Bytes(const Shape& shape) const {
  return HasInt8Products() ? shape[0] * GroupBytes(shape[1], shape[2]) : 0;
}

void CpuBackend::PackInt8(Stream&, const PackInt8Args& args) {
  const int64_t groups = args.w.shape[0], panels = Int8Panels(args.w.shape[1]);
  const int64_t panel_bytes = Int8PanelBytes(args.w.shape[2]);
  uint8_t* to = args.to.packed.as<uint8_t>();
  pool_.Run(groups * panels, [&](int64_t i, int) {
    PackInt8Panel(args.w.Index(i / panels), i % panels, to + i * panel_bytes);
  });
}

void CpuBackend::Int8MatMul(Stream&, const Int8MatMulArgs& args) {
  const int64_t groups = args.w.shape[0], out = args.w.shape[1], in = args.w.shape[2];
  const int64_t rows = args.x.rows();
  if (rows == 0 || out == 0) return;
  const Int8Dots dots = ChooseInt8Dots();
  const Int8Rows x = Int8Rows::At(SharedScratch(Int8Rows::Bytes(rows, in, dots)), rows, in, dots);
  ForRowRanges(pool_, rows, in,
               [&](int64_t begin, int64_t end, int) { RoundInt8Rows(args.x, begin, end, dots, x); });
  const int64_t whole[] = {0, rows};
  const int64_t* offsets = args.offsets ? args.offsets.as<int64_t>() : whole;
  const uint8_t* packed = args.w.packed.as<uint8_t>();
  std::vector<Int8Product> tasks;
  const int64_t panels = Int8Panels(out);
  for (int64_t g = 0; g < groups; ++g) {
    for (int64_t row = offsets[g]; row < offsets[g + 1]; row += kTaskRows) {
      const int64_t count = std::min(kTaskRows, offsets[g + 1] - row);
      const int64_t step = PanelsATask(panels, in, count);
      for (int64_t panel = 0; panel < panels; panel += step) {
        tasks.push_back({.x = &x,
                         .w = packed + g * GroupBytes(out, in),
                         .y = args.y,
                         .bias = args.bias ? args.bias.as<float>() : nullptr,
                         .in = in,
                         .row = row,
                         .rows = count,
                         .begin = panel,
                         .end = std::min(panels, panel + step)});
      }
    }
  }
  pool_.Run(std::ssize(tasks), [&](int64_t i, int) { Int8Compute(tasks[i], dots); });
}

}  // namespace moebius
