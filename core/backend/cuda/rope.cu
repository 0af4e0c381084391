#include "core/backend/cuda/pieces.cuh"

namespace moebius {
namespace cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kHeads = 4;  // of a thread

template <typename T>
struct RopeRows {
  T* x;
  const int32_t* positions;
  const float *cos, *sin;
  int64_t x_stride, cos_stride, sin_stride, tokens, known_positions;
  int heads, half;
  float sign;
};

// a, b = a cos - b sin, a sin + b cos.
__device__ __forceinline__ void Turn(float c, float s, float& a, float& b) {
  const float turned = fmaf(-b, s, a * c);
  b = fmaf(a, s, b * c);
  a = turned;
}

// N of the angle's cosines or sines.
template <bool kWhole, int N>
__device__ __forceinline__ void LoadAngles(const float* from, float (&to)[N]) {
  constexpr int kStep = kWhole ? (N < 4 ? N : 4) : 1;
#pragma unroll
  for (int i = 0; i < N; i += kStep) {
    const auto part = *reinterpret_cast<const Vector<float, kStep>*>(from + i);
#pragma unroll
    for (int j = 0; j < kStep; ++j) to[i + j] = part.at[j];
  }
}

// x [tokens, heads, 2 half], in place. A block owns `tokens_of_block` tokens; a thread owns kPairs pairs of
// kHeads heads of a token, which share their angles. kInterleaved: the pairs lie in one piece of 2 kPairs
// elements; kHalf: in two pieces, `half` apart.
template <typename T, RopeStyle kStyle, int kPairs, bool kWhole>
__global__ void __launch_bounds__(kThreads) Rotate(const RopeRows<T> a, int tokens_of_block) {
  constexpr bool kOnePiece = kStyle == RopeStyle::kInterleaved;
  constexpr int N = kOnePiece ? 2 * kPairs : kPairs;
  const int pieces = a.half / kPairs, groups = (a.heads + kHeads - 1) / kHeads, of_token = groups * pieces;
  for (int e = static_cast<int>(threadIdx.x); e < tokens_of_block * of_token; e += kThreads) {
    const int64_t token = int64_t{blockIdx.x} * tokens_of_block + e / of_token;
    if (token >= a.tokens) return;
    const int head = e % of_token / pieces * kHeads, pair = e % pieces * kPairs;
    T* x = a.x + (token * a.heads + head) * a.x_stride + (kOnePiece ? 2 * pair : pair);
    // On their way while the position and then its angles are read.
    Piece<T, N> first[kHeads], second[kHeads];
#pragma unroll
    for (int h = 0; h < kHeads; ++h) {
      const int left = head + h < a.heads ? N : 0;
      first[h] = LoadPiece<kWhole, N>(x + h * a.x_stride, left);
      if constexpr (!kOnePiece) second[h] = LoadPiece<kWhole, N>(x + h * a.x_stride + a.half, left);
    }
    const int64_t position = a.positions[token];
    if (position < 0 || position >= a.known_positions) __trap();  // rather than angles from anywhere
    float c[kPairs], s[kPairs];
    LoadAngles<kWhole>(a.cos + position * a.cos_stride + pair, c);
    LoadAngles<kWhole>(a.sin + position * a.sin_stride + pair, s);
#pragma unroll
    for (int h = 0; h < kHeads; ++h) {
      const int left = head + h < a.heads ? N : 0;
      float front[N], back[N];
      if constexpr (kOnePiece) {
#pragma unroll
        for (int i = 0; i < kPairs; ++i) {
          front[2 * i] = first[h][2 * i];
          front[2 * i + 1] = first[h][2 * i + 1];
          Turn(c[i], s[i] * a.sign, front[2 * i], front[2 * i + 1]);
        }
      } else {
#pragma unroll
        for (int i = 0; i < kPairs; ++i) {
          front[i] = first[h][i];
          back[i] = second[h][i];
          Turn(c[i], s[i] * a.sign, front[i], back[i]);
        }
        StorePiece<kWhole>(back, x + h * a.x_stride + a.half, left);
      }
      StorePiece<kWhole>(front, x + h * a.x_stride, left);
    }
  }
}

template <typename T, RopeStyle kStyle, int kPairs, bool kWhole>
void LaunchRotate(cudaStream_t stream, const RopeRows<T>& a) {
  const int64_t of_token = CeilDiv(a.heads, kHeads) * (a.half / kPairs);
  const int64_t tokens_of_block = std::max<int64_t>(kThreads / of_token, 1);
  const int64_t grid = CeilDiv(a.tokens, tokens_of_block);
  Rotate<T, kStyle, kPairs, kWhole>
      <<<static_cast<unsigned>(grid), kThreads, 0, stream>>>(a, static_cast<int>(tokens_of_block));
  Launched("Rope");
}

template <typename T, RopeStyle kStyle>
void LaunchRope(cudaStream_t stream, const RopeArgs& args) {
  constexpr int kPairs = kStyle == RopeStyle::kInterleaved ? kVector<T> / 2 : kVector<T>;
  const RopeRows<T> a{.x = Data<T>(args.x),
                      .positions = Data<int32_t>(args.positions),
                      .cos = Data<float>(args.cos),
                      .sin = Data<float>(args.sin),
                      .x_stride = args.x.stride,
                      .cos_stride = args.cos.stride,
                      .sin_stride = args.sin.stride,
                      .tokens = args.x.shape[0],
                      .known_positions = args.cos.rows(),
                      .heads = static_cast<int>(args.x.shape[1]),
                      .half = static_cast<int>(args.x.cols() / 2),
                      .sign = args.inverse ? -1.0f : 1.0f};
  const bool whole =
      a.half % kPairs == 0 && Aligned(args.x, 16) && Aligned(args.cos, 16) && Aligned(args.sin, 16);
  whole ? LaunchRotate<T, kStyle, kPairs, true>(stream, a) : LaunchRotate<T, kStyle, 1, false>(stream, a);
}

}  // namespace
}  // namespace cuda

void CudaBackend::Rope(Stream& stream, const RopeArgs& args) {
  if (args.x.elements() == 0) return;
  cuda::ForAct(args.x.dtype, [&](auto tag) {
    using T = decltype(tag);
    args.style == RopeStyle::kInterleaved
        ? cuda::LaunchRope<T, RopeStyle::kInterleaved>(cuda::Raw(stream), args)
        : cuda::LaunchRope<T, RopeStyle::kHalf>(cuda::Raw(stream), args);
  });
}

}  // namespace moebius
