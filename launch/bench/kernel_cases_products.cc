#include <memory>

#include "core/backend/ops.h"
#include "core/base/strings.h"
#include "launch/bench/kernel_cases.h"

namespace moebius {
namespace {

const char* Suffix(Rounding rounding) { return rounding == Rounding::kFp8 ? " FP8" : ""; }

KernelCase DenseProduct(const char* kernel, DType act, int64_t m, int64_t n, int64_t k, Transpose a,
                        Transpose b, Rounding rounding = Rounding::kNone) {
  using enum DType;
  const bool ta = a == Transpose::kYes, tb = b == Transpose::kYes;
  return {Concat(kernel, Suffix(rounding)), Concat(Word(act), " ", m, " x ", n, " x ", k),
          [=](KernelInputs& in) -> KernelCall {
            const MatMulArgs args{.a = in.Random(act, ta ? Shape{k, m} : Shape{m, k}),
                                  .b = in.Random(act, tb ? Shape{n, k} : Shape{k, n}),
                                  .c = in.New(ta ? kF32 : act, {m, n}),  // a weight's gradient is fp32
                                  .transpose_a = a,
                                  .transpose_b = b,
                                  .rounding = rounding};
            return [=](const Context& c) { MatMul(c, args); };
          }};
}

KernelCase GroupedProduct(GroupedKind kind, const char* name, int64_t groups, int64_t rows, int64_t out,
                          int64_t in_width, Rounding rounding = Rounding::kNone) {
  using enum DType;
  return {Concat(rounding == Rounding::kFp8 ? "Grouped " : "GroupedMatMul ", name, Suffix(rounding)),
          Concat("bf16 ", groups, " x about ", rows, " x ", out, " x ", in_width),
          [=](KernelInputs& in) -> KernelCall {
            const DType w = kind == GroupedKind::kBackwardWeight ? kF32 : kBF16;
            const GroupedMatMulArgs args{.kind = kind,
                                         .x = in.Random(kBF16, {groups * rows, in_width}),
                                         .w = in.Random(w, {groups, out, in_width}),
                                         .y = in.Random(kBF16, {groups * rows, out}),
                                         .offsets = in.Offsets(groups, rows),
                                         .rounding = rounding};
            return [=](const Context& c) { GroupedMatMul(c, args); };
          }};
}

// What an attention call reads and writes, and the starts of its sequences.
struct AttentionTensors {
  AttentionArgs forward;
  AttentionBackwardArgs backward;
  std::vector<int32_t> starts;
};

// Whole sequences of `length`; with a shared key of `shared` columns as MLA's heads have it: k and v are the
// columns of one tensor.
std::shared_ptr<const AttentionTensors> NewAttention(KernelInputs& in, const KernelSizes& s, int64_t groups,
                                                     int64_t dk, int64_t shared, int64_t dv) {
  using enum DType;
  auto t = std::make_shared<AttentionTensors>();
  for (int64_t at = 0; at <= s.tokens; at += s.length) t->starts.push_back(static_cast<int32_t>(at));
  const TensorView kv = in.Random(kBF16, {s.tokens, groups, dk + dv});
  const TensorView d_kv = in.New(kBF16, {s.tokens, groups, dk + dv});
  AttentionArgs& f = t->forward;
  f = {.q = in.Random(kBF16, {s.tokens, s.heads, dk + shared}),
       .k = kv.Columns(0, dk),
       .v = kv.Columns(dk, dv),
       .sequence_starts = t->starts,
       .scale = 0.07f,
       .o = in.New(kBF16, {s.tokens, s.heads, dv}),
       .lse = in.New(kF32, {s.heads, s.tokens})};
  if (shared > 0) f.k_shared = in.Random(kBF16, {s.tokens, 1, shared});
  Attention(in.context(), f);
  t->backward = {.forward = f,
                 .d_o = in.Random(kBF16, f.o.shape),
                 .dq = in.New(kBF16, f.q.shape),
                 .dk = d_kv.Columns(0, dk),
                 .dv = d_kv.Columns(dk, dv)};
  if (shared > 0) t->backward.dk_shared = in.New(kBF16, f.k_shared.shape);
  return t;
}

}  // namespace

std::vector<KernelCase> ProductCases(const KernelSizes& s) {
  using enum DType;
  std::vector<KernelCase> cases;
  const int64_t n = s.tokens, hidden = s.hidden[0], width = s.width, heads = s.heads, batch = s.batch;
  for (const DType act : {kF32, kBF16}) {
    cases.push_back(DenseProduct("MatMul NT", act, n, 8 * width, hidden, Transpose::kNo, Transpose::kYes));
    cases.push_back(DenseProduct("MatMul NN", act, n, hidden, 8 * width, Transpose::kNo, Transpose::kNo));
    cases.push_back(DenseProduct("MatMul TN", act, 8 * width, hidden, n, Transpose::kYes, Transpose::kNo));
  }
  // Rounding of the operands is a part of these.
  const Rounding fp8 = Rounding::kFp8;
  cases.push_back(
      DenseProduct("MatMul NT", kBF16, n, 8 * width, hidden, Transpose::kNo, Transpose::kYes, fp8));
  cases.push_back(
      DenseProduct("MatMul NN", kBF16, n, hidden, 8 * width, Transpose::kNo, Transpose::kNo, fp8));
  cases.push_back(
      DenseProduct("MatMul TN", kBF16, 8 * width, hidden, n, Transpose::kYes, Transpose::kNo, fp8));
  cases.push_back({"HeadMatMul", Concat("bf16 ", batch, " x ", heads, " x 512 x 128"),
                   [=](KernelInputs& in) -> KernelCall {
                     const HeadMatMulArgs args{.a = in.Random(kBF16, {batch, heads, 128}),
                                               .w = in.Random(kBF16, {heads, 512, 128}),
                                               .c = in.New(kBF16, {batch, heads, 512})};
                     return [=](const Context& c) { HeadMatMul(c, args); };
                   }});
  for (const int64_t groups : s.groups) {
    for (const int64_t rows : s.group_rows) {
      cases.push_back(GroupedProduct(GroupedKind::kForward, "forward", groups, rows, 2 * width, hidden));
      cases.push_back(GroupedProduct(GroupedKind::kBackwardInput, "input", groups, rows, 2 * width, hidden));
      cases.push_back(
          GroupedProduct(GroupedKind::kBackwardWeight, "weight", groups, rows, 2 * width, hidden));
      cases.push_back(GroupedProduct(GroupedKind::kForward, "forward", groups, rows, 2 * width, hidden, fp8));
      cases.push_back(
          GroupedProduct(GroupedKind::kBackwardInput, "input", groups, rows, 2 * width, hidden, fp8));
      cases.push_back(
          GroupedProduct(GroupedKind::kBackwardWeight, "weight", groups, rows, 2 * width, hidden, fp8));
    }
  }
  const auto attention = [&](const std::string& what, int64_t groups, int64_t dk, int64_t shared,
                             int64_t dv) {
    cases.push_back({"Attention", what, [=](KernelInputs& in) -> KernelCall {
                       return [t = NewAttention(in, s, groups, dk, shared, dv)](const Context& c) {
                         Attention(c, t->forward);
                       };
                     }});
    cases.push_back({"AttentionBackward", what, [=](KernelInputs& in) -> KernelCall {
                       return [t = NewAttention(in, s, groups, dk, shared, dv)](const Context& c) {
                         AttentionBackward(c, t->backward);
                       };
                     }});
  };
  const std::string sequences = Concat(n / s.length, " x ", s.length, " x ", heads, " heads of ");
  attention(Concat("bf16 ", sequences, "192/128"), heads, 128, 64, 128);
  attention(Concat("bf16 ", sequences, "128, 4 for keys"), 4, 128, 0, 128);
  cases.push_back({"DecodeAttention",
                   Concat("bf16 ", batch, " x ", s.length, ", ", heads, " heads of 576/512"),
                   [=](KernelInputs& in) -> KernelCall {
                     const TensorView k = in.Random(kBF16, {batch, s.length, 576});
                     const DecodeAttentionArgs args{
                         .q = in.Random(kBF16, {batch, heads, 576}),
                         .k = k,
                         .v = k.Columns(0, 512),
                         .lengths = in.Integers(std::vector<int32_t>(batch, static_cast<int32_t>(s.length))),
                         .scale = 0.07f,
                         .o = in.New(kBF16, {batch, heads, 512})};
                     return [=](const Context& c) { DecodeAttention(c, args); };
                   }});
  return cases;
}

}  // namespace moebius
