#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "core/backend/cpu/cpu_backend.h"
#include "core/backend/cpu/pieces.h"
#include "core/backend/cpu/top_k.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/backend/cpu/router.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
//
#include "core/backend/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace moebius {
namespace HWY_NAMESPACE {

HWY_INLINE float SumOf(const float* x, int64_t n) {
  VF sum = Set(0);
  Sweep(n, [&](int64_t i, auto part) HWY_ATTR { sum = hn::Add(sum, Load(x + i, part)); });
  return Sum(sum);
}
HWY_INLINE float DotOf(const float* x, const float* y, int64_t n) {
  VF sum = Set(0);
  Sweep(n,
        [&](int64_t i, auto part) HWY_ATTR { sum = hn::MulAdd(Load(x + i, part), Load(y + i, part), sum); });
  return Sum(sum);
}

// out = exp(x - max x); returns the sum, and the maximum through `max`.
HWY_INLINE float ExpOfRow(const float* x, int64_t n, float* out, float& max) {
  max = *std::max_element(x, x + n);
  const float shift = max;
  Sweep(n, [&](int64_t i, auto part)
               HWY_ATTR { Store(Exp(hn::Sub(Load(x + i, part), Set(shift))), out + i, part); });
  return SumOf(out, n);
}

void ScoreRow(Scoring scoring, const float* logits, int64_t n, float* scores) {
  if (scoring == Scoring::kSigmoid) {
    Sweep(n,
          [&](int64_t i, auto part) HWY_ATTR { Store(Sigmoid(Load(logits + i, part)), scores + i, part); });
    return;
  }
  float max;
  const float sum = ExpOfRow(logits, n, scores, max);
  Sweep(n, [&](int64_t i, auto part)
               HWY_ATTR { Store(hn::Div(Load(scores + i, part), Set(sum)), scores + i, part); });
}

// ds += the gradient of the weights with respect to the scores of the chosen experts.
inline void AddWeightGradient(const RouterSpec& spec, const float* scores, const int32_t* experts,
                              const float* dweights, float* ds) {
  if (!spec.normalize) {
    for (int64_t k = 0; k < spec.top_k; ++k) ds[experts[k]] += spec.scale * dweights[k];
    return;
  }
  // w_k = scale s_k / S: dL/ds_j = scale (dw_j - sum_k dw_k s_k / S) / S.
  float sum = 1e-20f, dot = 0;
  for (int64_t k = 0; k < spec.top_k; ++k) {
    sum += scores[experts[k]];
    dot += dweights[k] * scores[experts[k]];
  }
  for (int64_t k = 0; k < spec.top_k; ++k) ds[experts[k]] += spec.scale * (dweights[k] - dot / sum) / sum;
}

// One token. balance: [E] or null. ds: room for E values.
void BackwardRow(const RouterSpec& spec, int64_t n, const float* logits, const float* scores,
                 const int32_t* experts, const float* dweights, const float* balance, float z, float* ds,
                 float* dlogits) {
  if (balance == nullptr) {
    std::fill_n(ds, n, 0.0f);
  } else {
    // p_e = s_e / S: d(sum_e c_e p_e)/ds_i = (c_i - sum_e c_e p_e) / S.
    const float inverse = 1 / (SumOf(scores, n) + 1e-20f);
    const float mean = DotOf(balance, scores, n) * inverse;
    Sweep(n, [&](int64_t i, auto part) HWY_ATTR {
      Store(hn::Mul(hn::Sub(Load(balance + i, part), Set(mean)), Set(inverse)), ds + i, part);
    });
  }
  AddWeightGradient(spec, scores, experts, dweights, ds);
  if (spec.scoring == Scoring::kSigmoid) {
    Sweep(n, [&](int64_t i, auto part) HWY_ATTR {
      const VF s = Load(scores + i, part);
      Store(hn::Mul(Load(ds + i, part), hn::Mul(s, hn::Sub(Set(1), s))), dlogits + i, part);
    });
  } else {
    const float dot = DotOf(ds, scores, n);
    Sweep(n, [&](int64_t i, auto part) HWY_ATTR {
      Store(hn::Mul(Load(scores + i, part), hn::Sub(Load(ds + i, part), Set(dot))), dlogits + i, part);
    });
  }
  if (z != 0) {
    float max;
    const float sum = ExpOfRow(logits, n, ds, max);
    const float factor = 2 * z * (max + std::log(sum)) / sum;
    Sweep(n, [&](int64_t i, auto part) HWY_ATTR {
      Store(hn::MulAdd(Load(ds + i, part), Set(factor), Load(dlogits + i, part)), dlogits + i, part);
    });
  }
}

// shares += scores / (their sum).
void AddShares(const float* scores, int64_t n, float* shares) {
  const float inverse = 1 / (SumOf(scores, n) + 1e-20f);
  Sweep(n, [&](int64_t i, auto part) HWY_ATTR {
    Store(hn::MulAdd(Load(scores + i, part), Set(inverse), Load(shares + i, part)), shares + i, part);
  });
}

double SquaredLogSumExp(const float* logits, int64_t n, float* room) {
  float max;
  const float sum = ExpOfRow(logits, n, room, max);
  const double lse = static_cast<double>(max) + std::log(static_cast<double>(sum));
  return lse * lse;
}

}  // namespace HWY_NAMESPACE
}  // namespace moebius
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace moebius {

HWY_EXPORT(ScoreRow);
HWY_EXPORT(BackwardRow);
HWY_EXPORT(AddShares);
HWY_EXPORT(SquaredLogSumExp);

namespace {

constexpr int64_t kTokensATask = 64;
constexpr int64_t kSelectCost = 16;  // of an expert's score, in elements of elementwise work

int64_t NumTasks(int64_t tokens) { return (tokens + kTokensATask - 1) / kTokensATask; }

// Room for one token's selection, made once a task.
struct Selection {
  explicit Selection(const RouterSpec& spec, int64_t experts)
      : biased(experts),
        group_scores(spec.num_groups),
        groups(spec.top_groups),
        kept(std::max(spec.top_k, spec.top_groups)) {}
  std::vector<float> biased, group_scores;
  std::vector<int32_t> groups;
  std::vector<float> kept;
};

float GroupScore(Scoring scoring, const float* scores, int64_t n) {
  float first = -std::numeric_limits<float>::infinity(), second = first;
  for (int64_t i = 0; i < n; ++i) {
    second = std::max(second, std::min(first, scores[i]));
    first = std::max(first, scores[i]);
  }
  return scoring == Scoring::kSoftmax || n == 1 ? first : first + second;
}

// experts [top_k]: the best.
void Select(const RouterSpec& spec, const float* scores, const float* bias, int64_t n, Selection& s,
            int32_t* experts) {
  const float* ranked = scores;
  if (bias != nullptr || spec.top_groups < spec.num_groups) {
    for (int64_t e = 0; e < n; ++e) s.biased[e] = bias == nullptr ? scores[e] : scores[e] + bias[e];
    ranked = s.biased.data();
  }
  if (spec.top_groups < spec.num_groups) {
    const int64_t size = n / spec.num_groups;
    for (int64_t g = 0; g < spec.num_groups; ++g) {
      s.group_scores[g] = GroupScore(spec.scoring, ranked + g * size, size);
    }
    TopK(s.group_scores.data(), spec.num_groups, spec.top_groups, s.groups.data(), s.kept.data());
    std::sort(s.groups.begin(), s.groups.end());
    for (int64_t g = 0, next = 0; g < spec.num_groups; ++g) {
      if (next < spec.top_groups && s.groups[next] == g) {
        ++next;
        continue;
      }
      // Minus infinity, not 0: biased scores may be negative.
      std::fill_n(s.biased.begin() + g * size, size, -std::numeric_limits<float>::infinity());
    }
  }
  TopK(ranked, n, spec.top_k, experts, s.kept.data());
}

void Weigh(const RouterSpec& spec, const float* scores, const int32_t* experts, float* weights) {
  float sum = 1e-20f;
  for (int64_t k = 0; k < spec.top_k; ++k) sum += scores[experts[k]];
  for (int64_t k = 0; k < spec.top_k; ++k) {
    weights[k] = (spec.normalize ? scores[experts[k]] / sum : scores[experts[k]]) * spec.scale;
  }
}

template <typename T>
T* Row(const TensorView& view, int64_t row) {
  return static_cast<T*>(view.data) + row * view.stride;
}

// (sequence, its tokens [begin, end)) pieces of at most kTokensATask.
struct Piece {
  int64_t sequence, begin, end;
};
std::vector<Piece> CutSequences(std::span<const int32_t> starts) {
  std::vector<Piece> pieces;
  for (size_t s = 0; s + 1 < starts.size(); ++s) {
    for (int64_t begin = starts[s]; begin < starts[s + 1]; begin += kTokensATask) {
      pieces.push_back(
          {static_cast<int64_t>(s), begin, std::min<int64_t>(begin + kTokensATask, starts[s + 1])});
    }
  }
  return pieces;
}

}  // namespace

void CpuBackend::Router(Stream&, const RouterArgs& args) {
  const int64_t tokens = args.logits.rows(), experts = args.logits.cols();
  const float* bias = args.bias ? args.bias.as<float>() : nullptr;
  const auto score = HWY_DYNAMIC_DISPATCH(ScoreRow);
  ForRowRanges(pool_, tokens, kSelectCost * experts, [&](int64_t begin, int64_t end, int) {
    Selection selection(args.spec, experts);
    for (int64_t t = begin; t < end; ++t) {
      float* scores = Row<float>(args.scores, t);
      score(args.spec.scoring, Row<float>(args.logits, t), experts, scores);
      int32_t* chosen = Row<int32_t>(args.experts, t);
      const int32_t* given = args.given ? Row<int32_t>(args.given, t) : nullptr;
      if (given != nullptr && given[0] >= 0) {
        std::copy_n(given, args.spec.top_k, chosen);
      } else {
        Select(args.spec, scores, bias, experts, selection, chosen);
      }
      Weigh(args.spec, scores, chosen, Row<float>(args.weights, t));
    }
  });
}

void CpuBackend::RouterBackward(Stream&, const RouterBackwardArgs& args) {
  const int64_t tokens = args.logits.rows(), experts = args.logits.cols();
  const auto backward = HWY_DYNAMIC_DISPATCH(BackwardRow);
  std::vector<int32_t> whole = {0, static_cast<int32_t>(tokens)};
  const bool balance = static_cast<bool>(args.balance_coefficients);
  const std::vector<Piece> pieces =
      CutSequences(balance ? args.sequence_starts : std::span<const int32_t>(whole));
  pool_.Run(static_cast<int64_t>(pieces.size()), [&](int64_t task, int) {
    const Piece& piece = pieces[task];
    std::vector<float> room(experts);
    for (int64_t t = piece.begin; t < piece.end; ++t) {
      backward(args.spec, experts, Row<float>(args.logits, t), Row<float>(args.scores, t),
               Row<int32_t>(args.experts, t), Row<float>(args.dweights, t),
               balance ? Row<float>(args.balance_coefficients, piece.sequence) : nullptr, args.z_coefficient,
               room.data(), Row<float>(args.dlogits, t));
    }
  });
}

void CpuBackend::Balance(Stream&, const BalanceArgs& args) {
  const int64_t experts = args.scores.cols();
  const std::vector<Piece> pieces = CutSequences(args.sequence_starts);
  std::vector<float> shares(pieces.size() * experts, 0.0f);
  std::vector<int32_t> counts(pieces.size() * experts, 0);
  const auto add_shares = HWY_DYNAMIC_DISPATCH(AddShares);
  pool_.Run(static_cast<int64_t>(pieces.size()), [&](int64_t task, int) {
    std::vector<int32_t> chosen(args.top_k);
    std::vector<float> kept(args.top_k);
    for (int64_t t = pieces[task].begin; t < pieces[task].end; ++t) {
      const float* scores = Row<float>(args.scores, t);
      add_shares(scores, experts, &shares[task * experts]);
      const int32_t* counted = chosen.data();
      if (args.experts) {
        counted = Row<int32_t>(args.experts, t);
      } else {
        TopK(scores, experts, args.top_k, chosen.data(), kept.data());
      }
      for (int64_t k = 0; k < args.top_k; ++k) ++counts[task * experts + counted[k]];
    }
  });

  const int64_t sequences = static_cast<int64_t>(args.sequence_starts.size()) - 1;
  size_t piece = 0;
  for (int64_t s = 0; s < sequences; ++s) {
    const int64_t n = args.sequence_starts[s + 1] - args.sequence_starts[s];
    const size_t first = piece;
    while (piece < pieces.size() && pieces[piece].sequence == s) ++piece;
    float* f = Row<float>(args.f, s);
    double loss = 0;
    for (int64_t e = 0; e < experts; ++e) {
      int64_t count = 0;
      double share = 0;
      for (size_t i = first; i < piece; ++i) {
        count += counts[i * experts + e];
        share += shares[i * experts + e];
      }
      f[e] = n == 0 ? 0
                    : static_cast<float>(static_cast<double>(experts) * count /
                                         (static_cast<double>(args.top_k) * n));
      loss += n == 0 ? 0 : f[e] * share / n;
    }
    args.losses.as<float>()[s] = static_cast<float>(loss);
  }
}

void CpuBackend::RouterZ(Stream&, const RouterZArgs& args) {
  const int64_t tokens = args.logits.rows(), experts = args.logits.cols();
  std::vector<double> sums(NumTasks(tokens), 0.0);
  const auto square = HWY_DYNAMIC_DISPATCH(SquaredLogSumExp);
  pool_.Run(NumTasks(tokens), [&](int64_t task, int) {
    std::vector<float> room(experts);
    for (int64_t t = task * kTokensATask; t < std::min(tokens, (task + 1) * kTokensATask); ++t) {
      sums[task] += square(Row<float>(args.logits, t), experts, room.data());
    }
  });
  double sum = 0;
  for (const double part : sums) sum += part;
  *args.z.as<float>() = static_cast<float>(sum);
}

}  // namespace moebius
#endif  // HWY_ONCE
