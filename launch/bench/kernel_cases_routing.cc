#include "core/backend/ops.h"
#include "core/base/strings.h"
#include "launch/bench/kernel_cases.h"

namespace moebius {

std::vector<KernelCase> RoutingCases(const KernelSizes& s) {
  using enum DType;
  std::vector<KernelCase> cases;
  const auto add = [&](std::string kernel, std::string what, std::function<KernelCall(KernelInputs&)> make) {
    cases.push_back({std::move(kernel), std::move(what), std::move(make)});
  };
  const int64_t n = s.tokens, e = s.experts, k = s.top_k;
  const std::string what = Concat("fp32 ", n, " x ", e, ", top ", k);
  const RouterSpec spec{.scoring = Scoring::kSigmoid, .top_k = k};
  std::vector<int32_t> starts;
  for (int64_t t = 0; t <= n; t += s.length) starts.push_back(static_cast<int32_t>(t));
  add("Router", what, [=](KernelInputs& in) -> KernelCall {
    const RouterArgs args{.spec = spec,
                          .logits = in.Random(kF32, {n, e}),
                          .bias = in.Positive(kF32, {e}),
                          .scores = in.New(kF32, {n, e}),
                          .experts = in.New(kI32, {n, k}),
                          .weights = in.New(kF32, {n, k})};
    return [=](const Context& c) { Router(c, args); };
  });
  add("RouterBackward", what, [=](KernelInputs& in) -> KernelCall {
    RouterBackwardArgs args{
        .spec = spec,
        .logits = in.Random(kF32, {n, e}),
        .scores = in.Positive(kF32, {n, e}),
        .experts = in.Choices(n, k, e),
        .dweights = in.Random(kF32, {n, k}),
        .balance_coefficients = in.Random(kF32, {static_cast<int64_t>(starts.size()) - 1, e}),
        .sequence_starts = {},
        .dlogits = in.New(kF32, {n, e})};
    return [=](const Context& c) mutable {
      args.sequence_starts = starts;
      RouterBackward(c, args);
    };
  });
  add("Balance", what, [=](KernelInputs& in) -> KernelCall {
    const int64_t sequences = static_cast<int64_t>(starts.size()) - 1;
    BalanceArgs args{.scores = in.Positive(kF32, {n, e}),
                     .top_k = k,
                     .sequence_starts = {},
                     .f = in.New(kF32, {sequences, e}),
                     .losses = in.New(kF32, {sequences})};
    return [=](const Context& c) mutable {
      args.sequence_starts = starts;
      Balance(c, args);
    };
  });
  add("RouterZ", what, [=](KernelInputs& in) -> KernelCall {
    return [logits = in.Random(kF32, {n, e}), z = in.New(kF32, {1})](const Context& c) {
      RouterZ(c, {.logits = logits, .z = z});
    };
  });
  add("RouteSort", what, [=](KernelInputs& in) -> KernelCall {
    const RouteSortArgs args{.experts = in.Choices(n, k, e),
                             .offsets = in.New(kI64, {e + 1}),
                             .row_of = in.New(kI32, {n, k}),
                             .choice_of = in.New(kI32, {n * k})};
    return [=](const Context& c) { RouteSort(c, args); };
  });
  return cases;
}

}  // namespace moebius
