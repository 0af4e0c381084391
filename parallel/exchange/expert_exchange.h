// Token exchange between the ranks of an expert group, flat: every routed row goes straight to the rank that
// holds its expert (all-to-all-v) and its result straight back. Dropless.
//
// Rows of one expert arrive ordered by (source rank, token), so the order of every sum is fixed; a token's
// rows are summed in the order of row_sums.h. Counts travel ahead of rows; buffers are sized on the exchange
// stream when they are known, so posting does not wait for anybody. The one host synchronisation is the
// reading of the sorted offsets (on several nodes of experts and rows, too) in PostDispatch. Where rows
// travel in another format than the activations' own, x and dy stay valid until the wait that follows their
// post.
//
// Bytes. For one group of P members with E experts each, one layer, one microbatch, summed over the members
// and for each link class: R routed rows and F pairs of members over it (P of them to themselves), d and c
// bytes of a row in the formats of dispatch and combine:
//   dispatch 8 E F + R (d + 4), combine R c, combine backward R d, dispatch backward R (c + 4).
#pragma once

#include <functional>
#include <memory>

#include "core/layers/seams.h"
#include "parallel/comm/communicator.h"
#include "parallel/exchange/buffer_pool.h"
#include "parallel/exchange/exchange_options.h"
#include "parallel/node_map.h"

namespace moebius {

class ExpertExchange final : public TokenExchange {
 public:
  // num_experts: of the model; rank r of `group` holds [r, r + 1) * num_experts / size. nodes: of the group.
  // All outlive the exchange and its handles. layer: for purposes.
  ExpertExchange(Communicator& group, const NodeMap& nodes, Stream& stream, BufferPool& pool,
                 int64_t num_experts, int layer, const ExchangeOptions& options);

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

  void PlanSums(const Context& context, Route& route, const std::vector<int32_t>& experts,
                const std::vector<int32_t>& row_of) const;
  void SendCounts(Route& route);
  void Outgoing(const Context& context, Route& route, TensorView x, TensorView weights);
  void Post(Route& route, const char* what, std::function<void(PeerPieces&)> fill);
  void Wait(const Context& context, Route& route);
  void TokenRows(Route& route, TensorView to, PeerPieces& pieces);
  void Decode(Route& route, bool forward);
  void Return(const Context& context, Route& route, const char* what, TensorView rows, TensorView numbers);
  void Sum(const Context& context, Route& route, TensorView add, TensorView y);

  Communicator& group_;
  NodeMap nodes_;
  Stream& stream_;
  BufferPool& pool_;
  int64_t num_experts_;
  int64_t local_experts_;
  int layer_;
  ExchangeOptions options_;
};

}  // namespace moebius
