// Token exchange between the ranks of an expert group by gathering: each rank gets all tokens of the group
// and picks those of its own experts on the device; one sum a token and rank comes back. Dropless.
//
// Nobody reads the routing on the host: messages are as large as the numbers of tokens say, and buffers have
// room for every token choosing as many experts of this rank as it can. In a group of P ranks with T tokens
// each that is P T min(K, E) rows, where the flat exchange has about T K. A rank sends and receives (P - 1) T
// rows each way, whatever was chosen; the flat exchange T K (P - 1) / P: more, where P < K.
//
// Rows of one expert arrive as in the other exchanges, by (source rank, token). Sums do not have their order
// (row_sums.h), and so not their bits:
//
//   y_t = add + (sum over the group's ranks, in order, of the sum of rows there in choice order)
//
// with sums in fp32, each rounded to act. x, weights, experts and dy stay valid until the wait that follows
// their post. Rows travel as they are computed: ExchangeOptions has no other format here.
//
// Bytes. For one group of P members with T tokens each, one layer, one microbatch, summed over the members
// and for each link class with F pairs of members over it (P of them to themselves; the sums send nothing
// there), h bytes of a row: dispatch F (8 + T (h + 8 K)), combine and dispatch backward F T h and F T (h + 4
// K), combine backward F T h.
#pragma once

#include <functional>
#include <memory>

#include "core/layers/seams.h"
#include "parallel/comm/communicator.h"
#include "parallel/exchange/buffer_pool.h"

namespace moebius {

class GatherExchange final : public TokenExchange {
 public:
  // num_experts: of the model; rank r of `group` holds [r, r + 1) * num_experts / size. All outlive the
  // exchange and its handles. layer: for purposes.
  GatherExchange(Communicator& group, Stream& stream, BufferPool& pool, int64_t num_experts, int layer);

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

  void Begin(const Context& context, Route& route);
  void Gather(Route& route, const char* what, std::function<void(PeerPieces&)> fill);
  void Reduce(Route& route, const char* what, TensorView sums, int64_t width, TensorView mine);
  void Wait(const Context& context, Route& route);

  Communicator& group_;
  Stream& stream_;
  BufferPool& pool_;
  int64_t local_experts_;
  int layer_;
};

}  // namespace moebius
