// Token exchange on two levels (DeepSeek-V3 §3.2.2; deepseek.md 2.6), for links between nodes that are slower
// than those inside: a token crosses to each node that it needs once, to the member with its source's local
// index, its forwarder, which hands it on to the node's experts. On the way back the forwarder sums the
// token's rows, and one row crosses. Dropless.
//
// Rows of one expert arrive as in the flat exchange, by (source rank, token), and sums have its order too
// (row_sums.h): both give the same bits. Everything is posted on the exchange stream; copies between formats
// and partial sums run in its thread; posting waits for nobody. The one host synchronisation is the reading
// of experts and weights in PostDispatch. x and dy stay valid and unchanged until the wait that follows their
// post (layer.h keeps them longer).
//
// Bytes. For one group of P = N nodes x L members with E experts each, one layer, one microbatch, summed over
// the members: C pairs (token, other node that it needs), X choices on other nodes than their token's, W
// choices whose expert's member has another local index than the token's source, S the rest; d and c bytes of
// a row in the formats of dispatch and combine (RowBytes):
//                      between nodes              within a node           to itself
//   dispatch           16 P (N-1) + C d + 8 X     8 E N P (L-1) + W (d+4)   8 E N P + S (d+4)
//   combine            C c                        W c                     S c
//   combine backward   C d                        W d                     S d
//   dispatch backward  C c + 4 X                  W (c+4)                 S (c+4)
// The flat exchange sends X rows where this sends C: with 8 experts on at most 4 nodes X / C is 2 and more.
#pragma once

#include <functional>
#include <memory>

#include "core/layers/seams.h"
#include "parallel/comm/communicator.h"
#include "parallel/exchange/buffer_pool.h"
#include "parallel/exchange/exchange_options.h"
#include "parallel/node_map.h"

namespace moebius {

// An expert group with its two directions, for any number of exchanges.
struct TwoLevelGroups {
  NodeMap nodes;                         // of the group's members
  int member;                            // this rank in the group
  std::unique_ptr<Communicator> across;  // members with this local index, by node
  std::unique_ptr<Communicator> inside;  // members on this node, by local index
};
// Collective over an evenly spread group; waits for the stream.
absl::StatusOr<TwoLevelGroups> SplitByNode(Communicator& group, Stream& stream, const NodeMap& nodes);

class TwoLevelExchange final : public TokenExchange {
 public:
  // num_experts: of the model; rank r of the group holds [r, r + 1) * num_experts / size. All outlive the
  // exchange and its handles. layer: for purposes.
  TwoLevelExchange(const TwoLevelGroups& groups, Stream& stream, BufferPool& pool, int64_t num_experts,
                   int layer, const ExchangeOptions& options);

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
  enum class Direction { kForward, kBackward };

  // Steps of a post, in order; each queues work on the exchange stream.
  void Begin(const Context& context, Route& route);
  void CrossSizes(Route& route);
  void CrossRows(Route& route, TensorView x, Direction direction);
  void Plan(Route& route);
  void FanOut(Route& route, Direction direction);
  void FanIn(Route& route, TensorView rows, TensorView numbers, Direction direction);
  void CrossSums(Route& route, Direction direction);
  void End(Route& route);
  void Wait(const Context& context, Route& route);

  // Queues work that is left out once the world has failed: what has arrived then means nothing.
  void Enqueue(std::function<void()> work);
  void AllToAll(Communicator& group, const char* what, std::function<void(PeerPieces&)> fill);

  TensorView Returned(const Context& context, const Route& route) const;  // [n, hidden] act
  bool failed() const { return !groups_.across->status().ok(); }
  int nodes() const { return groups_.nodes.nodes(); }
  int locals() const { return groups_.nodes.locals(); }

  const TwoLevelGroups& groups_;
  Stream& stream_;
  BufferPool& pool_;
  int64_t experts_per_rank_;
  int layer_;
  ExchangeOptions options_;
  int own_;  // node
};

}  // namespace moebius
