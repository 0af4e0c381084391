#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "core/backend/cpu/cpu_backend.h"
#include "core/backend/cpu/matvec.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/backend/cpu/decode_attention.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
//
#include "core/backend/cpu/matvec-inl.h"

// The decode kernel's view of its operands, and one piece of work: a chunk of one sequence's cache for one
// key/value head and all query heads that share it (all heads at once for MLA), so every cached row is read
// once.
#ifndef MOEBIUS_CORE_BACKEND_CPU_DECODE_ATTENTION_CC_
#define MOEBIUS_CORE_BACKEND_CPU_DECODE_ATTENTION_CC_
namespace moebius {

struct DecodeProblem {
  explicit DecodeProblem(const DecodeAttentionArgs& args)
      : heads(args.q.shape[1]),
        d(args.q.cols()),
        dv(args.o.cols()),
        groups(args.k.cols() / d),
        capacity(args.k.shape[1]),
        scale(args.scale),
        dots(ChooseBF16Dots()),
        q(args.q),
        k(args.k),
        v(args.v) {}
  int64_t heads, d, dv, groups, capacity;
  float scale;
  BF16Dots dots;
  TensorView q, k, v;

  int64_t per_group() const { return heads / groups; }
  // Few heads a group: small chunks give threads work early. Many: the partial sums of a chunk are as large
  // as the cache rows they stand for, so chunks are longer.
  int64_t chunk() const { return per_group() <= 16 ? 128 : 512; }
};

struct DecodeTask {
  int64_t sequence, group, begin, end;
};

// What a chunk leaves, by head: out [per_group, dv] not yet divided by sum; max of unscaled scores.
struct DecodePartial {
  float* out;
  float* max;
  float* sum;
};

inline constexpr int64_t kDecodeBlock = 128;  // cached tokens whose rows stay in the second-level cache
inline constexpr int64_t kDecodeHeads = 4;

}  // namespace moebius
#endif

HWY_BEFORE_NAMESPACE();
namespace moebius {
namespace HWY_NAMESPACE {

// Scores to exponentials under the new maximum; shrinks what was summed under the old one.
HWY_INLINE void SoftmaxStep(float* scores, int64_t n, float scale, float* out, int64_t dv, float& max,
                            float& sum) {
  VF largest = Set(max);
  Sweep(n, [&](int64_t i, auto part) HWY_ATTR {
    VF score = Load(scores + i, part);
    if constexpr (std::is_same_v<decltype(part), Part>) {
      score = hn::IfThenElse(hn::FirstN(F32(), part.n), score, largest);
    }
    largest = hn::Max(largest, score);
  });
  const float new_max = Max(largest);
  const float shrink = std::exp((max - new_max) * scale);
  VF total = Set(0);
  Sweep(n, [&](int64_t i, auto part) HWY_ATTR {
    VF p = Exp(hn::Mul(hn::Sub(Load(scores + i, part), Set(new_max)), Set(scale)));
    Store(p, scores + i, part);
    if constexpr (std::is_same_v<decltype(part), Part>) p = hn::IfThenElseZero(hn::FirstN(F32(), part.n), p);
    total = hn::Add(total, p);
  });
  sum = sum * shrink + Sum(total);
  max = new_max;
  if (shrink != 1) {
    Sweep(dv, [&](int64_t i, auto part)
                  HWY_ATTR { Store(hn::Mul(Load(out + i, part), Set(shrink)), out + i, part); });
  }
}

// out [kRows, dv] += weights [kRows, n] · values [n, dv]: sums of a few columns stay in registers over all n
// rows, which the caller keeps few enough for the cache.
constexpr int64_t kPrefetchRows = 8;  // how far ahead of the reader rows are asked for
template <int kRows, typename T>
HWY_INLINE void WeighRows(int64_t n, int64_t dv, const float* weights, const T* values, int64_t ldv,
                          float* out) {
  const auto columns = [&](auto count, int64_t c, auto part) HWY_ATTR {
    constexpr int kVectors = decltype(count)::value;
    const int64_t lanes = Lanes();
    VF sums[kRows][kVectors];
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) sums[r][v] = Load(out + r * dv + c + v * lanes, part);
    }
    const T* row = values + c;
    const bool new_line = c * sizeof(T) % 64 == 0;
    for (int64_t i = 0; i < n; ++i, row += ldv) {
      if (new_line) hwy::Prefetch(row + kPrefetchRows * ldv);
      VF value[kVectors];
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) value[v] = Load(row + v * lanes, part);
#pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r) {
        const VF weight = Set(weights[r * kDecodeBlock + i]);
#pragma GCC unroll 2
        for (int v = 0; v < kVectors; ++v) sums[r][v] = hn::MulAdd(weight, value[v], sums[r][v]);
      }
    }
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) Store(sums[r][v], out + r * dv + c + v * lanes, part);
    }
  };
  const int64_t lanes = Lanes();
  int64_t c = 0;
  for (; c + 2 * lanes <= dv; c += 2 * lanes) columns(std::integral_constant<int, 2>(), c, Whole());
  for (; c + lanes <= dv; c += lanes) columns(std::integral_constant<int, 1>(), c, Whole());
  if (c < dv) columns(std::integral_constant<int, 1>(), c, Part{dv - c});
}

