// Rows cut into pieces of a few adjacent elements, one vector load each where memory allows it, and the team
// of threads that owns a row. Which thread owns which element does not depend on alignment, so a row gives
// the same sums wherever it lies.
#pragma once

#include <algorithm>
#include <bit>
#include <type_traits>

#include "core/backend/cuda/kernel.cuh"

namespace moebius::cuda {

// N adjacent elements, kept packed: two bf16 share a register until they are used.
template <typename T, int N>
struct Piece {
  static constexpr bool kBf16 = sizeof(T) == 2;
  static constexpr int kWords = kBf16 ? (N + 1) / 2 : N;
  uint32_t words[kWords];

  __device__ __forceinline__ float operator[](int i) const {
    if constexpr (!kBf16) return __uint_as_float(words[i]);
    return __uint_as_float(i % 2 == 0 ? words[i / 2] << 16 : words[i / 2] & 0xFFFF0000u);
  }
};

// The piece of N elements at p. kWhole: p is aligned to the piece, which is all there (left > 0) or all
// beyond the row's end; otherwise its first `left` elements are there. What is not there reads as 0.
template <bool kWhole, int N, typename T>
__device__ __forceinline__ Piece<T, N> LoadPiece(const T* p, int64_t left) {
  constexpr int kBytes = N * sizeof(T);
  Piece<T, N> piece{};
  if constexpr (kWhole && kBytes % 16 == 0) {
    if (left > 0) {
#pragma unroll
      for (int i = 0; i < kBytes / 16; ++i) {
        const uint4 four = reinterpret_cast<const uint4*>(p)[i];
        piece.words[4 * i] = four.x;
        piece.words[4 * i + 1] = four.y;
        piece.words[4 * i + 2] = four.z;
        piece.words[4 * i + 3] = four.w;
      }
    }
  } else if constexpr (kWhole && kBytes == 8) {
    if (left > 0) {
      const uint2 two = *reinterpret_cast<const uint2*>(p);
      piece.words[0] = two.x;
      piece.words[1] = two.y;
    }
  } else {
#pragma unroll
    for (int i = 0; i < N; ++i) {
      if (i >= left) continue;
      if constexpr (sizeof(T) == 4) {
        piece.words[i] = __float_as_uint(p[i]);
      } else {
        piece.words[i / 2] |= uint32_t{__bfloat16_as_ushort(p[i])} << i % 2 * 16;
      }
    }
  }
  return piece;
}

// Stores what of the piece is there.
template <bool kWhole, int N, typename T>
__device__ __forceinline__ void StorePiece(const Piece<T, N>& piece, T* p, int64_t left) {
  constexpr int kBytes = N * sizeof(T);
  if constexpr (kWhole && kBytes % 16 == 0) {
    if (left > 0) {
#pragma unroll
      for (int i = 0; i < kBytes / 16; ++i) {
        reinterpret_cast<uint4*>(p)[i] = make_uint4(piece.words[4 * i], piece.words[4 * i + 1],
                                                    piece.words[4 * i + 2], piece.words[4 * i + 3]);
      }
    }
  } else if constexpr (kWhole && kBytes == 8) {
    if (left > 0) *reinterpret_cast<uint2*>(p) = make_uint2(piece.words[0], piece.words[1]);
  } else {
#pragma unroll
    for (int i = 0; i < N; ++i) {
      if (i >= left) continue;
      if constexpr (sizeof(T) == 4) {
        p[i] = __uint_as_float(piece.words[i]);
      } else {
        p[i] = __ushort_as_bfloat16(static_cast<unsigned short>(piece.words[i / 2] >> i % 2 * 16));
      }
    }
  }
}

// Rounds v to T and stores what of the piece is there.
template <bool kWhole, int N, typename T>
__device__ __forceinline__ void StorePiece(const float (&v)[N], T* p, int64_t left) {
  Piece<T, N> piece;
#pragma unroll
  for (int i = 0; i < N; ++i) {
    if constexpr (sizeof(T) == 4) {
      piece.words[i] = __float_as_uint(v[i]);
    } else if (i % 2 == 0) {
      const __nv_bfloat162 pair = __floats2bfloat162_rn(v[i], i + 1 < N ? v[i + 1] : 0);
      piece.words[i / 2] =
          uint32_t{__bfloat16_as_ushort(pair.y)} << 16 | uint32_t{__bfloat16_as_ushort(pair.x)};
    }
  }
  StorePiece<kWhole>(piece, p, left);
}

// A block of [x = threads of a row, y = rows] when a thread owns one piece at a time: up to 32 pieces a row
// share a warp with other rows (x is a power of two), more have a block of whole warps to themselves.
inline dim3 TeamBlock(int64_t pieces, int max_threads) {
  constexpr int kSharedThreads = 256;
  if (pieces <= kWarp) {
    const unsigned team = std::bit_ceil(static_cast<unsigned>(std::max<int64_t>(pieces, 1)));
    return dim3(team, kSharedThreads / team);
  }
  return dim3(static_cast<unsigned>(std::min<int64_t>(CeilDiv(pieces, kWarp) * kWarp, max_threads)), 1);
}

// The sum over the threads of a row, in a block that TeamBlock shaped: every thread of the block calls it.
// `shared` holds one float a warp and may be used again after the call.
__device__ __forceinline__ float TeamSum(float x, float* shared) {
  const int team = static_cast<int>(blockDim.x);
  for (int step = min(team, kWarp) / 2; step > 0; step /= 2) x += __shfl_xor_sync(kAllLanes, x, step);
  if (team <= kWarp) return x;
  if (threadIdx.x % kWarp == 0) shared[threadIdx.x / kWarp] = x;
  __syncthreads();
  float sum = 0;
  for (int w = 0; w < team / kWarp; ++w) sum += shared[w];
  __syncthreads();
  return sum;
}

// Calls launch(pieces a thread as a constant, block) for rows of n elements; false when a row is too long for
// kMost pieces a thread.
template <typename T, int kMost, int kMaxThreads, typename F>
bool ForPieces(int64_t n, const F& launch) {
  const int64_t pieces = CeilDiv(n, kVector<T>);
  if (pieces <= kWarp) {
    launch(std::integral_constant<int, 1>(), TeamBlock(pieces, kMaxThreads));
  } else if (pieces <= 2 * kMaxThreads) {
    launch(std::integral_constant<int, 2>(), TeamBlock(CeilDiv(pieces, 2), kMaxThreads));
  } else if (kMost == 4 && pieces <= 4 * kMaxThreads) {
    launch(std::integral_constant<int, kMost>(), TeamBlock(CeilDiv(pieces, kMost), kMaxThreads));
  } else {
    return false;
  }
  return true;
}

// Whether every row of the view is made of whole, aligned vectors; a view that is not given is no obstacle.
template <typename T>
bool Whole(const TensorView& x) {
  return !x || Vectorizes<T>(x);
}

// Blocks that the device holds at once: the grid of a kernel whose blocks go round over rows.
template <typename Kernel>
int64_t ResidentBlocks(Kernel* kernel, dim3 block, int64_t shared_bytes, int multiprocessors) {
  int blocks = 0;
  CUDA_OK(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, kernel, static_cast<int>(block.x * block.y),
                                                        static_cast<size_t>(shared_bytes)));
  return int64_t{std::max(blocks, 1)} * multiprocessors;
}

// Calls f with the condition as a type, whose ::value a kernel takes as an argument of its template.
template <typename F>
void ForBool(bool condition, const F& f) {
  condition ? f(std::true_type()) : f(std::false_type());
}

// Whether vectors of `bytes` may be read at the start of every row; lengths are the caller's business.
inline bool Aligned(const TensorView& x, int64_t bytes) {
  const int64_t row = x.rows() > 1 ? x.stride * SizeOf(x.dtype) : 0;
  return reinterpret_cast<uintptr_t>(x.data) % bytes == 0 && row % bytes == 0;
}

}  // namespace moebius::cuda
