#include "core/generate/forward_mlp.h"

#include "core/backend/ops.h"

namespace moebius {
namespace {

void ForwardDense(const Context& context, const DecodeWeights& weights, const SwiGluMlp& mlp, TensorView x,
                  TensorView y) {
  ArenaScope scope(context.scratch);
  const TensorView gate_up = context.scratch.New(x.dtype, {x.rows(), mlp.gate_up().out()});
  const TensorView h = context.scratch.New(x.dtype, {x.rows(), mlp.down().in()});
  weights.Multiply(context, x, mlp.gate_up().weight(), gate_up);
  SwiGlu(context, {.gate_up = gate_up, .h = h});
  weights.Multiply(context, h, mlp.down().weight(), y);
}

struct Chosen {
  TensorView experts;  // [T, K] i32
  TensorView weights;  // [T, K] f32
};

// to: where the choice goes; in scratch where it is empty.
Chosen ChooseExperts(const Context& context, const MoeMlp& moe, TensorView x, TensorView to) {
  const MoeParameters& p = moe.parameters();
  const int64_t tokens = x.rows(), experts = p.router->shape()[0];
  const Shape choices{tokens, moe.spec().top_k};
  const Chosen chosen{.experts = to ? to : context.scratch.New(DType::kI32, choices),
                      .weights = context.scratch.New(DType::kF32, choices)};
  ArenaScope scope(context.scratch);
  TensorView x32 = x;
  if (x.dtype != DType::kF32) {
    x32 = context.scratch.New(DType::kF32, x.shape);
    Cast(context, x, x32);
  }
  const TensorView logits = context.scratch.New(DType::kF32, {tokens, experts});
  MatMul(context, {.a = x32, .b = p.router->weight(), .c = logits, .transpose_b = Transpose::kYes});
  Router(context, {.spec = moe.spec(),
                   .logits = logits,
                   .bias = p.bias != nullptr ? p.bias->weight() : TensorView(),
                   .scores = context.scratch.New(DType::kF32, {tokens, experts}),
                   .experts = chosen.experts,
                   .weights = chosen.weights});
  return chosen;
}

TensorView ForwardExperts(const Context& context, const DecodeWeights& weights, const MoeMlp& moe,
                          const TokenExchange::Dispatched& in) {
  const MoeParameters& p = moe.parameters();
  const int64_t rows = in.rows.rows(), intermediate = p.down->shape()[2];
  const DType act = in.rows.dtype;
  const TensorView out = context.scratch.New(act, in.rows.shape);
  ArenaScope scope(context.scratch);
  const TensorView gate_up = context.scratch.New(act, {rows, 2 * intermediate});
  const TensorView h = context.scratch.New(act, {rows, intermediate});
  weights.MultiplyExperts(context, in.rows, in.offsets, *p.gate_up, gate_up);
  SwiGlu(context, {.gate_up = gate_up, .row_weights = in.row_weights, .h = h});
  weights.MultiplyExperts(context, h, in.offsets, *p.down, out);
  return out;
}

TensorView ForwardMoe(const Context& context, const DecodeWeights& weights, const MoeMlp& moe, TensorView x,
                      TensorView h, TensorView y, TensorView routes) {
  ArenaScope scope(context.scratch);
  TokenExchange& exchange = moe.exchange();
  const Chosen chosen = ChooseExperts(context, moe, x, routes);
  const auto handle = exchange.PostDispatch(context, context.scratch, x, chosen.experts, chosen.weights);
  if (moe.has_shared()) ForwardDense(context, weights, moe.shared(), x, y);
  const TensorView out = ForwardExperts(context, weights, moe, exchange.WaitDispatch(context, *handle));
  exchange.PostCombine(context, *handle, out);
  const TensorView sum = moe.has_shared() ? y : h;
  exchange.WaitCombine(context, *handle, sum, sum);
  return moe.has_shared() ? y : TensorView();
}

}  // namespace

TensorView ForwardMlp(const Context& context, const DecodeWeights& weights, const Block& block, TensorView x,
                      TensorView h, TensorView y, TensorView routes) {
  if (block.moe() != nullptr) return ForwardMoe(context, weights, *block.moe(), x, h, y, routes);
  ForwardDense(context, weights, *block.dense(), x, y);
  return y;
}

}  // namespace moebius
