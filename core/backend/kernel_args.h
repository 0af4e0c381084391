// The arguments of every kernel of the backend seam: shapes, dtypes and meaning.
//
// Legend: T tokens (rows of a microbatch, sequences laid one after another), H query heads, G key/value
// heads, E experts, K experts a token, R routed rows (T * K), V vocabulary, I intermediate width. "act" is
// the compute dtype of the run: fp32 or bf16, the same for all act operands of one call.
// `=` means the result overwrites, `+=` that it accumulates.
#pragma once

#include <cstdint>
#include <limits>
#include <span>

#include "core/tensor/tensor.h"

namespace moebius {

enum class Transpose { kNo, kYes };

// How the operands of a product are rounded before it. kFp8 is DeepSeek-V3's recipe (its report, §3.3;
// deepseek.md 2.3): E4M3 with an fp32 scale, the largest |x| / 448, for each
//   1 x 128 tile of an activation (x, dy), along the terms of the sum (a gradient of weights: along the rows
//   of its group, from the group's first row), and each 128 x 128 block of a weight [out, in];
// the last ones of a row or matrix may be shorter. An all-zero tile has scale 1. Sums are fp32: a tensor
// core's own are added to fp32 ones every 128 terms.
enum class Rounding { kNone, kFp8 };

// An activation x [R, n] rounded as kFp8 says, once for all its products, where Backend::RoundedBytes asks
// for that. What the bytes mean is the backend's affair.
struct RoundedCopies {
  TensorView rows = {};     // u8: tiles of 1 x 128, for products whose terms lie along the rows of x
  TensorView columns = {};  // u8: tiles of 128 x 1, for gradients of weights
};
enum class RoundedBy { kRows, kColumns };
// to (whichever are given) = x rounded; of the rows of groups, where there are offsets.
struct RoundArgs {
  TensorView x;             // [R, n] act
  TensorView offsets = {};  // [groups + 1] i64; without them one group has all rows
  RoundedCopies to;
};

// c [m, n] (= or +=) op(a) [m, k] · op(b) [k, n] (+ bias [n] f32). a, b: act. c: f32 or act; += needs f32.
struct MatMulArgs {
  TensorView a;
  TensorView b;
  TensorView c;
  Transpose transpose_a = Transpose::kNo;
  Transpose transpose_b = Transpose::kNo;
  bool accumulate = false;
  TensorView bias = {};
  // kFp8: b is a weight, or with transpose_a an activation as a is.
  Rounding rounding = Rounding::kNone;
  // kFp8, of activations that have been rounded for this product. Theirs is then what is multiplied; a and b
  // say what shape that is, and may have no memory.
  TensorView rounded_a = {};
  TensorView rounded_b = {};
};

// One product a group; group g owns rows [offsets[g], offsets[g + 1]).
//   kForward:        y [R, out] act  =  x [R, in] act · w[g] [out, in]ᵀ act
//   kBackwardInput:  x [R, in] act   =  y [R, out] act · w[g] act
//   kBackwardWeight: w[g] f32       +=  yᵀ · x
enum class GroupedKind { kForward, kBackwardInput, kBackwardWeight };
struct GroupedMatMulArgs {
  GroupedKind kind;
  TensorView x;
  TensorView w;  // [groups, out, in]
  TensorView y;
  TensorView offsets;  // [groups + 1] i64
  Rounding rounding = Rounding::kNone;
  TensorView rounded_x = {};  // as rounded_a of MatMulArgs
  TensorView rounded_y = {};
};

// The weights of a product in 8 bits, which decoding may use (Decoder, DecoderOptions::int8). In each stretch
// of 32 terms of a row of x, and of a row of w (the last may be shorter), with a = max |v|
//   v ~ round(127 v / a) * a / 127, to even;
// sums of a stretch are exact integers, and those of a row's stretches are added in fp32, in order. A stretch
// with an element that is not finite makes NaN.
struct Int8Weight {
  Shape shape;        // [groups, out, in]
  TensorView packed;  // u8 [Backend::Int8Bytes(shape)], in a backend's own order
};
struct PackInt8Args {
  TensorView w;  // [groups, out, in] act
  Int8Weight to;
};
// y [R, out] = x [R, in] act · w[g]ᵀ (+ bias [out] f32), y: act or f32; group g owns rows [offsets[g],
// offsets[g + 1]), without offsets one group has all.
struct Int8MatMulArgs {
  TensorView x;
  Int8Weight w;
  TensorView y;
  TensorView offsets = {};  // [groups + 1] i64
  TensorView bias = {};     // of one group
};

// One product a head: c[t, h] = a[t, h] · w[h]ᵀ. What absorbed MLA does on both sides of its latent cache.
struct HeadMatMulArgs {
  TensorView a;  // [T, H, k] act
  TensorView w;  // [H, n, k] act
  TensorView c;  // = [T, H, n] act
};

// out [T, hidden] act = table [V, hidden] act at ids [T] i32.
struct EmbeddingArgs {
  TensorView table;
  TensorView ids;
  TensorView out;
};
// dtable [V, hidden] f32 += rows of dy [T, hidden] act, in token order for every row.
struct EmbeddingBackwardArgs {
  TensorView ids;
  TensorView dy;
  TensorView dtable;
};

// s = x (+ add); sum = s when given; y = s * rstd * gain with rstd = 1 / sqrt(mean(s²) + epsilon), all in
// fp32. Rows are the view's rows, so [T, H, d] normalises each head.
struct RmsNormArgs {
  TensorView x;         // [rows, n] act
  TensorView add = {};  // [rows, n] act
  TensorView sum = {};  // [rows, n] act, may be x
  TensorView gain;      // [n] f32
  TensorView y;         // [rows, n] act, may be x
  TensorView rstd;      // [rows] f32
  float epsilon;
};
// dx = residual (or 0) + gradient of the norm; dgain = (not +=) sum over rows of dy * x * rstd.
struct RmsNormBackwardArgs {
  TensorView x;              // [rows, n] act: the input that was normalised (`sum`)
  TensorView rstd;           // [rows] f32
  TensorView gain;           // [n] f32
  TensorView dy;             // [rows, n] act
  TensorView residual = {};  // [rows, n] act
  TensorView dx;             // [rows, n] act, may be dy or residual
  TensorView dgain;          // [n] f32
};

// Rotates x in place by the angle of its position; `inverse` rotates back (the backward).
// kInterleaved: pairs (2i, 2i + 1) (DeepSeek); kHalf: pairs (i, i + d/2) (Llama, Qwen).
enum class RopeStyle { kInterleaved, kHalf };
struct RopeArgs {
  TensorView x;          // [T, heads, d] act
  TensorView positions;  // [T] i32
  TensorView cos;        // [max positions, d / 2] f32
  TensorView sin;
  RopeStyle style;
  bool inverse = false;
};

// Causal softmax attention inside each sequence. A key is [k | k_shared]: k_shared (MLA's rotary key) is the
// same for all heads and follows k's columns; without it k holds the whole key. H % G == 0.
// Never holds a [tokens, tokens] matrix of a head at long sequences.
struct AttentionArgs {
  TensorView q;                              // [T, H, dk + dr] act
  TensorView k;                              // [T, G, dk] act
  TensorView k_shared = {};                  // [T, 1, dr] act
  TensorView v;                              // [T, G, dv] act
  std::span<const int32_t> sequence_starts;  // ascending, first 0, last T: host memory
  float scale;
  TensorView o;    // [T, H, dv] act
  TensorView lse;  // [H, T] f32: log of the sum of exponentials, what the backward needs
};
struct AttentionBackwardArgs {
  AttentionArgs forward;
  TensorView d_o;             // [T, H, dv] act
  TensorView dq;              // = [T, H, dk + dr] act
  TensorView dk;              // = [T, G, dk] act
  TensorView dk_shared = {};  // = [T, 1, dr] act, summed over heads
  TensorView dv;              // = [T, G, dv] act
};

// One new query a sequence against its cache. MLA's absorbed form is G = 1 with v the first columns of k.
struct DecodeAttentionArgs {
  TensorView q;        // [B, H, d] act
  TensorView k;        // [B, capacity, G * d] act, rows strided
  TensorView v;        // [B, capacity, G * dv] act, rows strided
  TensorView lengths;  // [B] i32: cached tokens to attend to, the new one included
  float scale;
  TensorView o;  // [B, H, dv] act
};

// h [rows, I] act = silu(gate) * up * row_weights; gate_up is [rows, 2 I]: gate then up.
struct SwiGluArgs {
  TensorView gate_up;
  TensorView row_weights = {};  // [rows] f32
  TensorView h;
  // With rounded_h.rows that is made instead, of what h would hold: h has no memory. Rounded copies need I to
  // be a multiple of 128.
  RoundedCopies rounded_h = {};
};
struct SwiGluBackwardArgs {
  TensorView gate_up;
  TensorView row_weights = {};
  TensorView dh;                  // [rows, I] act
  TensorView d_gate_up;           // = [rows, 2 I] act, may be gate_up
  TensorView d_row_weights = {};  // = [rows] f32, with row_weights
  TensorView h = {};  // = [rows, I] act: recomputed when given (the weight phase needs it), may be dh
  // With rounded_d_gate_up (both views) that is made instead of d_gate_up and d_row_weights of the rows of
  // groups, and rounded_h.columns instead of h: d_gate_up and h have no memory.
  TensorView offsets = {};  // [groups + 1] i64; without them one group has all rows
  RoundedCopies rounded_d_gate_up = {};
  RoundedCopies rounded_h = {};
};

// Scores and selection (deepseek.md 1.2). All fp32.
//   scores = sigmoid(logits) or softmax(logits)
//   selection by scores (+ bias); groups ranked by the sum of their two best (sigmoid) or their best
//   (softmax); weights = scores of the chosen, divided by their sum (+ 1e-20) if normalize, times scale.
// Ties take the lower index; chosen experts are ordered by falling selection score.
enum class Scoring { kSigmoid, kSoftmax };
struct RouterSpec {
  Scoring scoring = Scoring::kSigmoid;
  int64_t num_groups = 1;
  int64_t top_groups = 1;
  int64_t top_k = 1;
  bool normalize = true;
  float scale = 1;
};
// The largest router that a backend has kernels for.
struct RouterLimits {
  int64_t experts = std::numeric_limits<int64_t>::max();
  int64_t top_k = std::numeric_limits<int64_t>::max();
};
struct RouterArgs {
  RouterSpec spec;
  TensorView logits;     // [T, E] f32
  TensorView bias = {};  // [E] f32: for selection only
  // [T, K] i32: experts to take in place of the best, in this order; a row that begins below 0 takes the
  // best.
  TensorView given = {};
  TensorView scores;   // = [T, E] f32
  TensorView experts;  // = [T, K] i32
  TensorView weights;  // = [T, K] f32
};
// dlogits = gradient through weights, plus, per sequence s, the balance loss's
//   sum over its tokens of balance_coefficient[s, e] * d(scores_e / sum scores), plus z_coefficient *
//   d(lse²).
struct RouterBackwardArgs {
  RouterSpec spec;
  TensorView logits;                         // [T, E] f32
  TensorView scores;                         // [T, E] f32
  TensorView experts;                        // [T, K] i32
  TensorView dweights;                       // [T, K] f32
  TensorView balance_coefficients = {};      // [sequences, E] f32
  std::span<const int32_t> sequence_starts;  // with balance_coefficients
  float z_coefficient = 0;
  TensorView dlogits;  // = [T, E] f32
};
// Per sequence of length n: f_e = E / (K n) * count, P_e = mean over its tokens of scores_e / sum scores;
// loss = sum over e of f_e P_e. counted: the top K of the scores without bias and groups (V3's sequence-wise
// loss), or the experts really chosen (the classic auxiliary loss) when `experts` is given.
struct BalanceArgs {
  TensorView scores;        // [T, E] f32
  TensorView experts = {};  // [T, K] i32
  int64_t top_k;
  std::span<const int32_t> sequence_starts;
  TensorView f;       // = [sequences, E] f32
  TensorView losses;  // = [sequences] f32
};
// z [1] f32 = sum over tokens of logsumexp(logits)².
struct RouterZArgs {
  TensorView logits;
  TensorView z;
};

constexpr int32_t kNoRow = -1;

// Sorts the T * K choices by expert, stable in token order. With `others` only those of the experts
// [first, first + E): a choice of another expert becomes no row.
struct RouteSortArgs {
  TensorView experts;    // [T, K] i32
  TensorView offsets;    // = [E + 1] i64: rows of expert first + e are [offsets[e], offsets[e + 1])
  TensorView row_of;     // = [T, K] i32: the row that a choice became, or kNoRow
  TensorView choice_of;  // = [R] i32: the choice t * K + k that a row came from; R = T * K, with others any
                         // that has room for all rows, and 0 behind the last of them
  int32_t first = 0;
  bool others = false;
};
// out [n, hidden] = x [.., hidden] at index[i] / divisor (divisor K turns choices into tokens).
struct GatherRowsArgs {
  TensorView x;
  TensorView index;  // [n] i32
  int32_t divisor = 1;
  TensorView out;
};
// out [.., hidden] at index[i] = row i of x [n, hidden]; other rows stay. No index occurs twice.
struct ScatterRowsArgs {
  TensorView x;
  TensorView index;  // [n] i32
  TensorView out;
};
// out [T, hidden] act = add (or 0) + sum over k of rows [R, hidden] act at row_of[t, k], in k order, fp32
// sum.
struct CombineRowsArgs {
  TensorView rows;
  TensorView row_of;    // [T, K] i32, kNoRow where a token has fewer
  TensorView add = {};  // [T, hidden] act, may be out
  TensorView out;
};

// With p = softmax(inverse_temperature * logits), rows of targets < 0 counting for nothing:
//   losses = -ln p[target],   entropies = -sum of p ln p (nats),
//   dlogits = d/dlogits of sum over rows of (scale * weight * loss - entropy_scale * entropy)
struct CrossEntropyArgs {
  TensorView logits;   // [n, V] f32
  TensorView targets;  // [n] i32
  TensorView losses;   // = [n] f32
  float scale = 0;
  TensorView weights = {};  // [n] f32; empty: 1 each
  float inverse_temperature = 1;
  TensorView entropies = {};  // = [n] f32, where wanted
  float entropy_scale = 0;    // above 0 only with `entropies`
  TensorView dlogits = {};    // = [n, V] act, may be logits when act is fp32; empty: not wanted
};

// With p and q the softmaxes of inverse_temperature times a student's and a teacher's logits, rows of targets
// < 0 counting for nothing:
//   divergences = KL(q || p) = sum of q ln(q / p), or kReverse: KL(p || q) (nats),
//   agreements = 1 where the teacher's likeliest token (of equals the first) is one of the student's, else 0,
//   gradient = d/dlogits of sum over rows of scale * weight * divergence
enum class DivergenceKind { kForward, kReverse };
struct DivergenceArgs {
  DivergenceKind kind = DivergenceKind::kForward;
  TensorView logits;   // [n, V] f32
  TensorView teacher;  // [n, V] f32
  TensorView targets;  // [n] i32: only their signs count
  float scale = 0;
  TensorView weights = {};  // [n] f32; empty: 1 each
  float inverse_temperature = 1;
  TensorView divergences;    // = [n] f32
  TensorView agreements;     // = [n] f32
  TensorView gradient = {};  // = [n, V] f32, may be logits or teacher; empty: not wanted
};

// Draws a token from each of n rows of logits, in proportion to exp(logit * scale) over the whole vocabulary:
// draw.h says how, to the bit (logarithms but for their last one).
struct DrawTokensArgs {
  TensorView logits;                  // [B, V] f32
  TensorView rows;                    // [n] i32: of the logits; several may name the same
  TensorView scales;                  // [n] f32: 1 / temperature; negative: the best, of equals the lowest id
  TensorView uniforms;                // [n] f64 in [0, 1): random numbers
  TensorView tokens;                  // = [n] i32; -1: a logit is NaN or +infinity, or all are -infinity
  TensorView logprobs = {};           // = [n] f32: ln of the softmax of the logits
  TensorView sampling_logprobs = {};  // = [n] f32, with logprobs: ln of the probability drawn with
};

// y += alpha * x (any of f32/act on both sides; same shape).
struct AccumulateArgs {
  TensorView x;
  TensorView y;
  float alpha = 1;
};

// AdamW (Loshchilov and Hutter) on one flat tensor: g = grad * grad_scale; m, v updated; bias-corrected;
// w -= lr * (m̂ / (sqrt(v̂) + epsilon) + weight_decay * w); weight (act copy) = w; grad = 0 afterwards;
// ema = decay * ema + (1 - decay) * w when given.
struct AdamWArgs {
  TensorView master;       // [n] f32
  TensorView m;            // [n] f32 or bf16
  TensorView v;            // [n] f32 or bf16
  TensorView grad;         // [n] f32
  TensorView weight = {};  // [n] bf16
  TensorView ema = {};     // [n] f32
  float grad_scale = 1;
  float lr;
  float beta1;
  float beta2;
  float epsilon;
  float weight_decay;
  int64_t step;  // 1 for the first update
  float ema_decay = 0;
};

}  // namespace moebius
