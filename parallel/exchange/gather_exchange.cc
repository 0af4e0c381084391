#include "parallel/exchange/gather_exchange.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "core/backend/ops.h"
#include "parallel/exchange/row_pieces.h"

namespace moebius {

// One microbatch's way through one layer. Legend: T tokens here, N in the group, R rows that there is room
// for.
struct GatherExchange::Route final : TokenExchange::Handle {
  explicit Route(Stream& exchange) : stream(exchange) {}
  ~Route() override {
    if (in_flight) stream.Synchronize();  // what is queued there works on this
  }

  Stream& stream;
  Arena* memory = nullptr;
  DType act = DType::kF32;
  int64_t hidden = 0, top_k = 0;
  int64_t own = 0;               // T
  bool failed = false;           // the world, before the tokens were here
  std::unique_ptr<Event> ready;  // what is sent is there
  std::unique_ptr<Event> done;   // the latest transfer has passed
  bool in_flight = false;

  // Written on the exchange stream, read after `done`.
  std::vector<int64_t> tokens;  // of each rank
  BufferPool::Buffer gathered;  // the tokens: rows [N, hidden] act, weights [N, K] f32, experts [N, K] i32

  TensorView row_of;            // [N, K] i32: the row here of each choice in the group, or kNoRow
  TensorView choice_of;         // [R] i32
  BufferPool::Buffer received;  // rows [R, hidden] act, then weights [R] f32
  BufferPool::Buffer sums;      // of each token of the group: [N, hidden] act, [N, K] f32; in flight
  BufferPool::Buffer returned;  // of each token here: [T, hidden] act, [T, K] f32
  Dispatched dispatched;        // views of `received`, from the first WaitDispatch on
  TensorView d_rows;

