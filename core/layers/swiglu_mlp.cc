#include "core/layers/swiglu_mlp.h"

#include "core/backend/ops.h"

namespace moebius {

SwiGluMlp::SwiGluMlp(SlotCounter& slots, Parameter* gate_up, Parameter* down)
    : gate_up_(slots, gate_up), down_(slots, down), gate_up_out_(slots.Take()), h_(slots.Take()) {
  CHECK_EQ(gate_up_.out(), 2 * down_.in()) << gate_up->name();
}

void SwiGluMlp::Forward(const Pass& pass, TensorView x, TensorView y) const {
  const int64_t rows = x.rows();
  const TensorView gate_up = pass.Keep(gate_up_out_, x.dtype, {rows, gate_up_.out()});
  gate_up_.Forward(pass, x, gate_up);
  ArenaScope scope(pass.context.scratch);
  const TensorView h_shape(nullptr, x.dtype, {rows, down_.in()});
  if (pass.RoundsSwiGlu(h_shape, gate_up_.in())) {
    const TensorView rounded_h = pass.NewRounded(pass.context.scratch, h_shape, RoundedBy::kRows);
    SwiGlu(pass.context, {.gate_up = gate_up, .h = h_shape, .rounded_h = {.rows = rounded_h}});
    return down_.ForwardRounded(pass, h_shape, rounded_h, y);
  }
  const TensorView h = pass.recompute.swiglu ? pass.context.scratch.New(x.dtype, {rows, down_.in()})
                                             : pass.Keep(h_, x.dtype, {rows, down_.in()});
  SwiGlu(pass.context, {.gate_up = gate_up, .h = h});
  down_.Forward(pass, h, y);
}

void SwiGluMlp::BackwardInput(const Pass& pass, TensorView dy, TensorView dx) const {
  const int64_t rows = dy.rows();
  ArenaScope scope(pass.context.scratch);
  const TensorView dh = pass.context.scratch.New(dy.dtype, {rows, down_.in()});
  down_.BackwardInput(pass, dy, dh);
  const TensorView d_shape(nullptr, dy.dtype, {rows, gate_up_.out()}), h_shape(nullptr, dy.dtype, dh.shape);
  if (pass.RoundsSwiGlu(h_shape, gate_up_.in())) {
    const RoundedCopies d = pass.NewRoundedGradient(d_shape);
    const TensorView h = pass.NewRounded(pass.saved.gradients(), h_shape, RoundedBy::kColumns);
    SwiGluBackward(pass.context, {.gate_up = pass.saved[gate_up_out_],
                                  .dh = dh,
                                  .d_gate_up = d_shape,
                                  .rounded_d_gate_up = d,
                                  .rounded_h = {.columns = h}});
    down_.SetRoundedInput(pass, h_shape, h);
    return gate_up_.BackwardInputRounded(pass, d_shape, d, dx);
  }
  const TensorView d_gate_up = pass.saved.gradients().New(dy.dtype, {rows, gate_up_.out()});
  SwiGluBackwardArgs args{.gate_up = pass.saved[gate_up_out_], .dh = dh, .d_gate_up = d_gate_up};
  if (pass.recompute.swiglu) args.h = pass.KeepGradient(h_, dy.dtype, {rows, down_.in()});
  SwiGluBackward(pass.context, args);
  down_.SetInput(pass, pass.saved[h_]);
  gate_up_.BackwardInput(pass, d_gate_up, dx);
}

void SwiGluMlp::BackwardWeight(const Pass& pass) const {
  down_.BackwardWeight(pass);
  gate_up_.BackwardWeight(pass);
}

}  // namespace moebius
