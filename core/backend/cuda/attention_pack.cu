#include <algorithm>

#include "core/backend/cuda/attention_pack.h"
#include "core/backend/cuda/kernel.cuh"

namespace moebius::cuda {
namespace {

constexpr int kThreads = 256;
using Piece = Vector<Bf16, kVector<Bf16>>;
constexpr int kPiece = kVector<Bf16>;

struct KeyViews {
  Bf16* keys;  // [tokens, groups, dk + dr]
  Bf16* k;
  Bf16* shared;
  int64_t k_stride, shared_stride;
  int64_t tokens;
  int groups, dk, dr;
};

// A thread owns one piece of eight columns of a token and key head.
__global__ void __launch_bounds__(kThreads) PackKeysKernel(const KeyViews v) {
  const int64_t pieces = (v.dk + v.dr) / kPiece, total = v.tokens * v.groups * pieces;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < total;
       i += static_cast<int64_t>(gridDim.x) * kThreads) {
    const int64_t row = i / pieces;
    const int c = static_cast<int>(i % pieces) * kPiece;
    const Bf16* from =
        c < v.dk ? v.k + row * v.k_stride + c : v.shared + row / v.groups * v.shared_stride + c - v.dk;
    reinterpret_cast<Piece*>(v.keys)[i] = *reinterpret_cast<const Piece*>(from);
  }
}

// A thread owns eight columns of a token, over all key heads: copies them, or adds them up.
__global__ void __launch_bounds__(kThreads) SplitKeyGradientKernel(const KeyViews v) {
  const int64_t pieces = (v.dk + v.dr) / kPiece, total = v.tokens * pieces;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < total;
       i += static_cast<int64_t>(gridDim.x) * kThreads) {
    const int64_t token = i / pieces;
    const int c = static_cast<int>(i % pieces) * kPiece;
    const Piece* from = reinterpret_cast<const Piece*>(v.keys) + token * v.groups * pieces + i % pieces;
    if (c < v.dk) {
      Bf16* to = v.k + token * v.groups * v.k_stride + c;
#pragma unroll 4
      for (int g = 0; g < v.groups; ++g) *reinterpret_cast<Piece*>(to + g * v.k_stride) = from[g * pieces];
      continue;
    }
    float sum[kPiece] = {};
#pragma unroll 4
    for (int g = 0; g < v.groups; ++g) {
      const Piece piece = from[g * pieces];
#pragma unroll
      for (int j = 0; j < kPiece; ++j) sum[j] += ToFloat(piece.at[j]);
    }
    Piece out;
#pragma unroll
    for (int j = 0; j < kPiece; ++j) out.at[j] = FromFloat<Bf16>(sum[j]);
    *reinterpret_cast<Piece*>(v.shared + token * v.shared_stride + c - v.dk) = out;
  }
}

// A thread owns one position of a sequence and head.
template <bool kPack>
__global__ void __launch_bounds__(kThreads) StatsKernel(const StatsLayout layout, float* stats, float* lse) {
  const int64_t total = layout.batch * layout.heads * layout.length;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < total;
       i += static_cast<int64_t>(gridDim.x) * kThreads) {
    const int64_t at = i % layout.length, head = i / layout.length % layout.heads;
    const int64_t sequence = i / layout.length / layout.heads;
    const int32_t start = layout.starts[sequence];
    const bool inside = at < layout.starts[sequence + 1] - start;
    float* ours = lse + head * layout.lse_stride + start + at;
    if constexpr (kPack) {
      stats[i] = inside ? *ours : 0.0f;
    } else {
      if (inside) *ours = stats[i];
    }
  }
}

unsigned Blocks(int64_t threads) {
  return static_cast<unsigned>(std::clamp<int64_t>(CeilDiv(threads, kThreads), 1, 1 << 20));
}

KeyViews Views(const TensorView& keys, const TensorView& k, const TensorView& shared) {
  CHECK(keys.contiguous() && Vectorizes<Bf16>(k) && Vectorizes<Bf16>(shared)) << keys << k << shared;
  return {.keys = Data<Bf16>(keys),
          .k = Data<Bf16>(k),
          .shared = Data<Bf16>(shared),
          .k_stride = k.stride,
          .shared_stride = shared.stride,
          .tokens = k.shape[0],
          .groups = static_cast<int>(k.shape[1]),
          .dk = static_cast<int>(k.cols()),
          .dr = static_cast<int>(shared.cols())};
}

}  // namespace

void PackKeys(cudaStream_t stream, const TensorView& k, const TensorView& k_shared, const TensorView& keys) {
  PackKeysKernel<<<Blocks(keys.elements() / kPiece), kThreads, 0, stream>>>(Views(keys, k, k_shared));
  Launched("PackKeys");
}

void SplitKeyGradient(cudaStream_t stream, const TensorView& d_keys, const TensorView& dk,
                      const TensorView& dk_shared) {
  const KeyViews views = Views(d_keys, dk, dk_shared);
  const int64_t pieces = views.tokens * d_keys.cols() / kPiece;
  SplitKeyGradientKernel<<<Blocks(pieces), kThreads, 0, stream>>>(views);
  Launched("SplitKeyGradient");
}

void UnpackStats(cudaStream_t stream, const StatsLayout& layout, const float* stats, float* lse) {
  StatsKernel<false><<<Blocks(layout.batch * layout.heads * layout.length), kThreads, 0, stream>>>(
      layout, const_cast<float*>(stats), lse);
  Launched("UnpackStats");
}

void PackStats(cudaStream_t stream, const StatsLayout& layout, const float* lse, float* stats) {
  StatsKernel<true><<<Blocks(layout.batch * layout.heads * layout.length), kThreads, 0, stream>>>(
      layout, stats, const_cast<float*>(lse));
  Launched("PackStats");
}

}  // namespace moebius::cuda