  int64_t group_tokens() const { return std::accumulate(tokens.begin(), tokens.end(), int64_t{0}); }  // N
  int64_t row_bytes() const { return hidden * SizeOf(act); }
  RowsAndNumbers Of(const BufferPool::Buffer& buffer, int64_t n, int64_t numbers) const {
    RowsAndNumbers parts = Split(buffer, n, row_bytes(), numbers);
    parts.rows = As(parts.rows, act, hidden);
    return parts;
  }
  // Each is [N, ..].
  struct Tokens {
    TensorView rows, weights, experts;
  };
  Tokens Gathered() const {
    const int64_t n = group_tokens();
    const auto [rows, numbers] = Of(gathered, n, 2 * n * top_k);
    const TensorView experts = numbers.Rows(n * top_k, n * top_k);
    return {.rows = rows,
            .weights = numbers.Rows(0, n * top_k).Reshape({n, top_k}),
            .experts = TensorView(experts.data, DType::kI32, {n, top_k})};
  }
};

namespace {

// `own` goes to everybody; everybody's come to `all`, one after another.
void AddGather(const std::vector<int64_t>& tokens, TensorView own, TensorView all, PeerPieces& pieces) {
  int64_t first = 0;
  for (size_t r = 0; r < tokens.size(); ++r) {
    AddRows(own, 0, own.rows(), pieces.send[r]);
    AddRows(all, std::exchange(first, first + tokens[r]), tokens[r], pieces.receive[r]);
  }
}

// to = add (or 0) + x; all [T, n].
void AddTo(const Context& context, TensorView add, TensorView x, TensorView to) {
  if (!add) return Cast(context, x, to);
  if (add.data != to.data) Cast(context, add, to);
  Accumulate(context, {.x = x, .y = to});
}

}  // namespace

GatherExchange::GatherExchange(Communicator& group, Stream& stream, BufferPool& pool, int64_t num_experts,
                               int layer)
    : group_(group), stream_(stream), pool_(pool), local_experts_(num_experts / group.size()), layer_(layer) {
  CHECK_EQ(local_experts_ * group.size(), num_experts);
}

// Later work on the exchange stream finds what the compute stream has made.
void GatherExchange::Begin(const Context& context, Route& route) {
  context.stream.Record(*route.ready);
  stream_.Wait(*route.ready);
  route.in_flight = true;
}

void GatherExchange::Gather(Route& route, const char* what, std::function<void(PeerPieces&)> fill) {
  PostPieces(group_, stream_, {.what = what, .layer = layer_}, std::move(fill));
  stream_.Record(*route.done);
}

// mine [T, width] = the sum of the ranks' sums [N, width], of the tokens here.
void GatherExchange::Reduce(Route& route, const char* what, TensorView sums, int64_t width, TensorView mine) {
  std::vector<int64_t> counts;
  for (const int64_t tokens : route.tokens) counts.push_back(tokens * width);
  group_.ReduceScatterV(stream_, {.what = what, .layer = layer_}, sums.Reshape({sums.elements()}), counts,
                        mine.Reshape({mine.elements()}));
  stream_.Record(*route.done);
}

void GatherExchange::Wait(const Context& context, Route& route) {
  context.stream.Wait(*route.done);
  route.in_flight = false;
}

std::unique_ptr<TokenExchange::Handle> GatherExchange::PostDispatch(const Context& context, Arena& memory,
                                                                    TensorView x, TensorView experts,
                                                                    TensorView weights) {
  auto owned = std::make_unique<Route>(stream_);
  Route& route = *owned;
  route.memory = &memory;
  route.act = x.dtype;
  route.hidden = x.cols();
  route.top_k = experts.cols();
  route.own = x.rows();
  route.tokens.resize(group_.size());
  route.ready = context.backend.NewEvent();
  route.done = context.backend.NewEvent();
  Begin(context, route);
  Gather(route, "tokens of each rank", [this, &route](PeerPieces& pieces) {
    for (int r = 0; r < group_.size(); ++r) {
      pieces.send[r] = {{&route.own, sizeof route.own}};
      pieces.receive[r] = {{&route.tokens[r], sizeof route.own}};
    }
  });
  Gather(route, "dispatch", [this, &route, x, experts, weights](PeerPieces& pieces) {
    const int64_t n = route.group_tokens();
    route.gathered = pool_.Take(BytesOf(n, route.row_bytes(), 2 * n * route.top_k));
    const Route::Tokens all = route.Gathered();
    AddGather(route.tokens, x, all.rows, pieces);
    AddGather(route.tokens, weights, all.weights, pieces);
    AddGather(route.tokens, experts, all.experts, pieces);
  });
  return owned;
}

TokenExchange::Dispatched GatherExchange::WaitDispatch(const Context& context, Handle& handle) {
  Route& route = static_cast<Route&>(handle);
  if (route.dispatched.offsets) return route.dispatched;
  Wait(context, route);
  route.failed = !route.gathered || !group_.status().ok();
  if (route.failed) std::fill(route.tokens.begin(), route.tokens.end(), 0);
  const int64_t n = route.group_tokens(), room = n * std::min(route.top_k, local_experts_);
  route.received = pool_.Take(BytesOf(room, route.row_bytes(), room));
  const auto [rows, row_weights] = route.Of(route.received, room, room);
  route.dispatched = {.rows = rows,
                      .row_weights = row_weights,
                      .offsets = route.memory->New(DType::kI64, {local_experts_ + 1})};
  if (route.failed) {
    Zero(context, route.dispatched.offsets);
    return route.dispatched;
  }
  route.row_of = route.memory->New(DType::kI32, {n, route.top_k});
  route.choice_of = route.memory->New(DType::kI32, {room});
  const Route::Tokens all = route.Gathered();
  RouteSort(context, {.experts = all.experts,
                      .offsets = route.dispatched.offsets,
                      .row_of = route.row_of,
                      .choice_of = route.choice_of,
                      .first = static_cast<int32_t>(group_.rank() * local_experts_),
                      .others = true});
  GatherRows(
      context,
      {.x = all.rows, .index = route.choice_of, .divisor = static_cast<int32_t>(route.top_k), .out = rows});
  GatherRows(context, {.x = all.weights.Reshape({n * route.top_k, 1}),
                       .index = route.choice_of,
                       .out = row_weights.Reshape({room, 1})});
  route.gathered.Release();
  return route.dispatched;
}

void GatherExchange::PostCombine(const Context& context, Handle& handle, TensorView rows) {
  Route& route = static_cast<Route&>(handle);
  if (route.failed) return;
  const int64_t n = route.group_tokens();
  route.sums = pool_.Take(BytesOf(n, route.row_bytes(), 0));
  route.returned = pool_.Take(BytesOf(route.own, route.row_bytes(), 0));
  const TensorView sums = route.Of(route.sums, n, 0).rows;
  CombineRows(context, {.rows = rows, .row_of = route.row_of, .out = sums});
  Begin(context, route);
  Reduce(route, "combine", sums, route.hidden, route.Of(route.returned, route.own, 0).rows);
}

void GatherExchange::WaitCombine(const Context& context, Handle& handle, TensorView add, TensorView y) {
  Route& route = static_cast<Route&>(handle);
  if (route.failed) return Zero(context, y);
  Wait(context, route);
  AddTo(context, add, route.Of(route.returned, route.own, 0).rows, y);
  route.sums.Release();
  route.returned.Release();
}

void GatherExchange::PostCombineBackward(const Context& context, Arena& memory, Handle& handle,
                                         TensorView dy) {
  Route& route = static_cast<Route&>(handle);
  route.d_rows = memory.New(route.act, route.dispatched.rows.shape);
  if (route.failed) return;
  Begin(context, route);
  Gather(route, "combine backward", [this, &route, dy](PeerPieces& pieces) {
    route.gathered = pool_.Take(BytesOf(route.group_tokens(), route.row_bytes(), 0));
    AddGather(route.tokens, dy, route.Of(route.gathered, route.group_tokens(), 0).rows, pieces);
  });
}

TensorView GatherExchange::WaitCombineBackward(const Context& context, Handle& handle) {
  Route& route = static_cast<Route&>(handle);
  if (route.failed) return route.d_rows;
  Wait(context, route);
  if (!route.gathered) return route.d_rows;  // the world has failed
  GatherRows(context, {.x = route.Of(route.gathered, route.group_tokens(), 0).rows,
                       .index = route.choice_of,
                       .divisor = static_cast<int32_t>(route.top_k),
                       .out = route.d_rows});
  route.gathered.Release();
  return route.d_rows;
}

void GatherExchange::PostDispatchBackward(const Context& context, Handle& handle, TensorView d_rows,
                                          TensorView d_row_weights) {
  Route& route = static_cast<Route&>(handle);
  if (route.failed) return;
  const int64_t n = route.group_tokens(), choices = n * route.top_k, own = route.own * route.top_k;
  route.sums = pool_.Take(BytesOf(n, route.row_bytes(), choices));
  route.returned = pool_.Take(BytesOf(route.own, route.row_bytes(), own));
  const auto [sums, weight_sums] = route.Of(route.sums, n, choices);
  CombineRows(context, {.rows = d_rows, .row_of = route.row_of, .out = sums});
  // Of one choice each: its own rank's, the others' are 0.
  CombineRows(context, {.rows = d_row_weights.Reshape({d_row_weights.elements(), 1}),
                        .row_of = route.row_of.Reshape({choices, 1}),
                        .out = weight_sums.Reshape({choices, 1})});
  const auto [mine, my_weights] = route.Of(route.returned, route.own, own);
  Begin(context, route);
  Reduce(route, "dispatch backward", sums, route.hidden, mine);
  Reduce(route, "weights backward", weight_sums, route.top_k, my_weights);
}

void GatherExchange::WaitDispatchBackward(const Context& context, Handle& handle, TensorView add,
                                          TensorView dx, TensorView dweights) {
  Route& route = static_cast<Route&>(handle);
  if (route.failed) {
    Zero(context, dx);
    return Zero(context, dweights);
  }
  Wait(context, route);
  const auto [mine, my_weights] = route.Of(route.returned, route.own, route.own * route.top_k);
  AddTo(context, add, mine, dx);
  Cast(context, my_weights.Reshape(dweights.shape), dweights);
  route.sums.Release();
  route.returned.Release();
}

}  // namespace moebius
