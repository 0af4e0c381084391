// SwiGLU whose results are rounded to FP8 where they are made: bf16 in, rounded to bf16 as the plain kernels
// round, then to FP8 as fp8_quantize.h does, so the bits are those of the two one after the other.
#include <algorithm>

#include "core/backend/cuda/fp8_squares.cuh"
#include "core/backend/cuda/swiglu.cuh"

namespace moebius::cuda {

namespace {

// Element i of eight bf16.
__device__ __forceinline__ float Element(const uint4& x, int i) {
  const uint32_t pair = i / 2 == 0 ? x.x : i / 2 == 1 ? x.y : i / 2 == 2 ? x.z : x.w;
  return i % 2 == 0 ? Low(pair) : High(pair);
}
__device__ __forceinline__ uint32_t PairOf(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const uint32_t*>(&pair);
}
__device__ __forceinline__ uint4 EightOf(const float (&x)[8]) {
  return make_uint4(PairOf(x[0], x[1]), PairOf(x[2], x[3]), PairOf(x[4], x[5]), PairOf(x[6], x[7]));
}

struct ForwardArgs {
  const Bf16* gate_up;
  const float* weights;  // or null
  int64_t gate_up_stride, rows;
  int width;
};

// A block owns 32 rows x 2 tiles of h, a warp 4 rows of them; eight lanes share a tile.
constexpr int kForwardThreads = 256, kRowsOfBlock = 32, kTilesOfBlock = 2;
__global__ void __launch_bounds__(kForwardThreads) ForwardKernel(const ForwardArgs args, const Fp8Target to) {
  const int lane = threadIdx.x % 32, part = lane % 8 * 8;
  const int64_t row = int64_t{blockIdx.x} * kRowsOfBlock + threadIdx.x / 32 * 4 + lane / 8;
  const bool there = row < args.rows;
  const Bf16* gate_up = args.gate_up + row * args.gate_up_stride;
  uint4 gate[kTilesOfBlock][2], up[kTilesOfBlock][2];
#pragma unroll
  for (int i = 0; i < kTilesOfBlock; ++i) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int column = (static_cast<int>(blockIdx.y) * kTilesOfBlock + i) * kSquare + h * 64 + part;
      gate[i][h] = LoadEight(gate_up + column, there && column < args.width);
      up[i][h] = LoadEight(gate_up + args.width + column, there && column < args.width);
    }
  }
  const float weight = there && args.weights != nullptr ? args.weights[row] : 1.0f;
#pragma unroll
  for (int i = 0; i < kTilesOfBlock; ++i) {
    const int tile = static_cast<int>(blockIdx.y) * kTilesOfBlock + i;
    if (tile * kSquare >= args.width) break;
    uint4 x[2];
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      float eight[8];
#pragma unroll
      for (int e = 0; e < 8; ++e) eight[e] = SwiGluOf(Element(gate[i][h], e), Element(up[i][h], e), weight);
      x[h] = EightOf(eight);
    }
    const Scale scale = ScaleOfEightLanes(x);
    if (!there) continue;
    uint8_t* values = to.values + row * to.terms + tile * kSquare + part;
#pragma unroll
    for (int h = 0; h < 2; ++h) *reinterpret_cast<uint2*>(values + h * 64) = RoundEight(x[h], scale);
    if (lane % 8 == 0) to.scales[tile * to.scale_stride + row] = scale.scale;
  }
}

struct BackwardArgs {
  const Bf16 *gate_up, *dh;
  const float* weights;  // or null
  float* d_weights;      // or null
  const int64_t* offsets;
  int64_t gate_up_stride, dh_stride, rows, groups;
  int width;
  int chunks;  // of 128 columns of h, that a block takes
};

// A block owns 128 rows of a group and `chunks` squares of them; with d_weights all of the rows. A square of
// each operand comes into shared memory while the one before it is rounded: every thread copies, and reads,
// its own 4 rows of 8 columns.
constexpr int kRows = 4, kThreads = kThreadsOf<kRows>;
struct BackwardMemory {
  uint4 operands[3][kRows][kThreads];
  SquareMemory<kRows> square;
};

// 16 bytes; zeros, and nothing is read, where they are not there.
__device__ __forceinline__ void CopyAhead(uint4* to, const Bf16* from, bool there) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(
                   static_cast<uint32_t>(__cvta_generic_to_shared(to))),
               "l"(from), "r"(there ? 16 : 0)
               : "memory");
}

