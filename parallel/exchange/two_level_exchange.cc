#include "parallel/exchange/two_level_exchange.h"

#include <utility>

#include "core/backend/ops.h"
#include "core/base/status.h"
#include "parallel/exchange/row_format.h"
#include "parallel/exchange/row_pieces.h"
#include "parallel/exchange/two_level_plan.h"

namespace moebius {

// One microbatch's way through one layer. What is written after Post is written on the exchange stream and
// read by others after `done`.
struct TwoLevelExchange::Route final : TokenExchange::Handle {
  explicit Route(Stream& exchange) : stream(exchange) {}
  ~Route() override {
    if (in_flight) stream.Synchronize();  // what is queued there works on this
  }

  Stream& stream;
  Arena* memory = nullptr;
  DType act = DType::kF32;
  int64_t hidden = 0, tokens = 0, top_k = 0;
  RowFormat dispatch = RowFormat::kF32, combine = RowFormat::kF32;
  std::unique_ptr<Event> ready, done;
  bool in_flight = false;

  // As a source. By node:
  std::vector<NodeRoute> routes;
  std::vector<std::vector<float>> weights;     // of routes[n].choices
  std::vector<int64_t> sizes, sizes_arriving;  // [N, 2]: tokens, choices
  ReturnPlan returns;
  // As a forwarder, by source node:
  std::vector<std::vector<int32_t>> codes;
  std::vector<std::vector<float>> weights_arriving;
  ForwardPlan forward;
  RowGroups foreign;
  std::vector<float> sorted_weights;  // in the order of sorted rows
  std::vector<float> foreign_numbers;
  // As the experts' rank.
  std::vector<int64_t> counts;  // [L, E, N] rows that arrive
  ReceivePlan receive;

  TensorView wire_x;            // [T, RowBytes(dispatch)]: x or dy as it travels
  BufferPool::Buffer encoded;   // its memory, or that of a combine's rows, where that is another format
  BufferPool::Buffer arrived;   // rows of other nodes' tokens held to be handed on
  BufferPool::Buffer landed;    // rows for this rank's experts, before they are decoded
  BufferPool::Buffer received;  // [R, hidden] act, and row weights
  BufferPool::Buffer returned;  // see ReturnPlan
  Dispatched dispatched;
  TensorView row_of, number_of, d_rows;

