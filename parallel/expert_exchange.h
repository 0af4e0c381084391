// Token exchange between the ranks of an expert group, flat: every routed row goes straight to the rank that
// holds its expert (all-to-all-v) and its result straight back. Dropless.
//
// Rows of one expert arrive ordered by (source rank, token), so the order of every sum is fixed. Counts
// travel ahead of rows; buffers are sized on the exchange stream when they are known, so posting does not
// wait for anybody. The one host synchronisation is the reading of the sorted offsets in PostDispatch.
#pragma once

#include <memory>

#include "core/layers/seams.h"
#include "parallel/buffer_pool.h"
#include "parallel/comm/communicator.h"

namespace moebius {

class ExpertExchange final : public TokenExchange {
 public:
  // num_experts: of the model; rank r of `group` holds [r, r + 1) * num_experts / size. All outlive the
  // exchange and its handles. layer: for purposes.
  ExpertExchange(Communicator& group, Stream& stream, BufferPool& pool, int64_t num_experts, int layer);

  std::unique_ptr<Handle> PostDispatch(const Context& context, Arena& memory, TensorView x,
                                       TensorView experts, TensorView weights) override;
  Dispatched WaitDispatch(const Context& context, Handle& handle) override;
  void PostCombine(const Context& context, Handle& handle, TensorView rows) override;
  void WaitCombine(const Context& context, Handle& handle, TensorView add, TensorView y) override;
  void PostCombineBackward(const Context& context, Arena& memory, Handle& handle, TensorView dy) override;
  TensorView WaitCombineBackward(const Context& context, Handle& handle) override;
  void PostDispatchBackward(const Context& context, Handle& handle, TensorView d_rows,
                            TensorView d_row_weights) override;
  void WaitDispatchBackward(const Context& context, Handle& handle, TensorView add, TensorView dx,
                            TensorView dweights) override;

 private:
  struct Route;

  void Post(const Context& context, Route& route, const char* what, std::function<PeerPieces()> pieces);

  Communicator& group_;
  Stream& stream_;
  BufferPool& pool_;
  int64_t num_experts_;
  int64_t local_experts_;
  int layer_;
};

}  // namespace moebius
