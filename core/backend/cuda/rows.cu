// Rows on their way to experts and back: sorted by expert, gathered, scattered, summed. The sort is by
// counting; its only atomics are integer counts, so its result does not depend on their order. The rest is
// bound by memory: a warp owns a piece of one row, and each lane has several 16-byte loads in flight.
#include "core/backend/cuda/pieces.cuh"

namespace moebius {
namespace cuda {
namespace {

constexpr int kWarps = 8;
constexpr int kThreads = kWarps * kWarp;
constexpr int kMaxExperts = 1024;
static_assert(kMaxExperts == 4 * kThreads, "PlaceKernel scans four experts a thread");

// Choices of a piece: each of a block's warps owns kChoicesAWarp adjacent ones.
constexpr int kChoicesAWarp = 256;
constexpr int kPiece = kWarps * kChoicesAWarp;

// Choice i = t * K + k lies at row t, column k, of [T, K].
struct Choices {
  int32_t* data;
  int64_t stride;
  int k;
  __device__ int32_t& operator[](int64_t i) const {
    const unsigned at = static_cast<unsigned>(i);  // T * K is counted in i32
    return data[static_cast<int64_t>(at / k) * stride + at % k];
  }
};

// The experts of choices, counted from the first that is sorted; -1: another's.
struct Experts {
  Choices choices;
  int32_t first;
  int32_t count;
  bool others;
  __device__ int32_t operator[](int64_t i) const {
    const int32_t expert = choices[i] - first;
    if (expert >= 0 && expert < count) return expert;
    if (!others) __trap();  // an expert that does not exist
    return -1;
  }
};

// counts[e, piece] = choices of e in the piece. A block owns a piece.
__global__ void __launch_bounds__(kThreads) CountKernel(Experts experts, int64_t choices, int32_t* counts) {
  const int num_experts = experts.count;
  __shared__ int32_t found[kMaxExperts];
  for (int e = threadIdx.x; e < num_experts; e += kThreads) found[e] = 0;
  __syncthreads();
  const int64_t begin = static_cast<int64_t>(blockIdx.x) * kPiece;
  for (int j = threadIdx.x; j < kPiece; j += kThreads) {
    if (begin + j >= choices) break;
    if (const int32_t expert = experts[begin + j]; expert >= 0) atomicAdd(&found[expert], 1);
  }
  __syncthreads();
  for (int e = threadIdx.x; e < num_experts; e += kThreads) {
    counts[static_cast<int64_t>(e) * gridDim.x + blockIdx.x] = found[e];
  }
}

// The inclusive sum over the lanes up to this one.
__device__ __forceinline__ int32_t WarpScan(int32_t x, int lane) {
#pragma unroll
  for (int step = 1; step < kWarp; step *= 2) {
    const int32_t before = __shfl_up_sync(kAllLanes, x, step);
    if (lane >= step) x += before;
  }
  return x;
}

// counts[e, piece] becomes the choices of e in earlier pieces; totals[e] = those in all. A warp owns an
// expert.
__global__ void __launch_bounds__(kThreads)
    ScanKernel(int32_t* counts, int num_experts, int pieces, int32_t* totals) {
  const int lane = threadIdx.x % kWarp;
  const int e = blockIdx.x * kWarps + threadIdx.x / kWarp;
  if (e >= num_experts) return;
  int32_t* row = counts + static_cast<int64_t>(e) * pieces;
  int32_t before = 0;
  for (int base = 0; base < pieces; base += kWarp) {
    const int p = base + lane;
    const int32_t count = p < pieces ? row[p] : 0;
    const int32_t scanned = WarpScan(count, lane);
    if (p < pieces) row[p] = before + scanned - count;
    before += __shfl_sync(kAllLanes, scanned, kWarp - 1);
  }
  if (lane == 0) totals[e] = before;
}

// first[e] = sum of the totals of lower experts. By all threads of the block, four experts each.
__device__ void ScanTotals(const int32_t* totals, int num_experts, int32_t* warp_sums, int32_t* first) {
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  int32_t own[4], sum = 0;
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    const int e = 4 * threadIdx.x + j;
    own[j] = e < num_experts ? totals[e] : 0;
    sum += own[j];
  }
  const int32_t scanned = WarpScan(sum, lane);
  if (lane == kWarp - 1) warp_sums[warp] = scanned;
  __syncthreads();
  int32_t before = scanned - sum;
  for (int w = 0; w < warp; ++w) before += warp_sums[w];
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    const int e = 4 * threadIdx.x + j;
    if (e < num_experts) first[e] = before;
    before += own[j];
  }
  __syncthreads();
}

struct PlaceKernelArgs {
  Experts experts;
  int64_t choices;
  int64_t room;           // of choice_of
  const int32_t* counts;  // [E, pieces]: choices of e in earlier pieces
  const int32_t* totals;  // [E]
  int64_t* offsets;       // = [E + 1], by the first block
  Choices row_of;
  int32_t* choice_of;
};

// Where each choice goes: the expert's first row, plus its choices in earlier pieces, earlier warps, earlier
// rounds and lower lanes. A block owns a piece. Dynamic shared memory: [1 + kWarps, E] i32.
__global__ void __launch_bounds__(kThreads) PlaceKernel(PlaceKernelArgs args) {
  extern __shared__ int32_t shared[];
  __shared__ int32_t warp_sums[kWarps];
  const int n = args.experts.count, warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  int32_t* first = shared;     // [E]
  int32_t* next = shared + n;  // [kWarps, E]: first how many, then the next row
  ScanTotals(args.totals, n, warp_sums, first);
  if (blockIdx.x == 0) {
    for (int e = threadIdx.x; e < n; e += kThreads) args.offsets[e] = first[e];
    if (threadIdx.x == 0) args.offsets[n] = n > 0 ? first[n - 1] + args.totals[n - 1] : 0;
  }
  for (int j = threadIdx.x; j < kWarps * n; j += kThreads) next[j] = 0;
  __syncthreads();

  const int64_t begin = static_cast<int64_t>(blockIdx.x) * kPiece + warp * kChoicesAWarp;
  int32_t* own = next + warp * n;
  for (int j = lane; j < kChoicesAWarp; j += kWarp) {
    if (begin + j >= args.choices) break;
    if (const int32_t expert = args.experts[begin + j]; expert >= 0) atomicAdd(&own[expert], 1);
  }
  __syncthreads();
  for (int e = threadIdx.x; e < n; e += kThreads) {
    int32_t row = first[e] + args.counts[static_cast<int64_t>(e) * gridDim.x + blockIdx.x];
    for (int w = 0; w < kWarps; ++w) {
      const int32_t count = next[w * n + e];
      next[w * n + e] = row;
      row += count;
    }
  }
  __syncthreads();
  for (int j = lane; j < kChoicesAWarp; j += kWarp) {
    const int64_t i = begin + j;
    const int32_t expert = i < args.choices ? args.experts[i] : -1;
    const unsigned same = __match_any_sync(kAllLanes, expert);
    const int rank = __popc(same & ((1u << lane) - 1));
    const int32_t row = expert >= 0 ? own[expert] + rank : kNoRow;
    __syncwarp();
    if (expert >= 0 && rank == 0) own[expert] += __popc(same);
    __syncwarp();
    if (i < args.choices) args.row_of[i] = row;
    if (row >= args.room) __trap();
    if (row >= 0) args.choice_of[row] = static_cast<int32_t>(i);
  }
}

// What one lane moves of one row.
constexpr int kUnitsALane = 8;

struct CopyKernelArgs {
  const char* from;
  int64_t from_stride;  // bytes
  char* to;
  int64_t to_stride;  // bytes
  const int32_t* index;
  int32_t divisor;
  int units;        // of sizeof(Unit), a row
  int pieces;       // a row
  int piece_units;  // a multiple of kWarp, at most kUnitsALane * kWarp
  int64_t n;
  int rows_a_warp;  // at most kWarp
  int64_t others;   // rows that an index may name
};

// Row i of `to` = row index[i] / divisor of `from`, or (kScatter) row index[i] of `to` = row i of `from`. A
// warp owns a piece of `rows_a_warp` adjacent rows i: it reads all their indices at once, then has a row's
// loads in flight together.
template <typename Unit, bool kScatter>
__global__ void __launch_bounds__(kThreads) CopyKernel(CopyKernelArgs args) {
  const unsigned item = blockIdx.x * kWarps + threadIdx.x / kWarp,
                 pieces = static_cast<unsigned>(args.pieces);
  const int64_t begin = int64_t{item / pieces} * args.rows_a_warp;
  const int rows = static_cast<int>(min(int64_t{args.rows_a_warp}, args.n - begin));
  if (rows <= 0) return;
  const int lane = threadIdx.x % kWarp, piece = static_cast<int>(item % pieces);
  int32_t others = lane < rows ? args.index[begin + lane] : 0;
  if (!kScatter) others /= args.divisor;
  if (others < 0 || others >= args.others) __trap();  // rather than a row from anywhere
  const int first = piece * args.piece_units + lane;
  const int end = min(args.units, (piece + 1) * args.piece_units);
  for (int r = 0; r < rows; ++r) {
    const int64_t i = begin + r, other = __shfl_sync(kAllLanes, others, r);
    const auto* from = reinterpret_cast<const Unit*>(args.from + (kScatter ? i : other) * args.from_stride);
    auto* to = reinterpret_cast<Unit*>(args.to + (kScatter ? other : i) * args.to_stride);
    Unit x[kUnitsALane];
#pragma unroll
    for (int j = 0; j < kUnitsALane; ++j) {
      if (first + j * kWarp < end) x[j] = from[first + j * kWarp];
    }
#pragma unroll
    for (int j = 0; j < kUnitsALane; ++j) {
      if (first + j * kWarp < end) to[first + j * kWarp] = x[j];
    }
  }
}

unsigned Blocks(int64_t items) {
  CHECK_LT(items, int64_t{1} << 31) << "warps of one launch";
  return static_cast<unsigned>(CeilDiv(items, kWarps));
}

// Adjacent rows for a warp of a kernel that has `warps` of work row by row: several only where there are
// enough for every processor.
constexpr int kRowsAWarp = 4;
int RowsAWarp(int64_t warps) { return warps >= int64_t{1} << 15 ? kRowsAWarp : 1; }

// Every address, stride and length is a multiple of `bytes`.
bool Aligned(const CopyKernelArgs& args, int64_t row_bytes, int64_t bytes) {
  const uint64_t all = reinterpret_cast<uintptr_t>(args.from) | reinterpret_cast<uintptr_t>(args.to) |
                       static_cast<uint64_t>(args.from_stride | args.to_stride | row_bytes);
  return all % static_cast<uint64_t>(bytes) == 0;
}

template <typename Unit, bool kScatter>
void LaunchCopy(CopyKernelArgs args, int64_t row_bytes, cudaStream_t stream) {
  args.units = static_cast<int>(row_bytes / static_cast<int64_t>(sizeof(Unit)));
  args.pieces = static_cast<int>(CeilDiv(args.units, kUnitsALane * kWarp));
  args.piece_units = static_cast<int>(CeilDiv(CeilDiv(args.units, args.pieces), kWarp) * kWarp);
  args.rows_a_warp = RowsAWarp(args.n * args.pieces);
  CopyKernel<Unit, kScatter>
      <<<Blocks(CeilDiv(args.n, args.rows_a_warp) * args.pieces), kThreads, 0, stream>>>(args);
}

// Rows are moved as bytes: their dtype does not matter.
template <bool kScatter>
void CopyRows(const TensorView& from, const TensorView& to, const TensorView& index, int32_t divisor,
              cudaStream_t stream) {
  const int64_t size = SizeOf(from.dtype), row_bytes = from.cols() * size;
  if (index.elements() == 0 || row_bytes == 0) return;
  const CopyKernelArgs args{.from = Data<const char>(from),
                            .from_stride = from.stride * size,
                            .to = Data<char>(to),
                            .to_stride = to.stride * size,
                            .index = Data<const int32_t>(index),
                            .divisor = divisor,
                            .units = 0,
                            .pieces = 0,
                            .piece_units = 0,
                            .n = index.elements(),
                            .rows_a_warp = 1,
                            .others = (kScatter ? to : from).rows()};
  if (Aligned(args, row_bytes, 16)) {
    LaunchCopy<uint4, kScatter>(args, row_bytes, stream);
  } else if (Aligned(args, row_bytes, 4)) {
    LaunchCopy<uint32_t, kScatter>(args, row_bytes, stream);
  } else {
    LaunchCopy<uint16_t, kScatter>(args, row_bytes, stream);
  }
}

template <typename T>
struct CombineKernelArgs {
  const T* rows;
  int64_t rows_stride;
  const int32_t* row_of;
  int64_t row_of_stride;
  int k;
  const T* add;  // null without; may be out
  int64_t add_stride;
  T* out;
  int64_t out_stride;
  int64_t tokens;
  int hidden;
  int pieces;  // a row: a warp's worth of units
  int tokens_a_warp;
};

constexpr int kRowsAtOnce = 8;  // whose loads are in flight together
static_assert(kRowsAtOnce * kRowsAWarp == kWarp, "a warp reads the indices of its tokens at once");

// out[t] = add[t] (or 0) + rows[row_of[t, 0]] + rows[row_of[t, 1]] + ..., added in this order in fp32; kNoRow
// adds nothing. A warp owns a piece of `tokens_a_warp` adjacent tokens, a lane kUnit elements of each. Lane 8
// j
// + r holds the index of token j's choice r; what a token has beyond eight is read eight at a time.
template <typename T, int kUnit>
__global__ void __launch_bounds__(kThreads, 3) CombineKernel(CombineKernelArgs<T> args) {
  const unsigned item = blockIdx.x * kWarps + threadIdx.x / kWarp,
                 pieces = static_cast<unsigned>(args.pieces);
  const int64_t begin = int64_t{item / pieces} * args.tokens_a_warp;
  const int tokens = static_cast<int>(min(int64_t{args.tokens_a_warp}, args.tokens - begin));
  if (tokens <= 0) return;
  const int lane = threadIdx.x % kWarp, slot = lane / kRowsAtOnce, choice = lane % kRowsAtOnce;
  const int column = static_cast<int>(item % pieces) * (kWarp * kUnit) + lane * kUnit;
  const int left = args.hidden - column;  // a whole unit or none
  const int32_t* row_of = args.row_of + begin * args.row_of_stride;
  const int32_t mine = slot < tokens && choice < args.k ? row_of[slot * args.row_of_stride + choice] : 0;
  for (int j = 0; j < tokens; ++j) {
    const int64_t t = begin + j;
    Piece<T, kUnit> add{};
    if (args.add != nullptr) add = LoadPiece<true, kUnit>(args.add + t * args.add_stride + column, left);
    float sum[kUnit];
    int k = 0;
    do {
      int32_t chosen = mine;
      if (k > 0) chosen = k + choice < args.k ? row_of[j * args.row_of_stride + k + choice] : 0;
      Piece<T, kUnit> x[kRowsAtOnce];
#pragma unroll
      for (int r = 0; r < kRowsAtOnce; ++r) {
        const int64_t row = __shfl_sync(kAllLanes, chosen, k > 0 ? r : j * kRowsAtOnce + r);
        const bool adds = k + r < args.k && row >= 0;
        x[r] = LoadPiece<true, kUnit>(args.rows + row * args.rows_stride + column, adds ? left : 0);
      }
      if (k == 0) {
#pragma unroll
        for (int i = 0; i < kUnit; ++i) sum[i] = add[i];
      }
#pragma unroll
      for (int r = 0; r < kRowsAtOnce; ++r) {
        if (k + r >= args.k) break;
#pragma unroll
        for (int i = 0; i < kUnit; ++i) sum[i] += x[r][i];
      }
      k += kRowsAtOnce;
    } while (k < args.k);
    StorePiece<true>(sum, args.out + t * args.out_stride + column, left);
  }
}

template <typename T, int kUnit>
void LaunchCombine(CombineKernelArgs<T> args, cudaStream_t stream) {
  args.pieces = static_cast<int>(CeilDiv(args.hidden, kUnit * kWarp));
  args.tokens_a_warp = RowsAWarp(args.tokens * args.pieces);
  CombineKernel<T, kUnit>
      <<<Blocks(CeilDiv(args.tokens, args.tokens_a_warp) * args.pieces), kThreads, 0, stream>>>(args);
}

Choices ChoicesOf(const TensorView& view) {
  return {Data<int32_t>(view), view.stride, static_cast<int>(view.cols())};
}

}  // namespace
}  // namespace cuda

