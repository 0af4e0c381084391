// Checked entry points: attention and the loss.
#include <vector>

#include "core/backend/ops.h"
#include "core/backend/ops_checks.h"

namespace moebius {

using ops::Bytes;
using ops::CheckFlat;
using ops::CheckMatrix;
using ops::CheckSequences;
using ops::CheckShape;
using ops::IsAct;
using ops::Run;

namespace {

struct AttentionSizes {
  int64_t tokens, heads, groups, dk, dr, dv;
};

AttentionSizes CheckAttention(const AttentionArgs& args) {
  CHECK(args.q.shape.rank() == 3 && args.k.shape.rank() == 3 && args.v.shape.rank() == 3)
      << "q is " << args.q << ", k is " << args.k << ", v is " << args.v;
  const DType act = args.q.dtype;
  CHECK(IsAct(act)) << "q is " << args.q;
  const AttentionSizes s{.tokens = args.q.shape[0],
                         .heads = args.q.shape[1],
                         .groups = args.k.shape[1],
                         .dk = args.k.shape[2],
                         .dr = args.k_shared ? args.k_shared.cols() : 0,
                         .dv = args.v.shape[2]};
  CHECK(s.groups > 0 && s.heads % s.groups == 0) << s.heads << " heads over " << s.groups << " key heads";
  CheckShape(args.q, "q", act, {s.tokens, s.heads, s.dk + s.dr});
  CheckShape(args.k, "k", act, {s.tokens, s.groups, s.dk});
  if (args.k_shared) CheckShape(args.k_shared, "k_shared", act, {s.tokens, 1, s.dr});
  CheckShape(args.v, "v", act, {s.tokens, s.groups, s.dv});
  CheckShape(args.o, "o", act, {s.tokens, s.heads, s.dv});
  CheckFlat(args.lse, "lse", DType::kF32, s.heads * s.tokens);
  CheckSequences(args.sequence_starts, s.tokens);
  return s;
}

// (query, key) pairs of all heads under the causal mask.
double Pairs(const AttentionArgs& args, int64_t heads) {
  double pairs = 0;
  for (size_t i = 1; i < args.sequence_starts.size(); ++i) {
    const double n = args.sequence_starts[i] - args.sequence_starts[i - 1];
    pairs += n * (n + 1) / 2;
  }
  return pairs * heads;
}

}  // namespace

void Attention(const Context& context, const AttentionArgs& args) {
  const AttentionSizes s = CheckAttention(args);
  Run(context, "Attention", 2 * Pairs(args, s.heads) * (s.dk + s.dr + s.dv),
      Bytes(args.q, args.k, args.k_shared, args.v, args.o, args.lse),
      [&] { context.backend.Attention(context.stream, args); });
}

void AttentionBackward(const Context& context, const AttentionBackwardArgs& args) {
  const AttentionArgs& f = args.forward;
  const AttentionSizes s = CheckAttention(f);
  const DType act = f.q.dtype;
  CheckShape(args.d_o, "d_o", act, f.o.shape);
  CheckShape(args.dq, "dq", act, f.q.shape);
  CheckShape(args.dk, "dk", act, f.k.shape);
  CHECK(static_cast<bool>(f.k_shared) == static_cast<bool>(args.dk_shared))
      << "k_shared and dk_shared go together";
  if (args.dk_shared) CheckShape(args.dk_shared, "dk_shared", act, f.k_shared.shape);
  CheckShape(args.dv, "dv", act, f.v.shape);
  Run(context, "AttentionBackward", 2 * Pairs(f, s.heads) * (3 * (s.dk + s.dr) + 2 * s.dv),
      Bytes(f.q, f.k, f.k_shared, f.v, f.o, f.lse, args.d_o, args.dq, args.dk, args.dk_shared, args.dv),
      [&] { context.backend.AttentionBackward(context.stream, args); });
}

void DecodeAttention(const Context& context, const DecodeAttentionArgs& args) {
  CHECK(args.q.shape.rank() == 3 && args.k.shape.rank() == 3 && args.v.shape.rank() == 3)
      << "q is " << args.q << ", k is " << args.k << ", v is " << args.v;
  const DType act = args.q.dtype;
  CHECK(IsAct(act)) << "q is " << args.q;
  const int64_t batch = args.q.shape[0], heads = args.q.shape[1], d = args.q.shape[2];
  const int64_t dv = args.o.cols();
  CheckShape(args.q, "q", act, {batch, heads, d});
  CheckShape(args.o, "o", act, {batch, heads, dv});
  CHECK(d > 0 && dv > 0 && args.k.cols() % d == 0) << "k is " << args.k << ", q is " << args.q;
  const int64_t groups = args.k.cols() / d;
  CHECK(groups > 0 && heads % groups == 0) << heads << " heads over " << groups << " key heads";
  CheckShape(args.k, "k", act, {batch, args.k.shape[1], groups * d});
  CheckShape(args.v, "v", act, {batch, args.k.shape[1], groups * dv});
  CheckFlat(args.lengths, "lengths", DType::kI32, batch);
  double cached = 0;  // tokens over all sequences; only the profile wants to know
  if (context.profile != nullptr) {
    std::vector<int32_t> lengths(batch);
    context.backend.CopyToHost(context.stream, args.lengths, lengths.data());
    context.stream.Synchronize();
    for (const int32_t length : lengths) cached += length;
  }
  Run(context, "DecodeAttention", 2 * cached * heads * (d + dv),
      Bytes(args.q, args.o) + cached * groups * (d + dv) * SizeOf(act),
      [&] { context.backend.DecodeAttention(context.stream, args); });
}

void CrossEntropy(const Context& context, const CrossEntropyArgs& args) {
  const int64_t n = args.logits.rows(), vocab = args.logits.cols();
  CheckMatrix(args.logits, "logits", DType::kF32, n, vocab);
  CheckFlat(args.targets, "targets", DType::kI32, n);
  CheckFlat(args.losses, "losses", DType::kF32, n);
  if (args.weights) CheckFlat(args.weights, "weights", DType::kF32, n);
  if (args.entropies) CheckFlat(args.entropies, "entropies", DType::kF32, n);
  CHECK_GT(args.inverse_temperature, 0);
  CHECK(args.entropy_scale == 0 || args.entropies) << "an entropy term needs the entropies";
  if (args.dlogits) {
    CHECK(IsAct(args.dlogits.dtype)) << "dlogits is " << args.dlogits;
    CheckMatrix(args.dlogits, "dlogits", args.dlogits.dtype, n, vocab);
  }
  Run(context, "CrossEntropy", 5.0 * n * vocab, Bytes(args.logits, args.dlogits),
      [&] { context.backend.CrossEntropy(context.stream, args); });
}

void Divergence(const Context& context, const DivergenceArgs& args) {
  const int64_t n = args.logits.rows(), vocab = args.logits.cols();
  CheckMatrix(args.logits, "logits", DType::kF32, n, vocab);
  CheckMatrix(args.teacher, "teacher", DType::kF32, n, vocab);
  CheckFlat(args.targets, "targets", DType::kI32, n);
  if (args.weights) CheckFlat(args.weights, "weights", DType::kF32, n);
  CheckFlat(args.divergences, "divergences", DType::kF32, n);
  CheckFlat(args.agreements, "agreements", DType::kF32, n);
  CHECK_GT(args.inverse_temperature, 0);
  if (args.gradient) CheckMatrix(args.gradient, "gradient", DType::kF32, n, vocab);
  Run(context, "Divergence", 12.0 * n * vocab, Bytes(args.logits, args.teacher, args.gradient),
      [&] { context.backend.Divergence(context.stream, args); });
}

void DrawTokens(const Context& context, const DrawTokensArgs& args) {
  const int64_t n = args.tokens.elements(), vocab = args.logits.cols();
  CHECK_GT(vocab, 0) << "logits are " << args.logits;
  CheckMatrix(args.logits, "logits", DType::kF32, args.logits.rows(), vocab);
  CheckFlat(args.rows, "rows", DType::kI32, n);
  CheckFlat(args.scales, "scales", DType::kF32, n);
  CheckFlat(args.uniforms, "uniforms", DType::kF64, n);
  CheckFlat(args.tokens, "tokens", DType::kI32, n);
  if (args.logprobs) {
    CheckFlat(args.logprobs, "logprobs", DType::kF32, n);
    CheckFlat(args.sampling_logprobs, "sampling_logprobs", DType::kF32, n);
  }
  Run(context, "DrawTokens", 25.0 * n * vocab, 4.0 * n * vocab,
      [&] { context.backend.DrawTokens(context.stream, args); });
}

}  // namespace moebius