__global__ void __launch_bounds__(kThreads, 1) BackwardKernel(const BackwardArgs args, const Fp8Target d_rows,
                                                              const Fp8Target d_columns, const Fp8Target h) {
  extern __shared__ __align__(16) uint8_t shared[];
  BackwardMemory& memory = *reinterpret_cast<BackwardMemory*>(shared);
  const InSquare in;
  Stripe stripe{.stripe = blockIdx.x, .row = int64_t{blockIdx.x} * kSquare, .row_end = args.rows};
  if (args.offsets != nullptr && !FindStripe(args.offsets, args.groups, &stripe)) return;
  const int64_t row = stripe.row + in.strip * kRows;
  const int first = static_cast<int>(blockIdx.y) * args.chunks;
  const int end = min(first + args.chunks, args.width / kSquare);
  const auto copy_ahead = [&](int chunk) {
    const int column = chunk * kSquare + in.eight * 8;
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      const bool there = row + i < stripe.row_end;
      const Bf16* from = there ? args.gate_up + (row + i) * args.gate_up_stride + column : args.gate_up;
      const Bf16* dh = there ? args.dh + (row + i) * args.dh_stride + column : args.dh;
      CopyAhead(&memory.operands[0][i][threadIdx.x], from, there);
      CopyAhead(&memory.operands[1][i][threadIdx.x], from + args.width, there);
      CopyAhead(&memory.operands[2][i][threadIdx.x], dh, there);
    }
    asm volatile("cp.async.commit_group;" ::: "memory");
  };
  copy_ahead(first);
  float weights[kRows], d_weights[kRows];
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
    weights[i] = args.weights != nullptr && row + i < stripe.row_end ? args.weights[row + i] : 1.0f;
    d_weights[i] = 0;
  }
  for (int chunk = first; chunk < end; ++chunk) {
    asm volatile("cp.async.wait_group 0;" ::: "memory");
    uint4 dgate[kRows], dup[kRows], own_h[kRows];
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      const uint4 gates = memory.operands[0][i][threadIdx.x], ups = memory.operands[1][i][threadIdx.x];
      const uint4 dhs = memory.operands[2][i][threadIdx.x];
      float of_h[8], of_gate[8], of_up[8];
#pragma unroll
      for (int e = 0; e < 8; ++e) {
        const SwiGluGradients d =
            SwiGluGradientsOf(Element(gates, e), Element(ups, e), Element(dhs, e), weights[i], &d_weights[i]);
        of_h[e] = d.h, of_gate[e] = d.dgate, of_up[e] = d.dup;
      }
      own_h[i] = EightOf(of_h), dgate[i] = EightOf(of_gate), dup[i] = EightOf(of_up);
    }
    if (chunk + 1 < end) copy_ahead(chunk + 1);
    const int64_t at = int64_t{chunk} * kSquare, width = args.width;
    RoundRows(dgate, stripe, chunk, d_rows);
    RoundRows(dup, stripe, width / kSquare + chunk, d_rows);
    RoundColumns(dgate, stripe, at, 2 * width, memory.square, d_columns);
    RoundColumns(dup, stripe, width + at, 2 * width, memory.square, d_columns);
    RoundColumns(own_h, stripe, at, width, memory.square, h);
  }
  if (args.d_weights == nullptr) return;
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
#pragma unroll
    for (int step = 1; step < 16; step *= 2) {
      d_weights[i] += __shfl_xor_sync(kWholeWarp, d_weights[i], step);
    }
    if (in.eight == 0 && row + i < stripe.row_end) args.d_weights[row + i] = d_weights[i];
  }
}

// A matrix [rows, cols] rounded into `memory`, as Round lays it out.
Fp8Target TargetOf(const TensorView& memory, int64_t rows, int64_t cols, Fp8Tiles tiles, int64_t groups,
                   const int64_t* offsets) {
  Fp8Matrix m = MatrixOf({.rows = rows, .cols = cols, .tiles = tiles, .groups = groups, .offsets = offsets});
  m.Place(memory.data);
  return Fp8Target(m);
}

}  // namespace

void SwiGluToFp8(cudaStream_t stream, const SwiGluArgs& args) {
  const int64_t rows = args.h.rows(), width = args.h.cols();
  const ForwardArgs a{.gate_up = Data<Bf16>(args.gate_up),
                      .weights = Data<float>(args.row_weights),
                      .gate_up_stride = args.gate_up.stride,
                      .rows = rows,
                      .width = static_cast<int>(width)};
  const dim3 grid(static_cast<unsigned>(CeilDiv(rows, kRowsOfBlock)),
                  static_cast<unsigned>(CeilDiv(width, kTilesOfBlock * kSquare)));
  ForwardKernel<<<grid, kForwardThreads, 0, stream>>>(
      a, TargetOf(args.rounded_h.rows, rows, width, Fp8Tiles::kAlongRow, 1, nullptr));
  Launched("SwiGlu to FP8");
}

void SwiGluBackwardToFp8(cudaStream_t stream, const SwiGluBackwardArgs& args) {
  const int64_t rows = args.dh.rows(), width = args.dh.cols();
  const int64_t* offsets = Data<int64_t>(args.offsets);
  const int64_t groups = offsets == nullptr ? 1 : args.offsets.elements() - 1;
  const int64_t chunks = width / kSquare, each = args.d_row_weights ? chunks : std::min<int64_t>(chunks, 6);
  const BackwardArgs a{.gate_up = Data<Bf16>(args.gate_up),
                       .dh = Data<Bf16>(args.dh),
                       .weights = Data<float>(args.row_weights),
                       .d_weights = Data<float>(args.d_row_weights),
                       .offsets = offsets,
                       .gate_up_stride = args.gate_up.stride,
                       .dh_stride = args.dh.stride,
                       .rows = rows,
                       .groups = groups,
                       .width = static_cast<int>(width),
                       .chunks = static_cast<int>(each)};
  const RoundedCopies& d = args.rounded_d_gate_up;
  const auto columns = [&](const TensorView& memory, int64_t cols) {
    return TargetOf(memory, rows, cols, Fp8Tiles::kAlongColumn, groups, offsets);
  };
  const int64_t stripes = offsets == nullptr ? TilesOf(rows) : rows / kSquare + groups;
  const dim3 grid(static_cast<unsigned>(stripes), static_cast<unsigned>(CeilDiv(chunks, each)));
  AllowShared(BackwardKernel, sizeof(BackwardMemory));
  BackwardKernel<<<grid, kThreads, sizeof(BackwardMemory), stream>>>(
      a, TargetOf(d.rows, rows, 2 * width, Fp8Tiles::kAlongRow, 1, nullptr), columns(d.columns, 2 * width),
      columns(args.rounded_h.columns, width));
  Launched("SwiGluBackward to FP8");
}

}  // namespace moebius::cuda
