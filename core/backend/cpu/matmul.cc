// Matrix products: how they are cut into tasks (by their shapes alone, never by the number of threads) and
// which kernel makes a task: oneDNN or ours (UsesOneDnn; one of ours is for few rows, two pack their
// operands), matrix-vector kernels for a handful of rows. A batch-invariant backend knows only ours, which
// round alike.
#include <algorithm>
#include <utility>
#include <vector>

#include "core/backend/cpu/amx.h"
#include "core/backend/cpu/amx_gemm.h"
#include "core/backend/cpu/cpu_backend.h"
#include "core/backend/cpu/few_rows.h"
#include "core/backend/cpu/gemm.h"
#include "core/backend/cpu/instruction_set.h"
#include "core/backend/cpu/matvec.h"
#include "core/backend/cpu/products.h"

namespace moebius {

// A kernel of ours that packs b (step 1), then makes the product of it (step 2).
struct PackedKernel {
  int64_t rows;  // of a task: its block of a fills a part of L2
  int64_t (*packed_bytes)(int64_t k, int64_t n);
  void (*pack)(const GemmOperand& b, int64_t k, int64_t n, void* packed);
  int64_t (*scratch_bytes)(const Product& product);
  void (*compute)(const Product& product, const void* packed_b, void* scratch);
};

namespace {

constexpr PackedKernel kVectorKernel = {96, GemmPackedBytes, GemmPack, GemmScratchBytes, GemmCompute};
constexpr PackedKernel kAmxKernel = {256, AmxPackedBytes, AmxPack, AmxScratchBytes, AmxCompute};

constexpr int64_t kPanelColumns = 256;      // no narrower: a is packed again for every column panel
constexpr int64_t kWidestPanel = 512;       // of a task of ours: sums on their way to bf16 fill a part of L2
constexpr int64_t kGroupRows = 512;         // rows of a task of a grouped product
constexpr int64_t kPackedBytes = 32 << 20;  // b packed for all threads at once
constexpr int64_t kTaskPackedBytes = 2 << 20;  // b packed by one task for itself

int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }
int64_t RoundUp(int64_t a, int64_t b) { return CeilDiv(a, b) * b; }

GemmOperand Operand(const TensorView& x, Transpose transpose = Transpose::kNo) {
  return {.data = x.data, .dtype = x.dtype, .stride = x.stride, .transposed = transpose == Transpose::kYes};
}
GemmResult Result(const TensorView& c, bool accumulate = false) {
  return {.data = c.data, .dtype = c.dtype, .stride = c.stride, .accumulate = accumulate};
}

GemmOperand Turned(GemmOperand x) {
  x.transposed = !x.transposed;
  return x;
}

MatVecArgs ToMatVec(const Product& p) {
  return {.m = p.m,
          .n = p.n,
          .k = p.k,
          .x = p.a.data,
          .x_dtype = p.a.dtype,
          .ldx = p.a.stride,
          .w = p.b.data,
          .w_dtype = p.b.dtype,
          .ldw = p.b.stride,
          .order = p.b.transposed ? WeightOrder::kOutIn : WeightOrder::kInOut,
          .y = p.c.data,
          .y_dtype = p.c.dtype,
          .ldy = p.c.stride,
          .bias = p.c.bias,
          .accumulate = p.c.accumulate,
          .even_odd = p.a.even_odd};
}

// Cuts p into a grid of at most `rows` x `columns` a task.
void AddGrid(const Product& p, int64_t rows, int64_t columns, std::vector<Product>& tasks) {
  for (int64_t i = 0; i < p.m; i += rows) {
    const Product panel = p.Rows(i, std::min(rows, p.m - i));
    for (int64_t j = 0; j < p.n; j += columns) tasks.push_back(panel.Columns(j, std::min(columns, p.n - j)));
  }
}

void LargestFirst(std::vector<Product>& tasks) {
  std::stable_sort(tasks.begin(), tasks.end(),
                   [](const Product& a, const Product& b) { return a.m * a.n * a.k > b.m * b.n * b.k; });
}

}  // namespace