template <typename T, class Step, typename Q>
void DecodeChunk(const DecodeProblem& p, const DecodeTask& task, const Q* q, int64_t ldq,
                 const DecodePartial& partial) {
  const int64_t per_group = p.per_group();
  const T* keys =
      static_cast<const T*>(p.k.data) + task.sequence * p.capacity * p.k.stride + task.group * p.d;
  const T* values =
      static_cast<const T*>(p.v.data) + task.sequence * p.capacity * p.v.stride + task.group * p.dv;
  std::fill_n(partial.out, per_group * p.dv, 0.0f);
  std::fill_n(partial.max, per_group, std::numeric_limits<float>::lowest());
  std::fill_n(partial.sum, per_group, 0.0f);
  HWY_ALIGN float scores[kDecodeHeads * kDecodeBlock];
  for (int64_t token = task.begin; token < task.end; token += kDecodeBlock) {
    const int64_t n = std::min(kDecodeBlock, task.end - token);
    for (int64_t head = 0; head < per_group; head += kDecodeHeads) {
      const int64_t m = std::min(kDecodeHeads, per_group - head);
      DotBlock<Step>(m, n, p.d, q + head * ldq, ldq, keys + token * p.k.stride, p.k.stride, scores,
                     kDecodeBlock);
      float* out = partial.out + head * p.dv;
      for (int64_t r = 0; r < m; ++r) {
        SoftmaxStep(scores + r * kDecodeBlock, n, p.scale, out + r * p.dv, p.dv, partial.max[head + r],
                    partial.sum[head + r]);
      }
      const T* value_rows = values + token * p.v.stride;
      static_assert(kDecodeHeads == 4);
      if (m == 4) {
        WeighRows<4>(n, p.dv, scores, value_rows, p.v.stride, out);
      } else if (m == 3) {
        WeighRows<3>(n, p.dv, scores, value_rows, p.v.stride, out);
      } else if (m == 2) {
        WeighRows<2>(n, p.dv, scores, value_rows, p.v.stride, out);
      } else {
        WeighRows<1>(n, p.dv, scores, value_rows, p.v.stride, out);
      }
    }
  }
}

void DecodeChunkOf(const DecodeProblem& p, const DecodeTask& task, const DecodePartial& partial) {
  const int64_t per_group = p.per_group();
  const int64_t first = (task.sequence * p.heads + task.group * per_group) * p.q.stride;
  if (p.q.dtype == DType::kF32) {
    return DecodeChunk<float, DotStep<float, float>>(p, task, p.q.as<float>() + first, p.q.stride, partial);
  }
  const BF16* q = p.q.as<BF16>() + first;
  if (p.dots == BF16Dots::kNative) return DecodeChunk<BF16, NativeDotStep>(p, task, q, p.q.stride, partial);
  const int64_t stride = EvenOddSize(p.d);
  std::vector<float> wide(per_group * stride);  // once for all keys
  for (int64_t r = 0; r < per_group; ++r) WidenEvenOdd(q + r * p.q.stride, p.d, wide.data() + r * stride);
  DecodeChunk<BF16, EvenOddStep>(p, task, wide.data(), stride, partial);
}