// Without choices one block still writes the offsets.
void CudaBackend::RouteSort(Stream& stream, const RouteSortArgs& args) {
  const int64_t choices = args.experts.elements();
  const int64_t experts = args.offsets.elements() - 1;
  CHECK_LE(experts, cuda::kMaxExperts) << "experts that RouteSort's kernels hold";
  const int64_t pieces = std::max<int64_t>(1, cuda::CeilDiv(choices, cuda::kPiece));
  int32_t* counts = static_cast<int32_t*>(Scratch((pieces + 1) * experts * sizeof(int32_t)));
  int32_t* totals = counts + pieces * experts;
  const cudaStream_t raw = cuda::Raw(stream);
  const unsigned blocks = static_cast<unsigned>(pieces);
  const cuda::Experts sorted{.choices = cuda::ChoicesOf(args.experts),
                             .first = args.first,
                             .count = static_cast<int32_t>(experts),
                             .others = args.others};
  if (args.others) CUDA_OK(cudaMemsetAsync(args.choice_of.data, 0, args.choice_of.bytes(), raw));
  cuda::CountKernel<<<blocks, cuda::kThreads, 0, raw>>>(sorted, choices, counts);
  cuda::ScanKernel<<<std::max(1u, cuda::Blocks(experts)), cuda::kThreads, 0, raw>>>(
      counts, static_cast<int>(experts), static_cast<int>(pieces), totals);
  const cuda::PlaceKernelArgs kernel{.experts = sorted,
                                     .choices = choices,
                                     .room = args.choice_of.elements(),
                                     .counts = counts,
                                     .totals = totals,
                                     .offsets = cuda::Data<int64_t>(args.offsets),
                                     .row_of = cuda::ChoicesOf(args.row_of),
                                     .choice_of = cuda::Data<int32_t>(args.choice_of)};
  const size_t shared = (1 + cuda::kWarps) * experts * sizeof(int32_t);
  cuda::PlaceKernel<<<blocks, cuda::kThreads, shared, raw>>>(kernel);
  cuda::Launched("RouteSort");
}

