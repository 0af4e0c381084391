#include "core/backend/ops.h"
#include "core/base/strings.h"
#include "launch/bench/kernel_cases.h"

namespace moebius {

std::vector<KernelCase> RowCases(const KernelSizes& s) {
  using enum DType;
  std::vector<KernelCase> cases;
  const auto add = [&](std::string kernel, std::string what, std::function<KernelCall(KernelInputs&)> make) {
    cases.push_back({std::move(kernel), std::move(what), std::move(make)});
  };
  for (const int64_t hidden : s.hidden) {
    const int64_t n = s.tokens, k = s.top_k, experts = s.experts, vocabulary = s.vocabularies[0];
    for (const DType act : {kF32, kBF16}) {
      const std::string what = Concat(Word(act), " ", n, " x ", hidden);
      for (const bool adds : {false, true}) {
        add("RmsNorm", what + (adds ? " with a sum" : ""), [=](KernelInputs& in) -> KernelCall {
          RmsNormArgs args{.x = in.Random(act, {n, hidden}),
                           .gain = in.Positive(kF32, {hidden}),
                           .y = in.New(act, {n, hidden}),
                           .rstd = in.New(kF32, {n}),
                           .epsilon = 1e-6f};
          if (adds) {
            args.add = in.Random(act, {n, hidden});
            args.sum = in.New(act, {n, hidden});
          }
          return [=](const Context& c) { RmsNorm(c, args); };
        });
        add("RmsNormBackward", what + (adds ? " with a residual" : ""), [=](KernelInputs& in) -> KernelCall {
          RmsNormBackwardArgs args{.x = in.Random(act, {n, hidden}),
                                   .rstd = in.Positive(kF32, {n}),
                                   .gain = in.Positive(kF32, {hidden}),
                                   .dy = in.Random(act, {n, hidden}),
                                   .dx = in.New(act, {n, hidden}),
                                   .dgain = in.New(kF32, {hidden})};
          if (adds) args.residual = in.Random(act, {n, hidden});
          return [=](const Context& c) { RmsNormBackward(c, args); };
        });
      }
    }
    const std::string what = Concat("bf16 ", n, " x ", hidden);
    add("Embedding", Concat(what, " of ", vocabulary), [=](KernelInputs& in) -> KernelCall {
      const EmbeddingArgs args{.table = in.Random(kBF16, {vocabulary, hidden}),
                               .ids = in.Below(vocabulary, {n}),
                               .out = in.New(kBF16, {n, hidden})};
      return [=](const Context& c) { Embedding(c, args); };
    });
    add("EmbeddingBackward", Concat(what, " of ", vocabulary), [=](KernelInputs& in) -> KernelCall {
      const EmbeddingBackwardArgs args{.ids = in.Below(vocabulary, {n}),
                                       .dy = in.Random(kBF16, {n, hidden}),
                                       .dtable = in.Random(kF32, {vocabulary, hidden})};
      return [=](const Context& c) { EmbeddingBackward(c, args); };
    });
    const auto sorted = [=](KernelInputs& in) {
      const RouteSortArgs args{.experts = in.Choices(n, k, experts),
                               .offsets = in.New(kI64, {experts + 1}),
                               .row_of = in.New(kI32, {n, k}),
                               .choice_of = in.New(kI32, {n * k})};
      RouteSort(in.context(), args);
      return args;
    };
    add("GatherRows", Concat(what, ", top ", k), [=](KernelInputs& in) -> KernelCall {
      const GatherRowsArgs args{.x = in.Random(kBF16, {n, hidden}),
                                .index = sorted(in).choice_of,
                                .divisor = static_cast<int32_t>(k),
                                .out = in.New(kBF16, {n * k, hidden})};
      return [=](const Context& c) { GatherRows(c, args); };
    });
    add("ScatterRows", Concat("bf16 ", n * k, " x ", hidden), [=](KernelInputs& in) -> KernelCall {
      const ScatterRowsArgs args{.x = in.Random(kBF16, {n * k, hidden}),
                                 .index = sorted(in).choice_of,
                                 .out = in.New(kBF16, {n * k, hidden})};
      return [=](const Context& c) { ScatterRows(c, args); };
    });
    for (const bool adds : {false, true}) {
      add("CombineRows", Concat(what, ", top ", k, adds ? ", added" : ""),
          [=](KernelInputs& in) -> KernelCall {
            CombineRowsArgs args{.rows = in.Random(kBF16, {n * k, hidden}),
                                 .row_of = sorted(in).row_of,
                                 .out = in.New(kBF16, {n, hidden})};
            if (adds) args.add = in.Random(kBF16, {n, hidden});
            return [=](const Context& c) { CombineRows(c, args); };
          });
    }
  }
  const int64_t n = s.tokens, heads = s.heads, length = s.length;
  const auto rope = [=](const std::string& what, RopeStyle style, int64_t d,
                        const std::function<TensorView(KernelInputs&)>& x) {
    add("Rope", what, [=](KernelInputs& in) -> KernelCall {
      std::vector<int32_t> positions(n);
      for (int64_t t = 0; t < n; ++t) positions[t] = static_cast<int32_t>(t % length);
      // Of length 1 or so: values must keep their size over many calls.
      const RopeArgs args{.x = x(in),
                          .positions = in.Integers(positions),
                          .cos = in.Positive(kF32, {length, d / 2}),
                          .sin = in.New(kF32, {length, d / 2}),
                          .style = style};
      Zero(in.context(), args.sin);
      return [=](const Context& c) { Rope(c, args); };
    });
  };
  rope(Concat("bf16 ", n, " x ", heads, " x 64 of 192"), RopeStyle::kInterleaved, 64, [=](KernelInputs& in) {
    return in.Random(kBF16, {n, heads, 192}).Columns(128, 64);
  });
  rope(Concat("bf16 ", n, " x 1 x 64 of 576"), RopeStyle::kInterleaved, 64, [=](KernelInputs& in) {
    return in.Random(kBF16, {n, 576}).Columns(512, 64).Reshape({n, 1, 64});
  });
  rope(Concat("bf16 ", n, " x ", heads, " x 128"), RopeStyle::kHalf, 128, [=](KernelInputs& in) {
    return in.Random(kBF16, {n, heads, 128});
  });
  for (const auto& [rows, width] : {std::pair(n * s.top_k, s.width), std::pair(n, 8 * s.width)}) {
    const int64_t r = rows, w = width;
    const std::string what = Concat("bf16 ", r, " x ", w);
    add("SwiGlu", what, [=](KernelInputs& in) -> KernelCall {
      const SwiGluArgs args{.gate_up = in.Random(kBF16, {r, 2 * w}),
                            .row_weights = in.Positive(kF32, {r}),
                            .h = in.New(kBF16, {r, w})};
      return [=](const Context& c) { SwiGlu(c, args); };
    });
    add("SwiGluBackward", what, [=](KernelInputs& in) -> KernelCall {
      const SwiGluBackwardArgs args{.gate_up = in.Random(kBF16, {r, 2 * w}),
                                    .row_weights = in.Positive(kF32, {r}),
                                    .dh = in.Random(kBF16, {r, w}),
                                    .d_gate_up = in.New(kBF16, {r, 2 * w}),
                                    .d_row_weights = in.New(kF32, {r}),
                                    .h = in.New(kBF16, {r, w})};
      return [=](const Context& c) { SwiGluBackward(c, args); };
    });
  }
  return cases;
}

}  // namespace moebius