// One head of one sequence from its `count` chunks, in order; chunk i lies i * distance (of heads) further
// on.
void MergeHead(const DecodePartial& first, int64_t count, int64_t distance, const DecodeProblem& p,
               TensorView o, int64_t row) {
  float max = first.max[0];
  for (int64_t i = 1; i < count; ++i) max = std::max(max, first.max[i * distance]);
  float sum = 0;
  for (int64_t i = 0; i < count; ++i)
    sum += first.sum[i * distance] * std::exp((first.max[i * distance] - max) * p.scale);
  const auto merged = [&](int64_t c, auto part) HWY_ATTR {
    VF out = Set(0);
    for (int64_t i = 0; i < count; ++i) {
      const float weight = count == 1 ? 1.0f : std::exp((first.max[i * distance] - max) * p.scale);
      out = hn::MulAdd(Load(first.out + i * distance * p.dv + c, part), Set(weight), out);
    }
    return hn::Mul(out, Set(1 / sum));
  };
  if (o.dtype == DType::kF32) {
    float* to = static_cast<float*>(o.data) + row * o.stride;
    Sweep(p.dv, [&](int64_t c, auto part) HWY_ATTR { Store(merged(c, part), to + c, part); });
  } else {
    BF16* to = static_cast<BF16*>(o.data) + row * o.stride;
    Sweep(p.dv, [&](int64_t c, auto part) HWY_ATTR { Store(merged(c, part), to + c, part); });
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace moebius
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace moebius {

HWY_EXPORT(DecodeChunkOf);
HWY_EXPORT(MergeHead);

void CpuBackend::DecodeAttention(Stream&, const DecodeAttentionArgs& args) {
  if (batch_invariant_) return DecodeAsAttention(args);
  const DecodeProblem problem(args);
  const int64_t batch = args.q.shape[0];
  const int64_t per_group = problem.per_group();
  const int32_t* lengths = args.lengths.as<int32_t>();
  const int64_t chunk = problem.chunk();
  std::vector<DecodeTask> tasks;  // by sequence, chunk, group: a sequence's heads lie together
  std::vector<int64_t> first_task(batch);
  for (int64_t b = 0; b < batch; ++b) {
    CHECK(lengths[b] >= 1 && lengths[b] <= problem.capacity)
        << "sequence " << b << " has " << lengths[b] << " cached tokens of " << problem.capacity;
    first_task[b] = static_cast<int64_t>(tasks.size());
    for (int64_t begin = 0; begin < lengths[b]; begin += chunk) {
      const int64_t end = std::min<int64_t>(begin + chunk, lengths[b]);
      for (int64_t group = 0; group < problem.groups; ++group) tasks.push_back({b, group, begin, end});
    }
  }
  const int64_t heads_in_all = static_cast<int64_t>(tasks.size()) * per_group;
  const Tensor memory(*this, DType::kF32, {heads_in_all * (problem.dv + 2)});
  float* base = memory.view().as<float>();
  const auto partial = [&](int64_t head) {
    return DecodePartial{base + head * problem.dv, base + heads_in_all * problem.dv + head,
                         base + heads_in_all * (problem.dv + 1) + head};
  };
  const auto chunk_of = HWY_DYNAMIC_DISPATCH(DecodeChunkOf);
  pool_.Run(static_cast<int64_t>(tasks.size()),
            [&](int64_t i, int) { chunk_of(problem, tasks[i], partial(i * per_group)); });
  const auto merge = HWY_DYNAMIC_DISPATCH(MergeHead);
  pool_.Run(batch, [&](int64_t b, int) {
    const int64_t chunks = (lengths[b] + chunk - 1) / chunk;
    for (int64_t head = 0; head < problem.heads; ++head) {
      merge(partial(first_task[b] * per_group + head), chunks, problem.heads, problem, args.o,
            b * problem.heads + head);
    }
  });
}

}  // namespace moebius
#endif  // HWY_ONCE
