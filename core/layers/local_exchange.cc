#include "core/layers/local_exchange.h"

#include "core/backend/ops.h"

namespace moebius {
namespace {

struct LocalHandle final : TokenExchange::Handle {
  TokenExchange::Dispatched dispatched;
  TensorView row_of;     // [T, K] i32
  TensorView choice_of;  // [T * K] i32
  TensorView rows;       // what a combine sums: outputs of the experts, or gradients of their inputs
  TensorView d_row_weights;
  TensorView d_rows;
};

LocalHandle& Local(TokenExchange::Handle& handle) { return static_cast<LocalHandle&>(handle); }

// out [n, hidden]: the token's row of x for each routed row.
TensorView RowsOfTokens(const Context& context, Arena& memory, const LocalHandle& h, TensorView x) {
  const TensorView out = memory.New(x.dtype, {h.choice_of.elements(), x.cols()});
  GatherRows(context,
             {.x = x, .index = h.choice_of, .divisor = static_cast<int32_t>(h.row_of.cols()), .out = out});
  return out;
}

}  // namespace

std::unique_ptr<TokenExchange::Handle> LocalExchange::PostDispatch(const Context& context, Arena& memory,
                                                                   TensorView x, TensorView experts,
                                                                   TensorView weights) {
  auto h = std::make_unique<LocalHandle>();
  const int64_t choices = experts.elements();
  h->dispatched.offsets = memory.New(DType::kI64, {num_experts_ + 1});
  h->row_of = memory.New(DType::kI32, experts.shape);
  h->choice_of = memory.New(DType::kI32, {choices});
  RouteSort(
      context,
      {.experts = experts, .offsets = h->dispatched.offsets, .row_of = h->row_of, .choice_of = h->choice_of});
  h->dispatched.rows = RowsOfTokens(context, memory, *h, x);
  h->dispatched.row_weights = memory.New(DType::kF32, {choices});
  GatherRows(context, {.x = weights.Reshape({choices, 1}),
                       .index = h->choice_of,
                       .out = h->dispatched.row_weights.Reshape({choices, 1})});
  return h;
}

TokenExchange::Dispatched LocalExchange::WaitDispatch(const Context&, Handle& handle) {
  return Local(handle).dispatched;
}

void LocalExchange::PostCombine(const Context&, Handle& handle, TensorView rows) {
  Local(handle).rows = rows;
}

void LocalExchange::WaitCombine(const Context& context, Handle& handle, TensorView add, TensorView y) {
  LocalHandle& h = Local(handle);
  CombineRows(context, {.rows = h.rows, .row_of = h.row_of, .add = add, .out = y});
}

void LocalExchange::PostCombineBackward(const Context& context, Arena& memory, Handle& handle,
                                        TensorView dy) {
  Local(handle).d_rows = RowsOfTokens(context, memory, Local(handle), dy);
}

TensorView LocalExchange::WaitCombineBackward(const Context&, Handle& handle) { return Local(handle).d_rows; }

void LocalExchange::PostDispatchBackward(const Context&, Handle& handle, TensorView d_rows,
                                         TensorView d_row_weights) {
  Local(handle).rows = d_rows;
  Local(handle).d_row_weights = d_row_weights;
}

void LocalExchange::WaitDispatchBackward(const Context& context, Handle& handle, TensorView add,
                                         TensorView dx, TensorView dweights) {
  LocalHandle& h = Local(handle);
  CombineRows(context, {.rows = h.rows, .row_of = h.row_of, .add = add, .out = dx});
  const int64_t choices = h.row_of.elements();
  GatherRows(context, {.x = h.d_row_weights.Reshape({choices, 1}),
                       .index = h.row_of.Reshape({choices}),
                       .out = dweights.Reshape({choices, 1})});
}

}  // namespace moebius
