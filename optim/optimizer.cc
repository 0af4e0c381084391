#include "optim/optimizer.h"

#include "core/backend/ops.h"

namespace moebius {
AdamWOptimizer::AdamWOptimizer(const std::vector<ParameterSlice>& slices, Backend& backend, Stream& stream,
                               const AdamWConfig& config)
    : config_(config) {
  for (const ParameterSlice& slice : slices) {
    State state{.slice = slice,
                .m = Tensor(backend, config.moments, {slice.count}),
                .v = Tensor(backend, config.moments, {slice.count}),
                .ema = config.ema_decay > 0 ? Tensor(backend, DType::kF32, {slice.count}) : Tensor()};
    backend.Zero(stream, state.m);
    backend.Zero(stream, state.v);
    states_.push_back(std::move(state));
  }
}

double AdamWOptimizer::GradientSquares(const Context& context) const {
  ArenaScope scope(context.scratch);
  const int64_t n = states_.size();
  if (n == 0) return 0;
  const TensorView sums = context.scratch.New(DType::kF64, {n});
  for (int64_t i = 0; i < n; ++i) {
    const ParameterSlice& slice = states_[i].slice;
    SumSquares(context, slice.Of(slice.parameter->grad()), sums.Rows(i, 1));
  }
  std::vector<double> host(n);
  context.backend.CopyToHost(context.stream, sums, host.data());
  context.stream.Synchronize();
  double total = 0;
  for (const double sum : host) total += sum;
  return total;
}

void AdamWOptimizer::Step(const Context& context, double lr, double grad_scale, int64_t step) {
  for (const State& state : states_) {
    const Parameter& p = *state.slice.parameter;
    if (p.spec().mtp && !config_.update_mtp) continue;
    const bool copied = p.weight().data != p.master().data;
    AdamW(context, {.master = state.slice.Of(p.master()),
                    .m = state.m,
                    .v = state.v,
                    .grad = state.slice.Of(p.grad()),
                    .weight = copied ? state.slice.Of(p.weight()) : TensorView(),
                    .ema = state.ema ? state.ema.view() : TensorView(),
                    .grad_scale = static_cast<float>(grad_scale),
                    .lr = static_cast<float>(lr),
                    .beta1 = static_cast<float>(config_.beta1),
                    .beta2 = static_cast<float>(config_.beta2),
                    .epsilon = static_cast<float>(config_.epsilon),
                    .weight_decay = p.decays() ? static_cast<float>(config_.weight_decay) : 0.0f,
                    .step = step,
                    .ema_decay = static_cast<float>(config_.ema_decay)});
  }
}

void AdamWOptimizer::ResetEma(const Context& context) {
  for (const State& state : states_) {
    if (state.ema) Cast(context, state.slice.Of(state.slice.parameter->master()), state.ema);
  }
}

int64_t AdamWOptimizer::bytes() const {
  int64_t bytes = 0;
  for (const State& state : states_) {
    bytes += state.m.view().bytes() + state.v.view().bytes() + (state.ema ? state.ema.view().bytes() : 0);
  }
  return bytes;
}

}  // namespace moebius
