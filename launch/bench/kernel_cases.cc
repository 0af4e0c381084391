#include "launch/bench/kernel_cases.h"

#include <numeric>

#include "core/backend/ops.h"
#include "core/base/strings.h"

namespace moebius {

KernelSizes SizesOf(bool gpu) {
  if (gpu) {
    return {.tokens = 32768,
            .length = 4096,
            .heads = 16,
            .experts = 64,
            .top_k = 6,
            .width = 768,
            .batch = 64,
            .flat = int64_t{1} << 28,
            .hidden = {1536, 7168},
            .vocabularies = {32768, 129280},
            .groups = {8, 64},
            .group_rows = {32, 512, 4096}};
  }
  return {.tokens = 1024,
          .length = 512,
          .heads = 8,
          .experts = 32,
          .top_k = 4,
          .width = 256,
          .batch = 8,
          .flat = int64_t{1} << 23,
          .hidden = {512},
          .vocabularies = {8192},
          .groups = {8, 32},
          .group_rows = {32, 128}};
}

std::vector<KernelCase> FlatCases(const KernelSizes& s) {
  using enum DType;
  std::vector<KernelCase> cases;
  const auto add = [&](std::string kernel, std::string what, std::function<KernelCall(KernelInputs&)> make) {
    cases.push_back({std::move(kernel), std::move(what), std::move(make)});
  };
  const int64_t n = s.flat;
  add("Zero", Concat("fp32 ", n), [=](KernelInputs& in) -> KernelCall {
    return [x = in.New(kF32, {n})](const Context& c) { Zero(c, x); };
  });
  add("Fill", Concat("bf16 ", n), [=](KernelInputs& in) -> KernelCall {
    return [x = in.New(kBF16, {n})](const Context& c) { Fill(c, x, 0.3f); };
  });
  for (const auto& [from, to] : {std::pair(kF32, kF32), std::pair(kF32, kBF16), std::pair(kBF16, kF32)}) {
    add("Cast", Concat(Word(from), " to ", Word(to), " ", n),
        [=, from = from, to = to](KernelInputs& in) -> KernelCall {
          return [x = in.Random(from, {n}), y = in.New(to, {n})](const Context& c) { Cast(c, x, y); };
        });
  }
  for (const auto& [x_type, y_type] :
       {std::pair(kF32, kF32), std::pair(kBF16, kF32), std::pair(kBF16, kBF16)}) {
    add("Accumulate", Concat(Word(x_type), " into ", Word(y_type), " ", n),
        [=, x_type = x_type, y_type = y_type](KernelInputs& in) -> KernelCall {
          return [x = in.Random(x_type, {n}), y = in.Random(y_type, {n})](const Context& c) {
            Accumulate(c, {.x = x, .y = y, .alpha = 1e-3f});
          };
        });
  }
  const int64_t heads = s.tokens * s.heads;
  add("Accumulate", Concat("bf16 columns, ", heads, " x 64 of 192"), [=](KernelInputs& in) -> KernelCall {
    return [x = in.Random(kBF16, {heads, 192}).Columns(0, 64),
            y = in.Random(kBF16, {heads, 192}).Columns(128, 64)](const Context& c) {
      Accumulate(c, {.x = x, .y = y, .alpha = 1e-3f});
    };
  });
  for (const DType moments : {kF32, kBF16}) {
    add("AdamW", Concat(Word(moments), " moments ", n), [=](KernelInputs& in) -> KernelCall {
      const AdamWArgs args{.master = in.Random(kF32, {n}),
                           .m = in.Random(moments, {n}),
                           .v = in.Positive(moments, {n}),
                           .grad = in.Random(kF32, {n}),
                           .weight = in.New(kBF16, {n}),
                           .lr = 1e-4f,
                           .beta1 = 0.9f,
                           .beta2 = 0.95f,
                           .epsilon = 1e-8f,
                           .weight_decay = 0.1f,
                           .step = 100};
      return [=](const Context& c) { AdamW(c, args); };
    });
  }
  for (const int64_t count : {n, int64_t{4096}}) {
    add("SumSquares", Concat("fp32 ", count), [=](KernelInputs& in) -> KernelCall {
      return [x = in.Random(kF32, {count}), sum = in.New(kF64, {1})](const Context& c) {
        SumSquares(c, x, sum);
      };
    });
  }
  for (const int64_t v : s.vocabularies) {
    const int64_t n = s.flat / v;
    for (const bool in_place : {false, true}) {
      add("CrossEntropy", Concat(in_place ? "fp32 in place " : "bf16 ", n, " x ", v),
          [=](KernelInputs& in) -> KernelCall {
            const TensorView logits = in.Random(kF32, {n, v});
            const CrossEntropyArgs args{.logits = logits,
                                        .targets = in.Below(v, {n}),
                                        .losses = in.New(kF32, {n}),
                                        .scale = 1.0f / n,
                                        .dlogits = in_place ? logits : in.New(kBF16, {n, v})};
            return [=](const Context& c) { CrossEntropy(c, args); };
          });
    }
    add("CrossEntropy", Concat("with entropies ", n, " x ", v), [=](KernelInputs& in) -> KernelCall {
      const TensorView logits = in.Random(kF32, {n, v});
      const CrossEntropyArgs args{.logits = logits,
                                  .targets = in.Below(v, {n}),
                                  .losses = in.New(kF32, {n}),
                                  .scale = 1.0f / n,
                                  .weights = in.Positive(kF32, {n}),
                                  .entropies = in.New(kF32, {n}),
                                  .entropy_scale = 0.01f / n,
                                  .dlogits = logits};
      return [=](const Context& c) { CrossEntropy(c, args); };
    });
    add("Divergence", Concat("fp32 in place ", n, " x ", v), [=](KernelInputs& in) -> KernelCall {
      const TensorView logits = in.Random(kF32, {n, v});
      const DivergenceArgs args{.logits = logits,
                                .teacher = in.Random(kF32, {n, v}),
                                .targets = in.Below(v, {n}),
                                .scale = 1.0f / n,
                                .divergences = in.New(kF32, {n}),
                                .agreements = in.New(kF32, {n}),
                                .gradient = logits};
      return [=](const Context& c) { Divergence(c, args); };
    });
    add("DrawTokens", Concat("fp32 ", s.batch, " x ", v),
        [=, batch = s.batch](KernelInputs& in) -> KernelCall {
          std::vector<int32_t> rows(batch);
          std::iota(rows.begin(), rows.end(), 0);
          const TensorView uniforms = in.New(kF64, {batch});
          const std::vector<double> halves(batch, 0.5);
          in.context().backend.CopyToDevice(in.context().stream, halves.data(), uniforms);
          const DrawTokensArgs args{.logits = in.Random(kF32, {batch, v}),
                                    .rows = in.Integers(rows),
                                    .scales = in.Positive(kF32, {batch}),
                                    .uniforms = uniforms,
                                    .tokens = in.New(kI32, {batch}),
                                    .logprobs = in.New(kF32, {batch}),
                                    .sampling_logprobs = in.New(kF32, {batch})};
          return [=](const Context& c) { DrawTokens(c, args); };
        });
  }
  return cases;
}

}  // namespace moebius
