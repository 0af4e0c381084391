// What layers need from outside their rank. Layers never see a rank: each seam has a local version here
// (local_exchange.h), and parallel/ supplies the distributed one.
#pragma once

#include <memory>

#include "core/backend/context.h"

namespace moebius {

// Brings tokens to the experts that they chose and the results back. Post starts a transfer, Wait makes its
// result usable on the context's stream; between the two, other work may run. Memory of results comes from
// the arena given at PostDispatch and lives as long as it. Backward calls reuse the forward's handle: the
// backward of a combine is a dispatch and the other way round.
//
// Legend: T tokens here, K choices a token, R rows that arrived for this rank's experts.
class TokenExchange {
 public:
  class Handle {
   public:
    virtual ~Handle() = default;
  };
  struct Dispatched {
    TensorView rows;         // [R, hidden] act, sorted by expert, tokens in order inside an expert
    TensorView row_weights;  // [R] f32
    TensorView offsets;      // [local experts + 1] i64: rows of each local expert
  };

  virtual ~TokenExchange() = default;

  // x [T, hidden] act, experts [T, K] i32 (global numbers), weights [T, K] f32.
  virtual std::unique_ptr<Handle> PostDispatch(const Context& context, Arena& memory, TensorView x,
                                               TensorView experts, TensorView weights) = 0;
  virtual Dispatched WaitDispatch(const Context& context, Handle& handle) = 0;
  // rows [R, hidden] act: the experts' outputs, already multiplied by their row weights.
  virtual void PostCombine(const Context& context, Handle& handle, TensorView rows) = 0;
  // y [T, hidden] act = add (when given; may be y) + the sum of each token's rows.
  virtual void WaitCombine(const Context& context, Handle& handle, TensorView add, TensorView y) = 0;

  virtual void PostCombineBackward(const Context& context, Arena& memory, Handle& handle, TensorView dy) = 0;
  // Gradient of each row: [R, hidden] act.
  virtual TensorView WaitCombineBackward(const Context& context, Handle& handle) = 0;
  virtual void PostDispatchBackward(const Context& context, Handle& handle, TensorView d_rows,
                                    TensorView d_row_weights) = 0;
  // dx [T, hidden] act = add (when given; may be dx) + the sum of each token's row gradients; dweights = [T,
  // K].
  virtual void WaitDispatchBackward(const Context& context, Handle& handle, TensorView add, TensorView dx,
                                    TensorView dweights) = 0;
};

}  // namespace moebius
