// EmbeddingBackward; Embedding gathers rows as GatherRows does (rows.cu).
#include <cub/device/device_radix_sort.cuh>

#include "core/backend/cuda/pieces.cuh"

namespace moebius {
namespace cuda {
namespace {

constexpr int kThreads = 256;
// Tokens of one id that are added one after another; what an id has beyond them is added in further chunks.
constexpr int kChunk = 128;

__global__ void __launch_bounds__(kThreads) Count(int32_t* order, int tokens) {
  const int i = static_cast<int>(blockIdx.x * kThreads + threadIdx.x);
  if (i < tokens) order[i] = i;
}

// The first index in [begin, end) of a sorted array whose element is not below (kBeyond: above) `value`, or
// end.
template <bool kBeyond>
__device__ int Bound(const int32_t* sorted, int begin, int end, int32_t value) {
  while (begin < end) {
    const int middle = begin + (end - begin) / 2;
    if (sorted[middle] < value || (kBeyond && sorted[middle] == value)) {
      begin = middle + 1;
    } else {
      end = middle;
    }
  }
  return begin;
}

// counts [tokens]: the length of the chunk that starts at an index of the sorted ids; positive for an id's
// first chunk, negative for its later ones, 0 where none starts. A thread owns an index.
__global__ void __launch_bounds__(kThreads)
    PlanChunks(const int32_t* sorted, int tokens, int64_t table_rows, int32_t* counts) {
  const int i = static_cast<int>(blockIdx.x * kThreads + threadIdx.x);
  if (i >= tokens) return;
  const int32_t id = sorted[i];
  if (id < 0 || id >= table_rows) __trap();
  const int from_first = i - Bound<false>(sorted, 0, i, id);
  int count = 0;
  if (from_first % kChunk == 0) count = Bound<true>(sorted, i, min(i + kChunk, tokens), id) - i;
  counts[i] = from_first == 0 ? count : -count;
}

struct Chunks {
  const int32_t *sorted, *order, *counts;  // [tokens]: ids, where each came from, PlanChunks' answer
  float* partial;                          // [tokens / kChunk rounded up, hidden]
  int tokens, hidden;
};

// A block owns the chunk that starts at its index, if one does; a thread pieces of N columns, whose rows of
// dy it adds in token order: to the table's row for the id's first chunk, to 0 for a later one, whose sum
// goes to partial [index / kChunk]: of all later chunks only one starts in any kChunk indices.
template <typename T, int N>
__global__ void __launch_bounds__(kThreads)
    AddChunks(const Chunks a, const T* __restrict__ dy, int64_t dy_stride, float* __restrict__ dtable,
              int64_t dtable_stride) {
  constexpr int kInFlight = 8;
  __shared__ int32_t tokens[kChunk];
  const int start = static_cast<int>(blockIdx.x), signed_count = a.counts[start], count = abs(signed_count);
  if (count == 0) return;
  for (int i = static_cast<int>(threadIdx.x); i < count; i += static_cast<int>(blockDim.x))
    tokens[i] = a.order[start + i];
  __syncthreads();
  float* row = signed_count > 0 ? dtable + a.sorted[start] * dtable_stride
                                : a.partial + int64_t{start / kChunk} * a.hidden;
  for (int c = static_cast<int>(threadIdx.x) * N; c < a.hidden; c += static_cast<int>(blockDim.x) * N) {
    const auto old = LoadPiece<true, N>(row + c, signed_count > 0 ? N : 0);
    float sum[N];
#pragma unroll
    for (int i = 0; i < N; ++i) sum[i] = old[i];
    for (int first = 0; first < count; first += kInFlight) {
      Piece<T, N> pieces[kInFlight];
#pragma unroll
      for (int k = 0; k < kInFlight; ++k) {
        const bool there = first + k < count;
        pieces[k] = LoadPiece<true, N>(dy + tokens[there ? first + k : first] * dy_stride + c, there ? N : 0);
      }
#pragma unroll
      for (int k = 0; k < kInFlight; ++k) {
        if (first + k >= count) break;
#pragma unroll
        for (int i = 0; i < N; ++i) sum[i] += pieces[k][i];
      }
    }
    StorePiece<true>(sum, row + c, N);
  }
}

// Adds the later chunks of an id to its row of the table, in order. Block (q, .) owns the id whose run starts
// among kChunk indices q and goes on for more than kChunk, if there is one: it then holds their last index. A
// thread owns a column.
__global__ void __launch_bounds__(kThreads)
    AddLaterChunks(const Chunks a, float* __restrict__ dtable, int64_t dtable_stride) {
  const int first = static_cast<int>(blockIdx.x) * kChunk, last = first + kChunk - 1;
  const int32_t id = a.sorted[last];
  const int start = Bound<false>(a.sorted, 0, last, id);
  if (start < first || start + kChunk >= a.tokens || a.sorted[start + kChunk] != id) return;
  const int end = Bound<true>(a.sorted, start + kChunk, a.tokens, id);
  const int c = static_cast<int>(blockIdx.y * kThreads + threadIdx.x);
  if (c >= a.hidden) return;
  const float* __restrict__ partial = a.partial;
  float sum = dtable[id * dtable_stride + c];
#pragma unroll 8
  for (int at = start + kChunk; at < end; at += kChunk) sum += partial[int64_t{at / kChunk} * a.hidden + c];
  dtable[id * dtable_stride + c] = sum;
}

template <typename T>
void LaunchAddChunks(cudaStream_t stream, const EmbeddingBackwardArgs& args, const Chunks& chunks) {
  constexpr int N = kVector<T>;
  const auto launch = [&](auto width) {
    constexpr int kWidth = decltype(width)::value;
    const int64_t threads =
        std::min<int64_t>(CeilDiv(CeilDiv(chunks.hidden, kWidth), kWarp) * kWarp, kThreads);
    AddChunks<T, kWidth><<<static_cast<unsigned>(chunks.tokens), static_cast<unsigned>(threads), 0, stream>>>(
        chunks, Data<const T>(args.dy), args.dy.stride, Data<float>(args.dtable), args.dtable.stride);
  };
  const bool whole = chunks.hidden % N == 0 && Aligned(args.dy, 16) && Aligned(args.dtable, 16);
  whole ? launch(std::integral_constant<int, N>()) : launch(std::integral_constant<int, 1>());
  Launched("AddChunks");
  if (chunks.tokens <= kChunk) return;
  const dim3 grid(static_cast<unsigned>(chunks.tokens / kChunk),
                  static_cast<unsigned>(CeilDiv(chunks.hidden, kThreads)));
  AddLaterChunks<<<grid, kThreads, 0, stream>>>(chunks, Data<float>(args.dtable), args.dtable.stride);
  Launched("AddLaterChunks");
}

}  // namespace
}  // namespace cuda

// Token positions are sorted by id, stably, so that each id's tokens are neighbours and in order.
void CudaBackend::EmbeddingBackward(Stream& stream, const EmbeddingBackwardArgs& args) {
  if (args.dy.elements() == 0) return;
  using cuda::kThreads;
  const cudaStream_t raw = cuda::Raw(stream);
  CHECK_LE(args.ids.elements(), int64_t{1} << 30);
  const int tokens = static_cast<int>(args.ids.elements());
  const int64_t hidden = args.dtable.cols(), rows = args.dtable.rows();
  const int bits = std::bit_width(static_cast<uint64_t>(std::max<int64_t>(rows - 1, 1)));
  const auto* ids = cuda::Data<const int32_t>(args.ids);
  const auto sort = [&](void* memory, size_t& bytes, int32_t* sorted, const int32_t* from, int32_t* to) {
    CUDA_OK(cub::DeviceRadixSort::SortPairs(memory, bytes, ids, sorted, from, to, tokens, 0, bits, raw));
  };
  size_t sort_bytes = 0;
  sort(nullptr, sort_bytes, nullptr, nullptr, nullptr);
  // Four arrays of tokens, the later chunks' sums, the sort's own memory; each 256-byte aligned.
  const auto rounded = [](int64_t bytes) { return cuda::CeilDiv(bytes, 256) * 256; };
  const int64_t list = rounded(tokens * static_cast<int64_t>(sizeof(int32_t)));
  const int64_t sums =
      rounded(cuda::CeilDiv(tokens, cuda::kChunk) * hidden * static_cast<int64_t>(sizeof(float)));
  char* memory = static_cast<char*>(Scratch(4 * list + sums + static_cast<int64_t>(sort_bytes)));
  const auto list_at = [&](int i) { return reinterpret_cast<int32_t*>(memory + i * list); };
  int32_t *positions = list_at(0), *sorted = list_at(1), *order = list_at(2), *counts = list_at(3);
  const auto grid = static_cast<unsigned>(cuda::CeilDiv(tokens, kThreads));
  cuda::Count<<<grid, kThreads, 0, raw>>>(positions, tokens);
  sort(memory + 4 * list + sums, sort_bytes, sorted, positions, order);
  cuda::PlanChunks<<<grid, kThreads, 0, raw>>>(sorted, tokens, rows, counts);
  cuda::Launched("EmbeddingBackward");
  const cuda::Chunks chunks{.sorted = sorted,
                            .order = order,
                            .counts = counts,
                            .partial = reinterpret_cast<float*>(memory + 4 * list),
                            .tokens = tokens,
                            .hidden = static_cast<int>(hidden)};
  cuda::ForAct(args.dy.dtype, [&](auto tag) { cuda::LaunchAddChunks<decltype(tag)>(raw, args, chunks); });
}

}  // namespace moebius