bool CpuBackend::UsesMatVec(const Product& p) const {
  if (batch_invariant_ || p.a.transposed) return false;
  if (p.a.even_odd) return true;  // it was asked before its rows were widened
  // The kernel for few rows takes 16 or 32 at a time, as long for fewer, and has to widen bf16 weights first.
  const int64_t rows = p.b.dtype == DType::kBF16 && !UsesAmx(p) ? 24 : 15;
  return p.m <= kMatVecRows || (p.m <= rows && p.k >= 256 && IsFewRows(p) && !UsesOneDnn(p));
}

bool CpuBackend::UsesFewRows(const Product& p) const {
  return !UsesMatVec(p) && !UsesOneDnn(p) && !UsesAmx(p) && IsFewRows(p);
}

bool CpuBackend::UsesAmx(const Product& p) const {
  return engine_ == ProductEngine::kAmx && p.k > 0 && p.a.dtype == DType::kBF16 && p.b.dtype == DType::kBF16;
}

bool CpuBackend::UsesOneDnn(const Product& p) const {
  // Rounded operands are fp32 whatever the result is; oneDNN 2.6 has no such product.
  if (p.k == 0 || (p.a.dtype == DType::kF32 && p.c.dtype != DType::kF32)) return false;
  switch (engine_) {
    case ProductEngine::kOneDnn:
      return p.a.dtype == DType::kF32 || HasAvx512();
    case ProductEngine::kOurs:
      return false;
    case ProductEngine::kAmx:
      if (UsesAmx(p)) return false;
      break;
    case ProductEngine::kAuto:
      break;
  }
  return HasAvx512() && (p.a.dtype == DType::kF32 || HasAmx() || HasBF16Dots());
}

const PackedKernel& CpuBackend::KernelOf(const Product& p) const {
  return UsesAmx(p) ? kAmxKernel : kVectorKernel;
}

void CpuBackend::RunProduct(const Product& p, int thread) {
  if (UsesMatVec(p)) return MatVecColumns(ToMatVec(p), 0, p.n);
  if (UsesOneDnn(p)) return products_->Run(p, thread);
  if (UsesFewRows(p)) {
    const int64_t packed_bytes = RoundUp(GemmPackedBytes(p.k, p.m), 64);
    char* memory = static_cast<char*>(ThreadScratch(thread, packed_bytes + FewRowsScratchBytes(p)));
    float* packed = reinterpret_cast<float*>(memory);
    GemmPack(Turned(p.a), p.k, p.m, packed);
    return FewRowsCompute(p, packed, 0, p.n, memory + packed_bytes);
  }
  const PackedKernel& kernel = KernelOf(p);
  const int64_t columns = std::clamp<int64_t>(
      kTaskPackedBytes / std::max<int64_t>(kernel.packed_bytes(p.k, 64), 1) * 64, 64, kWidestPanel);
  const int64_t rows = std::min(kernel.rows, p.m), width = std::min(columns, p.n);
  const int64_t packed_bytes = RoundUp(kernel.packed_bytes(p.k, width), 64);
  const int64_t scratch_bytes = kernel.scratch_bytes(p.Rows(0, rows).Columns(0, width));
  char* packed = static_cast<char*>(ThreadScratch(thread, packed_bytes + scratch_bytes));
  for (int64_t j = 0; j < p.n; j += columns) {
    const Product part = p.Columns(j, std::min(columns, p.n - j));
    kernel.pack(part.b, part.k, part.n, packed);
    for (int64_t i = 0; i < p.m; i += rows) {
      kernel.compute(part.Rows(i, std::min(rows, p.m - i)), packed, packed + packed_bytes);
    }
  }
}

