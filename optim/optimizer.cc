#include "optim/optimizer.h"

#include <cmath>

#include "core/backend/ops.h"

namespace moebius {
namespace {

TensorView Flat(TensorView view) { return view.Reshape({view.elements()}); }

}  // namespace

AdamWOptimizer::AdamWOptimizer(ParameterSet& parameters, Backend& backend, Stream& stream,
                               const AdamWConfig& config)
    : config_(config) {
  for (const auto& parameter : parameters.all()) {
    if (!parameter->spec().trainable) continue;
    State state{.parameter = parameter.get(),
                .m = Tensor(backend, config.moments, parameter->shape()),
                .v = Tensor(backend, config.moments, parameter->shape()),
                .ema = config.ema_decay > 0 ? Tensor(backend, DType::kF32, parameter->shape()) : Tensor()};
    backend.Zero(stream, state.m);
    backend.Zero(stream, state.v);
    states_.push_back(std::move(state));
  }
}

double AdamWOptimizer::GradientNorm(const Context& context) const {
  ArenaScope scope(context.scratch);
  const int64_t n = states_.size();
  const TensorView sums = context.scratch.New(DType::kF64, {n});
  for (int64_t i = 0; i < n; ++i) SumSquares(context, Flat(states_[i].parameter->grad()), sums.Rows(i, 1));
  std::vector<double> host(n);
  context.backend.CopyToHost(context.stream, sums, host.data());
  context.stream.Synchronize();
  double total = 0;
  for (const double sum : host) total += sum;
  return std::sqrt(total);
}

void AdamWOptimizer::Step(const Context& context, double lr, double grad_scale, int64_t step) {
  for (const State& state : states_) {
    const Parameter& p = *state.parameter;
    if (p.spec().mtp && !config_.update_mtp) continue;
    const bool copied = p.weight().data != p.master().data;
    AdamW(context, {.master = Flat(p.master()),
                    .m = Flat(state.m),
                    .v = Flat(state.v),
                    .grad = Flat(p.grad()),
                    .weight = copied ? Flat(p.weight()) : TensorView(),
                    .ema = state.ema ? Flat(state.ema) : TensorView(),
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

void AdamWOptimizer::ClearGradients(const Context& context) {
  for (const State& state : states_) Zero(context, state.parameter->grad());
}

void AdamWOptimizer::ResetEma(const Context& context) {
  for (const State& state : states_) {
    if (state.ema) Cast(context, state.parameter->master(), state.ema);
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