void CudaBackend::GatherRows(Stream& stream, const GatherRowsArgs& args) {
  cuda::CopyRows<false>(args.x, args.out, args.index, args.divisor, cuda::Raw(stream));
  cuda::Launched("GatherRows");
}

void CudaBackend::Embedding(Stream& stream, const EmbeddingArgs& args) {
  cuda::CopyRows<false>(args.table, args.out, args.ids, 1, cuda::Raw(stream));
  cuda::Launched("Embedding");
}

void CudaBackend::ScatterRows(Stream& stream, const ScatterRowsArgs& args) {
  cuda::CopyRows<true>(args.x, args.out, args.index, 1, cuda::Raw(stream));
  cuda::Launched("ScatterRows");
}

void CudaBackend::CombineRows(Stream& stream, const CombineRowsArgs& args) {
  const int64_t tokens = args.out.rows(), hidden = args.out.cols();
  if (tokens == 0 || hidden == 0) return;
  cuda::ForAct(args.out.dtype, [&](auto act) {
    using T = decltype(act);
    const cuda::CombineKernelArgs<T> kernel{.rows = cuda::Data<const T>(args.rows),
                                            .rows_stride = args.rows.stride,
                                            .row_of = cuda::Data<const int32_t>(args.row_of),
                                            .row_of_stride = args.row_of.stride,
                                            .k = static_cast<int>(args.row_of.cols()),
                                            .add = cuda::Data<const T>(args.add),
                                            .add_stride = args.add.stride,
                                            .out = cuda::Data<T>(args.out),
                                            .out_stride = args.out.stride,
                                            .tokens = tokens,
                                            .hidden = static_cast<int>(hidden),
                                            .pieces = 0,
                                            .tokens_a_warp = 1};
    if (cuda::Vectorizes<T>(args.rows) && cuda::Vectorizes<T>(args.out) &&
        (!args.add || cuda::Vectorizes<T>(args.add))) {
      cuda::LaunchCombine<T, cuda::kVector<T>>(kernel, cuda::Raw(stream));
    } else {
      cuda::LaunchCombine<T, 1>(kernel, cuda::Raw(stream));
    }
  });
  cuda::Launched("CombineRows");
}

}  // namespace moebius