// Rows of bf16 that the tasks of a matrix-vector product share are widened once for all of them.
void CpuBackend::WidenRows(std::span<Product> products) {
  constexpr int64_t kRows = 16;
  struct Task {
    GemmOperand from;
    int64_t rows, k;
    float* to;
    bool even_odd;
  };
  std::vector<Task> tasks;
  const auto widens = [&](const Product& p) {
    const bool native = p.b.dtype == DType::kBF16 && ChooseBF16Dots() == BF16Dots::kNative;
    return p.a.dtype == DType::kBF16 && p.m > 2 && !native && UsesMatVec(p);
  };
  int64_t size = 0;
  for (const Product& p : products) size += widens(p) ? p.m * EvenOddSize(p.k) : 0;
  if (size == 0) return;
  float* to = static_cast<float*>(SharedScratch(size * SizeOf(DType::kF32)));
  for (Product& p : products) {
    if (!widens(p)) continue;
    const int64_t stride = EvenOddSize(p.k);
    const bool even_odd = p.b.transposed && p.b.dtype == DType::kBF16;
    for (int64_t r = 0; r < p.m; r += kRows) {
      tasks.push_back({p.a.Rows(r), std::min(kRows, p.m - r), p.k, to + r * stride, even_odd});
    }
    p.a = {.data = to, .dtype = DType::kF32, .stride = stride, .even_odd = even_odd};
    to += p.m * stride;
  }
  pool_.Run(std::ssize(tasks), [&](int64_t i, int) {
    const Task& t = tasks[i];
    for (int64_t r = 0; r < t.rows; ++r) {
      const BF16* from = static_cast<const BF16*>(t.from.Rows(r).data);
      (t.even_odd ? WidenEvenOdd : Widen)(from, t.k, t.to + r * EvenOddSize(t.k));
    }
  });
}

void CpuBackend::RunProducts(const std::vector<Product>& tasks) {
  pool_.Run(static_cast<int64_t>(tasks.size()), [&](int64_t i, int thread) { RunProduct(tasks[i], thread); });
}

// Several products of a call, in tasks of at most `rows`: few cuts, as the others keep the threads busy too.
void CpuBackend::RunParts(std::vector<Product> parts, int64_t rows) {
  WidenRows(parts);
  std::vector<Product> tasks;
  for (const Product& p : parts) {
    const bool cut = UsesMatVec(p) || UsesFewRows(p);
    AddGrid(p, rows, cut ? MatVecColumnsATask(ToMatVec(p)) : p.n, tasks);
  }
  LargestFirst(tasks);
  RunProducts(tasks);
}

// a is packed once for all tasks, in parallel.
void CpuBackend::RunFewRows(const Product& p) {
  float* packed = static_cast<float*>(SharedScratch(GemmPackedBytes(p.k, p.m)));
  const GemmOperand a = Turned(p.a);
  constexpr int64_t kRows = 32;  // whole panels of every target's kernel
  pool_.Run(CeilDiv(p.m, kRows), [&](int64_t i, int) {
    GemmPack(a.Columns(i * kRows), p.k, std::min(kRows, p.m - i * kRows), packed + i * kRows * p.k);
  });
  // A narrow product is cut finer, so that no thread waits long for the last task.
  const int64_t narrow = p.n / kWantedTasks / kFewRowsColumns * kFewRowsColumns;
  const int64_t columns = std::min(std::max(narrow, kFewRowsColumns), MatVecColumnsATask(ToMatVec(p)));
  pool_.Run(CeilDiv(p.n, columns), [&](int64_t i, int thread) {
    FewRowsCompute(p, packed, i * columns, std::min(p.n, (i + 1) * columns),
                   ThreadScratch(thread, FewRowsScratchBytes(p)));
  });
}

// b is packed once for all row panels, in parallel, then the panels run.
void CpuBackend::RunLargeProduct(const Product& whole) {
  const PackedKernel& kernel = KernelOf(whole);
  const int64_t row_panels = CeilDiv(whole.m, kernel.rows);
  // Column panels of 64: whole panels of every kernel, so that packed parts lie one after another.
  const int64_t piece = kernel.packed_bytes(whole.k, 64);
  const int64_t chunk = std::max<int64_t>(kPackedBytes / std::max<int64_t>(4 * piece, 1), 1) * 256;
  char* packed = static_cast<char*>(SharedScratch(kernel.packed_bytes(whole.k, std::min(chunk, whole.n))));
  for (int64_t begin = 0; begin < whole.n; begin += chunk) {
    const Product p = whole.Columns(begin, std::min(chunk, whole.n - begin));
    pool_.Run(CeilDiv(p.n, 64), [&](int64_t i, int) {
      const Product part = p.Columns(i * 64, std::min<int64_t>(64, p.n - i * 64));
      kernel.pack(part.b, p.k, part.n, packed + i * piece);
    });
    int64_t columns = std::min(RoundUp(p.n, 64), kWidestPanel);
    while (row_panels * CeilDiv(p.n, columns) < kWantedTasks && columns > kPanelColumns) {
      columns = RoundUp(columns / 2, 64);
    }
    const int64_t column_panels = CeilDiv(p.n, columns);
    pool_.Run(row_panels * column_panels, [&](int64_t task, int thread) {
      const int64_t i = task / column_panels * kernel.rows, j = task % column_panels * columns;
      const Product part = p.Rows(i, std::min(kernel.rows, p.m - i)).Columns(j, std::min(columns, p.n - j));
      kernel.compute(part, packed + j / 64 * piece, ThreadScratch(thread, kernel.scratch_bytes(part)));
    });
  }
}