  int64_t rows() const { return receive.offsets.back(); }
  int64_t dispatch_bytes() const { return RowBytes(dispatch, hidden); }
  int64_t combine_bytes() const { return RowBytes(combine, hidden); }
  RowsAndNumbers Received() const { return Split(received, rows(), hidden * SizeOf(act), rows()); }
  int64_t first_sorted() const { return returns.foreign_tokens; }
  RowsAndNumbers Back() const {
    return Split(returned, first_sorted() + forward.choices(), combine_bytes(),
                 returns.foreign_choices + forward.choices());
  }
};

namespace {

template <typename T>
MemoryPiece PieceOf(std::vector<T>& values) {
  return {values.data(), static_cast<int64_t>(values.size() * sizeof(T))};
}

}  // namespace

absl::StatusOr<TwoLevelGroups> SplitByNode(Communicator& group, Stream& stream, const NodeMap& nodes) {
  CHECK(nodes.even());
  const int member = group.rank(), node = nodes.node_of(member), local = nodes.local_of(member);
  TwoLevelGroups out{.nodes = nodes, .member = member, .across = nullptr, .inside = nullptr};
  ASSIGN_OR_RETURN(out.across, group.Split(stream, group.name() + " across nodes", local, node));
  ASSIGN_OR_RETURN(out.inside, group.Split(stream, group.name() + " on node", node, local));
  return out;
}

TwoLevelExchange::TwoLevelExchange(const TwoLevelGroups& groups, Stream& stream, BufferPool& pool,
                                   int64_t num_experts, int layer, const ExchangeOptions& options)
    : groups_(groups),
      stream_(stream),
      pool_(pool),
      experts_per_rank_(num_experts / (groups.nodes.nodes() * groups.nodes.locals())),
      layer_(layer),
      options_(options),
      own_(groups.nodes.node_of(groups.member)) {
  CHECK_EQ(experts_per_rank_ * nodes() * locals(), num_experts);
}

void TwoLevelExchange::Enqueue(std::function<void()> work) {
  stream_.Enqueue([this, work = std::move(work)] {
    if (!failed()) work();
  });
}

void TwoLevelExchange::AllToAll(Communicator& group, const char* what,
                                std::function<void(PeerPieces&)> fill) {
  PostPieces(group, stream_, {.what = what, .layer = layer_}, std::move(fill));
}

void TwoLevelExchange::Begin(const Context& context, Route& route) {
  context.stream.Record(*route.ready);
  stream_.Wait(*route.ready);
  route.in_flight = true;
}

void TwoLevelExchange::End(Route& route) { stream_.Record(*route.done); }

void TwoLevelExchange::Wait(const Context& context, Route& route) {
  context.stream.Wait(*route.done);
  route.in_flight = false;
  for (BufferPool::Buffer* buffer : {&route.encoded, &route.arrived, &route.landed}) buffer->Release();
}

void TwoLevelExchange::CrossSizes(Route& route) {
  AllToAll(*groups_.across, "dispatch sizes", [this, &route](PeerPieces& pieces) {
    constexpr int64_t kBytes = 2 * sizeof(int64_t);
    route.sizes_arriving = route.sizes;  // those of this node are right
    for (int n = 0; n < nodes(); ++n) {
      if (n == own_) continue;
      pieces.send[n] = {{&route.sizes[2 * n], kBytes}};
      pieces.receive[n] = {{&route.sizes_arriving[2 * n], kBytes}};
    }
  });
}

// Each token to the nodes that need it, with what it wants there.
void TwoLevelExchange::CrossRows(Route& route, TensorView x, Direction direction) {
  const bool forward = direction == Direction::kForward;
  route.wire_x = BytesOfRows(x);
  if (route.dispatch != FormatOf(route.act)) {
    Enqueue([this, &route, x] {
      route.encoded = pool_.Take(route.tokens * route.dispatch_bytes());
      route.wire_x = route.encoded.View(DType::kU8, {route.tokens, route.dispatch_bytes()});
      EncodeRows(x, route.dispatch, route.wire_x);
    });
  }
  AllToAll(*groups_.across, forward ? "dispatch to nodes" : "combine backward to nodes",
           [this, &route, forward](PeerPieces& pieces) {
             int64_t tokens = 0;
             for (int n = 0; n < nodes(); ++n) tokens += n == own_ ? 0 : route.sizes_arriving[2 * n];
             route.arrived = pool_.Take(tokens * route.dispatch_bytes());
             const TensorView to = route.arrived.View(DType::kU8, {tokens, route.dispatch_bytes()});
             int64_t row = 0;
             for (int n = 0; n < nodes(); ++n) {
               if (n == own_) continue;
               for (const int32_t token : route.routes[n].tokens) {
                 AddRows(route.wire_x, token, 1, pieces.send[n]);
               }
               AddRows(to, row, route.sizes_arriving[2 * n], pieces.receive[n]);
               row += route.sizes_arriving[2 * n];
               if (!forward) continue;
               route.codes[n].resize(route.sizes_arriving[2 * n + 1]);
               route.weights_arriving[n].resize(route.codes[n].size());
               pieces.send[n].push_back(PieceOf(route.routes[n].codes));
               pieces.send[n].push_back(PieceOf(route.weights[n]));
               pieces.receive[n].push_back(PieceOf(route.codes[n]));
               pieces.receive[n].push_back(PieceOf(route.weights_arriving[n]));
             }
           });
}

// What a forwarder does with what has arrived, and what comes to this rank's experts.
void TwoLevelExchange::Plan(Route& route) {
  Enqueue([this, &route] {
    route.codes[own_] = route.routes[own_].codes;
    route.weights_arriving[own_] = route.weights[own_];
    route.forward = PlanForward(route.codes, locals(), experts_per_rank_);
    route.returns = PlanReturn(route.routes, route.forward, route.tokens, route.top_k, own_);
    route.foreign = ForeignSums(route.forward, own_, route.first_sorted());
    route.sorted_weights.resize(route.forward.choices());
    size_t choice = 0;
    for (const auto& weights : route.weights_arriving) {
      for (const float weight : weights) route.sorted_weights[route.forward.row_of[choice++]] = weight;
    }
  });
  AllToAll(*groups_.inside, "dispatch counts", [this, &route](PeerPieces& pieces) {
    const int64_t each = experts_per_rank_ * nodes();
    route.counts.resize(each * locals());
    for (int l = 0; l < locals(); ++l) {
      pieces.send[l] = {{&route.forward.counts[l * each], each * int64_t{sizeof(int64_t)}}};
      pieces.receive[l] = {{&route.counts[l * each], each * int64_t{sizeof(int64_t)}}};
    }
  });
}

namespace {

// The stretches of `x` that come from, or go back to, forwarder l.
void AddBlocks(const std::vector<int64_t>& starts, const std::vector<int64_t>& counts, int l, int locals,
               TensorView x, Pieces& pieces) {
  const int64_t each = static_cast<int64_t>(counts.size()) / locals;
  for (int64_t b = l * each; b < (l + 1) * each; ++b) AddRows(x, starts[b], counts[b], pieces);
}

}  // namespace

void TwoLevelExchange::FanOut(Route& route, Direction direction) {
  const bool forward = direction == Direction::kForward;
  const bool decode = route.dispatch != FormatOf(route.act);
  AllToAll(
      *groups_.inside, forward ? "dispatch to experts" : "combine backward to experts",
      [this, &route, forward, decode](PeerPieces& pieces) {
        if (forward) {
          route.receive = PlanReceive(route.counts, experts_per_rank_, groups_.nodes);
          route.received = pool_.Take(BytesOf(route.rows(), route.hidden * SizeOf(route.act), route.rows()));
        }
        TensorView to = forward ? route.Received().rows : BytesOfRows(route.d_rows);
        if (decode) {
          route.landed = pool_.Take(route.rows() * route.dispatch_bytes());
          to = route.landed.View(DType::kU8, {route.rows(), route.dispatch_bytes()});
        }
        // The tokens held, by source node: this node's lie where they were, the others' in `arrived`.
        std::vector<uint8_t*> held;
        uint8_t* arrived = route.arrived.View(DType::kU8, {1}).as<uint8_t>();
        for (int n = 0; n < nodes(); ++n) {
          for (int64_t t = 0; t < route.sizes_arriving[2 * n]; ++t) {
            held.push_back(n == own_
                               ? route.wire_x.as<uint8_t>() + route.routes[n].tokens[t] * route.wire_x.stride
                               : std::exchange(arrived, arrived + route.dispatch_bytes()));
          }
        }
        const ForwardPlan& plan = route.forward;
        for (int l = 0; l < locals(); ++l) {
          const int64_t first = plan.offsets[l * experts_per_rank_];
          const int64_t last = plan.offsets[(l + 1) * experts_per_rank_];
          for (int64_t r = first; r < last; ++r) {
            pieces.send[l].push_back({held[plan.token_of[r]], route.dispatch_bytes()});
          }
          AddBlocks(route.receive.starts, route.counts, l, locals(), to, pieces.receive[l]);
          if (!forward) continue;
          pieces.send[l].push_back(
              {route.sorted_weights.data() + first, (last - first) * int64_t{sizeof(float)}});
          AddBlocks(route.receive.starts, route.counts, l, locals(), route.Received().numbers,
                    pieces.receive[l]);
        }
      });
  if (!decode) return;
  Enqueue([&route, forward] {
    DecodeRows(route.landed.View(DType::kU8, {route.rows(), route.dispatch_bytes()}), route.dispatch,
               forward ? As(route.Received().rows, route.act, route.hidden) : route.d_rows);
  });
}

// Experts' rows back to the forwarders.
void TwoLevelExchange::FanIn(Route& route, TensorView rows, TensorView numbers, Direction direction) {
  const bool encode = route.combine != FormatOf(route.act);
  if (encode) {
    Enqueue([this, &route, rows] {
      route.encoded = pool_.Take(route.rows() * route.combine_bytes());
      EncodeRows(rows, route.combine, route.encoded.View(DType::kU8, {route.rows(), route.combine_bytes()}));
    });
  }
  AllToAll(*groups_.inside,
           direction == Direction::kForward ? "combine on the node" : "dispatch backward on the node",
           [this, &route, rows, numbers, encode](PeerPieces& pieces) {
             const TensorView from =
                 encode ? route.encoded.View(DType::kU8, {route.rows(), route.combine_bytes()})
                        : BytesOfRows(rows);
             const int64_t choices = route.forward.choices();
             route.returned = pool_.Take(BytesOf(route.first_sorted() + choices, route.combine_bytes(),
                                                 route.returns.foreign_choices + choices));
             const auto [to, to_numbers] = route.Back();
             for (int l = 0; l < locals(); ++l) {
               const int64_t first = route.forward.offsets[l * experts_per_rank_];
               const int64_t count = route.forward.offsets[(l + 1) * experts_per_rank_] - first;
               AddBlocks(route.receive.starts, route.counts, l, locals(), from, pieces.send[l]);
               AddRows(to, route.first_sorted() + first, count, pieces.receive[l]);
               if (!numbers) continue;
               AddBlocks(route.receive.starts, route.counts, l, locals(), numbers, pieces.send[l]);
               AddRows(to_numbers, route.returns.foreign_choices + first, count, pieces.receive[l]);
             }
           });
}

// The sums of other nodes' tokens to their sources, and the numbers of a dispatch's backward.
void TwoLevelExchange::CrossSums(Route& route, Direction direction) {
  const bool backward = direction == Direction::kBackward;
  Enqueue([&route, backward] {
    const auto [rows, numbers] = route.Back();
    SumInPlace(route.combine, route.hidden, route.foreign, rows);
    if (!backward) return;
    const float* sorted = numbers.as<float>() + route.returns.foreign_choices;
    route.foreign_numbers.resize(route.forward.choices());
    for (size_t c = 0; c < route.foreign_numbers.size(); ++c) {
      route.foreign_numbers[c] = sorted[route.forward.row_of[c]];
    }
  });
  AllToAll(*groups_.across, backward ? "dispatch backward between nodes" : "combine between nodes",
           [this, &route, backward](PeerPieces& pieces) {
             const auto [rows, numbers] = route.Back();
             int64_t group = 0, row = 0, number = 0;
             for (int n = 0; n < nodes(); ++n) {
               if (n == own_) continue;
               for (int64_t t = 0; t < route.sizes_arriving[2 * n]; ++t) {
                 AddRows(rows, route.foreign.first(group++), 1, pieces.send[n]);
               }
               const int64_t tokens = route.sizes[2 * n], choices = route.sizes[2 * n + 1];
               AddRows(rows, row, tokens, pieces.receive[n]);
               row += tokens;
               if (!backward) continue;
               pieces.send[n].push_back({route.foreign_numbers.data() + route.forward.first_choice_of(n),
                                         route.sizes_arriving[2 * n + 1] * int64_t{sizeof(float)}});
               AddRows(numbers, number, choices, pieces.receive[n]);
               number += choices;
             }
           });
}

TensorView TwoLevelExchange::Returned(const Context& context, const Route& route) const {
  const TensorView rows = route.Back().rows;
  if (route.combine == FormatOf(route.act)) return As(rows, route.act, route.hidden);
  const TensorView wide = context.scratch.New(route.act, {rows.rows(), route.hidden});
  Cast(context, As(rows, DType::kBF16, route.hidden), wide);
  return wide;
}

std::unique_ptr<TokenExchange::Handle> TwoLevelExchange::PostDispatch(const Context& context, Arena& memory,
                                                                      TensorView x, TensorView experts,
                                                                      TensorView weights) {
  auto owned = std::make_unique<Route>(stream_);
  Route& route = *owned;
  route.memory = &memory;
  route.act = x.dtype;
  route.hidden = x.cols();
  route.tokens = experts.rows();
  route.top_k = experts.cols();
  route.dispatch = FormatOf(options_.dispatch, x.dtype);
  route.combine = FormatOf(options_.combine, x.dtype);
  route.ready = context.backend.NewEvent();
  route.done = context.backend.NewEvent();
  route.row_of = memory.New(DType::kI32, experts.shape);
  route.number_of = memory.New(DType::kI32, {experts.elements()});

  std::vector<int32_t> chosen(experts.elements());
  std::vector<float> chosen_weights(chosen.size());
  context.backend.CopyToHost(context.stream, experts, chosen.data());
  context.backend.CopyToHost(context.stream, weights, chosen_weights.data());
  context.stream.Synchronize();
  route.routes = PlanSource(chosen, route.top_k, experts_per_rank_, groups_.nodes);
  route.codes.resize(nodes());
  route.weights.resize(nodes());
  route.weights_arriving.resize(nodes());
  for (int n = 0; n < nodes(); ++n) {
    for (const int32_t choice : route.routes[n].choices) route.weights[n].push_back(chosen_weights[choice]);
    route.sizes.push_back(static_cast<int64_t>(route.routes[n].tokens.size()));
    route.sizes.push_back(static_cast<int64_t>(route.routes[n].choices.size()));
  }
  Begin(context, route);
  CrossSizes(route);
  CrossRows(route, x, Direction::kForward);
  Plan(route);
  FanOut(route, Direction::kForward);
  End(route);
  return owned;
}

TokenExchange::Dispatched TwoLevelExchange::WaitDispatch(const Context& context, Handle& handle) {
  Route& route = static_cast<Route&>(handle);
  if (route.dispatched.offsets) return route.dispatched;
  Wait(context, route);
  if (!route.received) {  // the world failed before the rows
    route.receive.offsets.assign(experts_per_rank_ + 1, 0);
    route.received = pool_.Take(64);
  } else {
    context.backend.CopyToDevice(context.stream, route.returns.row_of.data(), route.row_of);
    context.backend.CopyToDevice(context.stream, route.returns.number_of.data(), route.number_of);
  }
  const auto [rows, numbers] = route.Received();
  route.dispatched = {.rows = As(rows, route.act, route.hidden),
                      .row_weights = numbers,
                      .offsets = route.memory->New(DType::kI64, {experts_per_rank_ + 1})};
  context.backend.CopyToDevice(context.stream, route.receive.offsets.data(), route.dispatched.offsets);
  return route.dispatched;
}

void TwoLevelExchange::PostCombine(const Context& context, Handle& handle, TensorView rows) {
  Route& route = static_cast<Route&>(handle);
  Begin(context, route);
  FanIn(route, rows, TensorView(), Direction::kForward);
  CrossSums(route, Direction::kForward);
  End(route);
}

void TwoLevelExchange::WaitCombine(const Context& context, Handle& handle, TensorView add, TensorView y) {
  Route& route = static_cast<Route&>(handle);
  Wait(context, route);
  if (!route.returned) return Zero(context, y);  // the world has failed
  ArenaScope scope(context.scratch);
  CombineRows(context, {.rows = Returned(context, route), .row_of = route.row_of, .add = add, .out = y});
  route.returned.Release();
}

void TwoLevelExchange::PostCombineBackward(const Context& context, Arena& memory, Handle& handle,
                                           TensorView dy) {
  Route& route = static_cast<Route&>(handle);
  route.d_rows = memory.New(route.act, {route.rows(), route.hidden});
  Begin(context, route);
  CrossRows(route, dy, Direction::kBackward);
  FanOut(route, Direction::kBackward);
  End(route);
}

TensorView TwoLevelExchange::WaitCombineBackward(const Context& context, Handle& handle) {
  Route& route = static_cast<Route&>(handle);
  Wait(context, route);
  return route.d_rows;
}

void TwoLevelExchange::PostDispatchBackward(const Context& context, Handle& handle, TensorView d_rows,
                                            TensorView d_row_weights) {
  Route& route = static_cast<Route&>(handle);
  Begin(context, route);
  FanIn(route, d_rows, d_row_weights, Direction::kBackward);
  CrossSums(route, Direction::kBackward);
  End(route);
}

void TwoLevelExchange::WaitDispatchBackward(const Context& context, Handle& handle, TensorView add,
                                            TensorView dx, TensorView dweights) {
  Route& route = static_cast<Route&>(handle);
  Wait(context, route);
  if (!route.returned) {
    Zero(context, dx);
    return Zero(context, dweights);
  }
  {
    ArenaScope scope(context.scratch);
    CombineRows(context, {.rows = Returned(context, route), .row_of = route.row_of, .add = add, .out = dx});
  }
  const TensorView numbers = route.Back().numbers;
  GatherRows(context, {.x = numbers.Reshape({numbers.elements(), 1}),
                       .index = route.number_of,
                       .out = dweights.Reshape({dweights.elements(), 1})});
  route.returned.Release();
}

}  // namespace moebius
