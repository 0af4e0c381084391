#include "core/layers/moe_mlp.h"

#include <algorithm>

#include "core/backend/ops.h"

namespace moebius {

MoeMlp::MoeMlp(SlotCounter& slots, const RouterSpec& spec, const MoeParameters& p, TokenExchange* exchange,
               int64_t layer)
    : spec_(spec), parameters_(p), exchange_(exchange), layer_(layer) {
  if (p.shared_gate_up != nullptr) shared_.emplace(slots, p.shared_gate_up, p.shared_down);
  for (int* slot : {&x_,       &logits_,    &scores_,       &chosen_,           &weights_,
                    &f_,       &losses_,    &auxiliary_f_,  &auxiliary_losses_, &z_,
                    &dlogits_, &live_,      &rows_,         &gate_up_out_,      &h_,
                    &out_,     &dout_,      &d_gate_up_,    &d_rows_,           &d_row_weights_,
                    &handle_,  &h_columns_, &dout_columns_, &d_gate_up_columns_}) {
    *slot = slots.Take();
  }
}

void MoeMlp::SetInput(const Pass& pass, TensorView x) const {
  pass.saved[x_] = x;
  if (shared_) shared_->SetInput(pass, x);
}

TensorView MoeMlp::InputF32(const Pass& pass, Arena& arena) const {
  const TensorView x = pass.saved[x_];
  if (x.dtype == DType::kF32) return x;
  const TensorView x32 = arena.New(DType::kF32, x.shape);
  Cast(pass.context, x, x32);
  return x32;
}

void MoeMlp::PostDispatch(const Pass& pass) const {
  pass.saved.exchange(handle_) = exchange_->PostDispatch(
      pass.context, pass.saved.activations(), pass.saved[x_], pass.saved[chosen_], pass.saved[weights_]);
}

void MoeMlp::SharedExpert(const Pass& pass, TensorView y) const {
  if (shared_) shared_->Forward(pass, pass.saved[x_], y);
}

bool MoeMlp::InChunks(const Pass& pass) const {
  const int64_t most = pass.recompute.max_expert_rows;
  return most > 0 && pass.saved[rows_].rows() > most;
}

std::vector<MoeMlp::Chunk> MoeMlp::Chunks(const Pass& pass, TensorView offsets) const {
  const Context& context = pass.context;
  std::vector<int64_t> all(offsets.elements());
  context.backend.CopyToHost(context.stream, offsets, all.data());
  context.stream.Synchronize();
  const int64_t most = pass.recompute.max_expert_rows;
  // Where nothing has come, as on paper (phantom.h), one empty chunk takes the memory of a full one.
  const int64_t rows = std::max(all.back(), most);
  std::vector<Chunk> chunks;
  for (int64_t first = 0; first < rows; first += most) {
    const int64_t count = std::min(most, rows - first);
    std::vector<int64_t> inside(all);
    for (int64_t& offset : inside) offset = std::clamp<int64_t>(offset - first, 0, count);
    chunks.push_back({first, count, context.scratch.New(DType::kI64, offsets.shape)});
    context.backend.CopyToDevice(context.stream, inside.data(), chunks.back().offsets);
    context.stream.Synchronize();  // `inside` dies
  }
  return chunks;
}

void MoeMlp::ChunkForward(const Pass& pass, const TokenExchange::Dispatched& d, const Chunk& chunk) const {
  const Context& context = pass.context;
  const int64_t intermediate = parameters_.down->shape()[2];
  ArenaScope scope(context.scratch);
  const TensorView gate_up = context.scratch.New(d.rows.dtype, {chunk.count, 2 * intermediate});
  const TensorView h = context.scratch.New(d.rows.dtype, {chunk.count, intermediate});
  GroupedMatMul(context, {.kind = GroupedKind::kForward,
                          .x = d.rows.Rows(chunk.first, chunk.count),
                          .w = parameters_.gate_up->weight(),
                          .y = gate_up,
                          .offsets = chunk.offsets,
                          .rounding = pass.rounding});
  SwiGlu(context, {.gate_up = gate_up, .row_weights = d.row_weights.Rows(chunk.first, chunk.count), .h = h});
  GroupedMatMul(context, {.kind = GroupedKind::kForward,
                          .x = h,
                          .w = parameters_.down->weight(),
                          .y = pass.saved[out_].Rows(chunk.first, chunk.count),
                          .offsets = chunk.offsets,
                          .rounding = pass.rounding});
}

void MoeMlp::ChunkBackward(const Pass& pass, const TokenExchange::Dispatched& d, const Chunk& chunk) const {
  const Context& context = pass.context;
  const int64_t intermediate = parameters_.down->shape()[2];
  const auto part = [&](TensorView x) { return x.Rows(chunk.first, chunk.count); };
  ArenaScope scope(context.scratch);
  const TensorView gate_up = context.scratch.New(d.rows.dtype, {chunk.count, 2 * intermediate});
  const TensorView dh = context.scratch.New(d.rows.dtype, {chunk.count, intermediate});
  const auto product = [&](GroupedKind kind, TensorView x, TensorView w, TensorView y) {
    GroupedMatMul(
        context, {.kind = kind, .x = x, .w = w, .y = y, .offsets = chunk.offsets, .rounding = pass.rounding});
  };
  const Parameter &down = *parameters_.down, &up = *parameters_.gate_up;
  const TensorView dout = part(pass.saved[dout_]);
  product(GroupedKind::kForward, part(d.rows), up.weight(), gate_up);
  product(GroupedKind::kBackwardInput, dh, down.weight(), dout);
  // gate_up becomes its gradient, dh becomes h.
  SwiGluBackward(context, {.gate_up = gate_up,
                           .row_weights = part(d.row_weights),
                           .dh = dh,
                           .d_gate_up = gate_up,
                           .d_row_weights = part(pass.saved[d_row_weights_]),
                           .h = dh});
  product(GroupedKind::kBackwardWeight, dh, down.grad(), dout);
  product(GroupedKind::kBackwardWeight, part(d.rows), up.grad(), gate_up);
  product(GroupedKind::kBackwardInput, part(pass.saved[d_rows_]), up.weight(), gate_up);
}

void MoeMlp::Experts(const Pass& pass) const {
  const TokenExchange::Dispatched dispatched =
      exchange_->WaitDispatch(pass.context, *pass.saved.exchange(handle_));
  const auto& [rows, row_weights, offsets] = dispatched;
  const int64_t n = rows.rows(), intermediate = parameters_.down->shape()[2];
  pass.saved[rows_] = rows;
  if (InChunks(pass)) {
    pass.saved[out_] = pass.saved.transient().New(rows.dtype, rows.shape);
    ArenaScope scope(pass.context.scratch);
    for (const Chunk& chunk : Chunks(pass, offsets)) ChunkForward(pass, dispatched, chunk);
    return;
  }
  const TensorView gate_up = pass.Keep(gate_up_out_, rows.dtype, {n, 2 * intermediate});
  GroupedMatMul(pass.context, {.kind = GroupedKind::kForward,
                               .x = rows,
                               .w = parameters_.gate_up->weight(),
                               .y = gate_up,
                               .offsets = offsets,
                               .rounding = pass.rounding});
  const TensorView out = pass.saved[out_] = pass.saved.transient().New(rows.dtype, rows.shape);
  ArenaScope scope(pass.context.scratch);
  TensorView h(nullptr, rows.dtype, {n, intermediate});
  TensorView rounded_h;
  if (pass.RoundsSwiGlu(h, parameters_.down->shape()[1])) {
    rounded_h = pass.NewRounded(pass.context.scratch, h, RoundedBy::kRows);
  } else {
    h = pass.recompute.swiglu ? pass.context.scratch.New(h.dtype, h.shape) : pass.Keep(h_, h.dtype, h.shape);
  }
  // The routing weight multiplies h instead of the output: the products commute, and h is narrower.
  SwiGlu(pass.context,
         {.gate_up = gate_up, .row_weights = row_weights, .h = h, .rounded_h = {.rows = rounded_h}});
  GroupedMatMul(pass.context, {.kind = GroupedKind::kForward,
                               .x = h,
                               .w = parameters_.down->weight(),
                               .y = out,
                               .offsets = offsets,
                               .rounding = pass.rounding,
                               .rounded_x = rounded_h});
}

void MoeMlp::PostCombine(const Pass& pass) const {
  exchange_->PostCombine(pass.context, *pass.saved.exchange(handle_), pass.saved[out_]);
}

void MoeMlp::WaitCombine(const Pass& pass, TensorView add, TensorView y) const {
  exchange_->WaitCombine(pass.context, *pass.saved.exchange(handle_), add, y);
}

void MoeMlp::PostCombineBackward(const Pass& pass, TensorView dy) const {
  exchange_->PostCombineBackward(pass.context, pass.saved.gradients(), *pass.saved.exchange(handle_), dy);
}

void MoeMlp::SharedExpertBackward(const Pass& pass, TensorView dy, TensorView dx) const {
  if (shared_) shared_->BackwardInput(pass, dy, dx);
}

void MoeMlp::ExpertsBackward(const Pass& pass) const {
  TokenExchange::Handle& handle = *pass.saved.exchange(handle_);
  const TokenExchange::Dispatched dispatched = exchange_->WaitDispatch(pass.context, handle);
  const auto& [rows, row_weights, offsets] = dispatched;
  const TensorView dout = pass.saved[dout_] = exchange_->WaitCombineBackward(pass.context, handle);
  const int64_t n = rows.rows(), intermediate = parameters_.down->shape()[2];
  pass.saved[d_row_weights_] = pass.saved.transient().New(DType::kF32, {n});
  if (InChunks(pass)) {
    pass.saved[d_rows_] = dout;
    ArenaScope scope(pass.context.scratch);
    for (const Chunk& chunk : Chunks(pass, offsets)) ChunkBackward(pass, dispatched, chunk);
    return;
  }
  const TensorView d_rows = pass.saved[d_rows_] = pass.saved.transient().New(rows.dtype, rows.shape);
  ArenaScope scope(pass.context.scratch);
  const int64_t groups = offsets.elements() - 1;
  const RoundedCopies rounded_dout = pass.NewRoundedGradient(dout, groups);
  if (rounded_dout.rows) Round(pass.context, {.x = dout, .offsets = offsets, .to = rounded_dout});
  pass.saved[dout_columns_] = rounded_dout.columns;
  const TensorView dh = pass.context.scratch.New(rows.dtype, {n, intermediate});
  GroupedMatMul(pass.context, {.kind = GroupedKind::kBackwardInput,
                               .x = dh,
                               .w = parameters_.down->weight(),
                               .y = dout,
                               .offsets = offsets,
                               .rounding = pass.rounding,
                               .rounded_y = rounded_dout.rows});
  const RoundedCopies d = ExpertsSwiGluBackward(pass, dispatched, dh);
  pass.saved[d_gate_up_columns_] = d.columns;
  GroupedMatMul(pass.context, {.kind = GroupedKind::kBackwardInput,
                               .x = d_rows,
                               .w = parameters_.gate_up->weight(),
                               .y = pass.saved[d_gate_up_],
                               .offsets = offsets,
                               .rounding = pass.rounding,
                               .rounded_y = d.rows});
}

// From dh, d_gate_up and h in their slots, or rounded: the first is returned.
RoundedCopies MoeMlp::ExpertsSwiGluBackward(const Pass& pass, const TokenExchange::Dispatched& dispatched,
                                            TensorView dh) const {
  const TensorView offsets = dispatched.offsets, h(nullptr, dh.dtype, dh.shape);
  const TensorView d_gate_up(nullptr, dh.dtype, {dh.rows(), 2 * dh.cols()});
  const int64_t groups = offsets.elements() - 1;
  SwiGluBackwardArgs args{.gate_up = pass.saved[gate_up_out_],
                          .row_weights = dispatched.row_weights,
                          .dh = dh,
                          .d_gate_up = d_gate_up,
                          .d_row_weights = pass.saved[d_row_weights_]};
  pass.saved[h_columns_] = {};
  if (pass.RoundsSwiGlu(h, parameters_.down->shape()[1])) {
    pass.saved[h_] = h;
    pass.saved[h_columns_] = pass.NewRounded(pass.saved.gradients(), h, RoundedBy::kColumns, groups);
    pass.saved[d_gate_up_] = d_gate_up;
    args.offsets = offsets;
    args.rounded_d_gate_up = pass.NewRoundedGradient(d_gate_up, groups);
    args.rounded_h.columns = pass.saved[h_columns_];
    SwiGluBackward(pass.context, args);
    return args.rounded_d_gate_up;
  }
  args.d_gate_up = pass.KeepGradient(d_gate_up_, dh.dtype, d_gate_up.shape);
  if (pass.recompute.swiglu) args.h = pass.KeepGradient(h_, dh.dtype, dh.shape);
  SwiGluBackward(pass.context, args);
  const RoundedCopies rounded = pass.NewRoundedGradient(args.d_gate_up, groups);
  if (rounded.rows) Round(pass.context, {.x = args.d_gate_up, .offsets = offsets, .to = rounded});
  return rounded;
}

void MoeMlp::PostDispatchBackward(const Pass& pass) const {
  exchange_->PostDispatchBackward(pass.context, *pass.saved.exchange(handle_), pass.saved[d_rows_],
                                  pass.saved[d_row_weights_]);
}

void MoeMlp::WaitDispatchBackward(const Pass& pass, TensorView add, TensorView dx) const {
  const TensorView logits = pass.saved[logits_];
  const int64_t experts = logits.cols(), sequences = pass.layout.sequences();
  ArenaScope scope(pass.context.scratch);
  const TensorView dweights = pass.context.scratch.New(DType::kF32, pass.saved[weights_].shape);
  exchange_->WaitDispatchBackward(pass.context, *pass.saved.exchange(handle_), add, dx, dweights);

  // d(objective)/d(scores_e / sum) for each sequence: factor * f_e / length, from both losses.
  const TensorView coefficients = pass.context.scratch.New(DType::kF32, {sequences, experts});
  Zero(pass.context, coefficients);
  for (int64_t s = 0; s < sequences; ++s) {
    const float length = pass.layout.sequence_starts[s + 1] - pass.layout.sequence_starts[s];
    const auto add_loss = [&](float factor, int f) {
      if (factor == 0) return;
      Accumulate(pass.context,
                 {.x = pass.saved[f].Rows(s, 1), .y = coefficients.Rows(s, 1), .alpha = factor / length});
    };
    add_loss(pass.balance.sequence, f_);
    add_loss(pass.balance.auxiliary, auxiliary_f_);
  }
  const TensorView dlogits = pass.KeepGradient(dlogits_, DType::kF32, logits.shape);
  RouterBackward(pass.context, {.spec = spec_,
                                .logits = logits,
                                .scores = pass.saved[scores_],
                                .experts = pass.saved[chosen_],
                                .dweights = dweights,
                                .balance_coefficients = coefficients,
                                .sequence_starts = pass.layout.sequence_starts,
                                .z_coefficient = pass.balance.z,
                                .dlogits = dlogits});
  const TensorView dx_router = pass.context.scratch.New(DType::kF32, dx.shape);
  MatMul(pass.context, {.a = dlogits, .b = parameters_.router->weight(), .c = dx_router});
  Accumulate(pass.context, {.x = dx_router, .y = dx});
}

void MoeMlp::BackwardWeight(const Pass& pass) const {
  ExpertWeights(pass);
  OtherWeights(pass);
}

void MoeMlp::ExpertWeights(const Pass& pass) const {
  if (InChunks(pass)) return;  // done, chunk by chunk
  const TensorView offsets = exchange_->WaitDispatch(pass.context, *pass.saved.exchange(handle_)).offsets;
  GroupedMatMul(pass.context, {.kind = GroupedKind::kBackwardWeight,
                               .x = pass.saved[h_],
                               .w = parameters_.down->grad(),
                               .y = pass.saved[dout_],
                               .offsets = offsets,
                               .rounding = pass.rounding,
                               .rounded_x = pass.saved[h_columns_],
                               .rounded_y = pass.saved[dout_columns_]});
  GroupedMatMul(pass.context, {.kind = GroupedKind::kBackwardWeight,
                               .x = pass.saved[rows_],
                               .w = parameters_.gate_up->grad(),
                               .y = pass.saved[d_gate_up_],
                               .offsets = offsets,
                               .rounding = pass.rounding,
                               .rounded_y = pass.saved[d_gate_up_columns_]});
}

void MoeMlp::OtherWeights(const Pass& pass) const {
  if (shared_) shared_->BackwardWeight(pass);
  ArenaScope scope(pass.context.scratch);
  MatMul(pass.context, {.a = pass.saved[dlogits_],
                        .b = InputF32(pass, pass.context.scratch),
                        .c = parameters_.router->grad(),
                        .transpose_a = Transpose::kYes,
                        .accumulate = true});
}

}  // namespace moebius