void CpuBackend::MatMul(Stream& stream, const MatMulArgs& args) {
  if (args.rounding == Rounding::kFp8) return MatMulFp8(stream, args);
  Product p{.a = Operand(args.a, args.transpose_a),
            .b = Operand(args.b, args.transpose_b),
            .c = Result(args.c, args.accumulate),
            .m = args.c.rows(),
            .n = args.c.cols(),
            .k = args.transpose_a == Transpose::kYes ? args.a.rows() : args.a.cols()};
  if (args.bias) p.c.bias = args.bias.as<float>();
  if (p.m == 0 || p.n == 0) return;
  if (UsesMatVec(p)) {
    WidenRows({&p, 1});
    return MatVec(pool_, ToMatVec(p));
  }
  if (UsesFewRows(p)) return RunFewRows(p);
  std::vector<Product> tasks;
  if (UsesOneDnn(p)) {
    int64_t rows = kGroupRows, columns = std::min<int64_t>(p.n, 1024);
    const auto num_tasks = [&] { return CeilDiv(p.m, rows) * CeilDiv(p.n, columns); };
    while (num_tasks() < kWantedTasks && rows > 128) rows /= 2;
    while (num_tasks() < kWantedTasks && columns > kPanelColumns) columns = RoundUp(columns / 2, 64);
    AddGrid(p, rows, columns, tasks);
    RunProducts(tasks);
  } else if (p.m <= KernelOf(p).rows) {
    AddGrid(p, p.m, 64, tasks);  // every task packs its own columns of b
    RunProducts(tasks);
  } else {
    RunLargeProduct(p);
  }
}

void CpuBackend::GroupedMatMul(Stream& stream, const GroupedMatMulArgs& args) {
  if (args.rounding == Rounding::kFp8) return GroupedMatMulFp8(stream, args);
  const int64_t groups = args.w.shape[0], out = args.w.shape[1], in = args.w.shape[2];
  const int64_t* offsets = args.offsets.as<int64_t>();
  std::vector<Product> parts;
  for (int64_t g = 0; g < groups; ++g) {
    const int64_t rows = offsets[g + 1] - offsets[g];
    if (rows == 0) continue;
    const TensorView x = args.x.Rows(offsets[g], rows), y = args.y.Rows(offsets[g], rows),
                     w = args.w.Index(g);
    switch (args.kind) {
      case GroupedKind::kForward:
        parts.push_back({Operand(x), Operand(w, Transpose::kYes), Result(y), rows, out, in});
        break;
      case GroupedKind::kBackwardInput:
        parts.push_back({Operand(y), Operand(w), Result(x), rows, in, out});
        break;
      case GroupedKind::kBackwardWeight:
        parts.push_back({Operand(y, Transpose::kYes), Operand(x), Result(w, true), out, in, rows});
        break;
    }
  }
  RunParts(std::move(parts), args.kind == GroupedKind::kBackwardWeight ? kGroupRows / 2 : kGroupRows);
}

void CpuBackend::HeadMatMul(Stream&, const HeadMatMulArgs& args) {
  const int64_t tokens = args.a.shape[0], heads = args.w.shape[0], n = args.w.shape[1], k = args.w.shape[2];
  std::vector<Product> parts;
  for (int64_t h = 0; h < heads && tokens > 0; ++h) {
    const auto head = [&](const TensorView& x) {  // rows of one head: `heads` rows of the view apart
      TensorView out = x.Rows(0, 1).Reshape({heads, x.cols()}).Rows(h, 1);
      out.stride = x.stride * heads;
      return out;
    };
    parts.push_back({Operand(head(args.a)), Operand(args.w.Index(h), Transpose::kYes), Result(head(args.c)),
                     tokens, n, k});
  }
  RunParts(std::move(parts), kGroupRows);
}

}  // namespace moebius
