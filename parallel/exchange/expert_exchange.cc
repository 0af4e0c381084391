#include "parallel/exchange/expert_exchange.h"

#include <utility>

#include "core/backend/ops.h"
#include "parallel/exchange/row_format.h"
#include "parallel/exchange/row_pieces.h"

namespace moebius {

// One microbatch's way through one layer. Legend: S = T * K rows sent, sorted by expert; R rows received.
struct ExpertExchange::Route final : TokenExchange::Handle {
  explicit Route(Stream& exchange) : stream(exchange) {}
  ~Route() override {
    if (in_flight) stream.Synchronize();  // what is queued there works on this
  }

  Stream& stream;
  Arena* memory = nullptr;
  TensorView row_of;         // [T, K] i32
  TensorView choice_of;      // [S] i32
  TensorView terms;          // [T, K] i32: the rows of each token's sum; row_of on one node
  TensorView foreign;        // [G, K] i32: rows of other nodes that are summed first, into the first of each
  TensorView foreign_first;  // [G] i32
  DType act = DType::kF32;
  int64_t hidden = 0;
  RowFormat dispatch = RowFormat::kF32, combine = RowFormat::kF32;
  std::vector<int64_t> sent_offsets;   // [experts + 1]: rows of each expert among those sent
  std::vector<int64_t> counts;         // [experts]: of those sent
  std::vector<int64_t> arriving;       // [size, local experts]: rows from each rank for each expert
  std::vector<int32_t> sorted_tokens;  // [S] the token of a row, where rows are sent from `encoded`
  std::unique_ptr<Event> ready;        // what is sent is there
  std::unique_ptr<Event> done;         // the latest transfer has passed
  bool in_flight = false;

  // Written on the exchange stream, read after `done`.
  std::vector<int64_t> offsets;  // [local experts + 1]: rows of each local expert among those received
  BufferPool::Buffer received;   // rows [R, hidden] act, then weights [R] f32
  BufferPool::Buffer encoded;    // tokens (dispatch) or rows (combine) in a format that is not act
  BufferPool::Buffer landed;     // rows received, before they are decoded

  BufferPool::Buffer outgoing;  // [S, hidden] act (none where tokens are encoded) and [S] f32, in flight
  BufferPool::Buffer returned;  // S rows in the combine's format, [S] f32: coming back
  Dispatched dispatched;        // views of `received`, from the first WaitDispatch on
  TensorView d_rows;

  int64_t sent() const { return choice_of.elements(); }
  int64_t rows() const { return offsets.empty() ? 0 : offsets.back(); }
  int64_t row_bytes() const { return hidden * SizeOf(act); }
  int64_t combine_bytes() const { return RowBytes(combine, hidden); }
  bool encodes_tokens() const { return dispatch != FormatOf(act); }
  RowsAndNumbers Received() const { return Split(received, rows(), row_bytes(), rows()); }
  int64_t outgoing_rows() const { return encodes_tokens() ? 0 : sent(); }
  RowsAndNumbers Outgoing() const { return Split(outgoing, outgoing_rows(), row_bytes(), sent()); }
  RowsAndNumbers Returned() const { return Split(returned, sent(), combine_bytes(), sent()); }
  TensorView Wire(const BufferPool::Buffer& buffer, int64_t n, RowFormat format) const {
    return buffer.View(DType::kU8, {n, RowBytes(format, hidden)});
  }
};

namespace {

// The pieces of each peer on the side that sorted by expert: one stretch.
void AddSorted(const std::vector<int64_t>& sent_offsets, int64_t local, TensorView x,
               std::vector<Pieces>& pieces) {
  for (size_t r = 0; r < pieces.size(); ++r) {
    const int64_t first = sent_offsets[r * local];
    AddRows(x, first, sent_offsets[(r + 1) * local] - first, pieces[r]);
  }
}

// The same on the experts' side: a stretch for each local expert, where the peer's rows lie among the
// others'.
void AddByExpert(const std::vector<int64_t>& offsets, const std::vector<int64_t>& arriving, TensorView x,
                 std::vector<Pieces>& pieces) {
  const int64_t local = static_cast<int64_t>(offsets.size()) - 1;
  std::vector<int64_t> next(offsets.begin(), offsets.end() - 1);
  for (size_t s = 0; s < pieces.size(); ++s) {
    for (int64_t e = 0; e < local; ++e) {
      AddRows(x, next[e], arriving[s * local + e], pieces[s]);
      next[e] += arriving[s * local + e];
    }
  }
}

}  // namespace

ExpertExchange::ExpertExchange(Communicator& group, const NodeMap& nodes, Stream& stream, BufferPool& pool,
                               int64_t num_experts, int layer, const ExchangeOptions& options)
    : group_(group),
      nodes_(nodes),
      stream_(stream),
      pool_(pool),
      num_experts_(num_experts),
      local_experts_(num_experts / group.size()),
      layer_(layer),
      options_(options) {
  CHECK_EQ(local_experts_ * group.size(), num_experts);
}

// Queued behind what makes ready what is sent.
void ExpertExchange::Post(Route& route, const char* what, std::function<void(PeerPieces&)> fill) {
  PostPieces(group_, stream_, {.what = what, .layer = layer_}, std::move(fill));
  route.in_flight = true;
}

void ExpertExchange::Wait(const Context& context, Route& route) {
  context.stream.Wait(*route.done);
  route.in_flight = false;
  for (BufferPool::Buffer* buffer : {&route.outgoing, &route.encoded, &route.landed}) buffer->Release();
}

// The terms of row_sums.h, from what the host has read of both.
void ExpertExchange::PlanSums(const Context& context, Route& route, const std::vector<int32_t>& experts,
                              const std::vector<int32_t>& row_of) const {
  const int64_t tokens = route.row_of.rows(), top_k = route.row_of.cols();
  const int own = nodes_.node_of(group_.rank());
  std::vector<int32_t> terms(experts.size(), kNoRow), foreign, foreign_first;
  std::vector<std::vector<int32_t>> by_node(nodes_.nodes());
  for (int64_t t = 0; t < tokens; ++t) {
    for (auto& rows : by_node) rows.clear();
    for (int64_t i = t * top_k; i < (t + 1) * top_k; ++i) {
      by_node[nodes_.node_of(static_cast<int>(experts[i] / local_experts_))].push_back(row_of[i]);
    }
    int32_t* next = &terms[t * top_k];
    for (int n = 0; n < nodes_.nodes(); ++n) {
      std::vector<int32_t>& rows = by_node[n];
      if (n == own) {
        next = std::copy(rows.begin(), rows.end(), next);
      } else if (!rows.empty()) {
        *next++ = rows[0];
        if (rows.size() == 1) continue;
        foreign_first.push_back(rows[0]);
        rows.resize(top_k, kNoRow);
        foreign.insert(foreign.end(), rows.begin(), rows.end());
      }
    }
  }
  const auto upload = [&](const std::vector<int32_t>& values, Shape shape) {
    const TensorView view = route.memory->New(DType::kI32, shape);
    context.backend.CopyToDevice(context.stream, values.data(), view);
    return view;
  };
  const int64_t groups = std::ssize(foreign_first);
  route.terms = upload(terms, {tokens, top_k});
  if (groups == 0) return;
  route.foreign = upload(foreign, {groups, top_k});
  route.foreign_first = upload(foreign_first, {groups});
}

void ExpertExchange::SendCounts(Route& route) {
  Post(route, "dispatch counts", [this, &route](PeerPieces& pieces) {
    for (int r = 0; r < group_.size(); ++r) {
      const int64_t bytes = local_experts_ * int64_t{sizeof(int64_t)};
      pieces.send[r] = {{&route.counts[r * local_experts_], bytes}};
      pieces.receive[r] = {{&route.arriving[r * local_experts_], bytes}};
    }
  });
}

// x [T, hidden] as what is sent: sorted rows, or tokens in the wire's format from which rows are picked.
void ExpertExchange::Outgoing(const Context& context, Route& route, TensorView x, TensorView weights) {
  const int32_t top_k = static_cast<int32_t>(route.row_of.cols());
  route.outgoing = pool_.Take(BytesOf(route.outgoing_rows(), route.row_bytes(), route.sent()));
  const auto [rows, numbers] = route.Outgoing();
  if (weights) {
    GatherRows(context, {.x = weights.Reshape({route.sent(), 1}),
                         .index = route.choice_of,
                         .out = numbers.Reshape({route.sent(), 1})});
  }
  if (!route.encodes_tokens()) {
    GatherRows(
        context,
        {.x = x, .index = route.choice_of, .divisor = top_k, .out = As(rows, route.act, route.hidden)});
  } else if (route.sorted_tokens.empty()) {
    route.sorted_tokens.resize(route.sent());
    context.backend.CopyToHost(context.stream, route.choice_of, route.sorted_tokens.data());
    context.stream.Synchronize();
    for (int32_t& token : route.sorted_tokens) token /= top_k;
  }
  context.stream.Record(*route.ready);
  stream_.Wait(*route.ready);
  if (!route.encodes_tokens()) return;
  stream_.Enqueue([this, &route, x] {
    route.encoded = pool_.Take(x.rows() * RowBytes(route.dispatch, route.hidden));
    EncodeRows(x, route.dispatch, route.Wire(route.encoded, x.rows(), route.dispatch));
  });
}

void ExpertExchange::Decode(Route& route, bool forward) {
  if (!route.encodes_tokens()) return;
  stream_.Enqueue([this, &route, forward] {
    if (!group_.status().ok()) return;
    DecodeRows(route.Wire(route.landed, route.rows(), route.dispatch), route.dispatch,
               forward ? As(route.Received().rows, route.act, route.hidden) : route.d_rows);
  });
}

std::unique_ptr<TokenExchange::Handle> ExpertExchange::PostDispatch(const Context& context, Arena& memory,
                                                                    TensorView x, TensorView experts,
                                                                    TensorView weights) {
  auto owned = std::make_unique<Route>(stream_);
  Route& route = *owned;
  route.memory = &memory;
  route.act = x.dtype;
  route.hidden = x.cols();
  route.dispatch = FormatOf(options_.dispatch, x.dtype);
  route.combine = FormatOf(options_.combine, x.dtype);
  route.row_of = memory.New(DType::kI32, experts.shape);
  route.choice_of = memory.New(DType::kI32, {experts.elements()});
  route.ready = context.backend.NewEvent();
  route.done = context.backend.NewEvent();
  route.sent_offsets.resize(num_experts_ + 1);
  {
    ArenaScope scope(context.scratch);
    const TensorView offsets = context.scratch.New(DType::kI64, {num_experts_ + 1});
    RouteSort(context,
              {.experts = experts, .offsets = offsets, .row_of = route.row_of, .choice_of = route.choice_of});
    context.backend.CopyToHost(context.stream, offsets, route.sent_offsets.data());
    std::vector<int32_t> host_experts, host_row_of;
    if (nodes_.nodes() > 1) {
      host_experts.resize(experts.elements());
      host_row_of.resize(experts.elements());
      context.backend.CopyToHost(context.stream, experts, host_experts.data());
      context.backend.CopyToHost(context.stream, route.row_of, host_row_of.data());
    }
    context.stream.Synchronize();
    route.terms = route.row_of;
    if (nodes_.nodes() > 1) PlanSums(context, route, host_experts, host_row_of);
  }
  for (int64_t e = 0; e < num_experts_; ++e) {
    route.counts.push_back(route.sent_offsets[e + 1] - route.sent_offsets[e]);
  }
  route.arriving.resize(num_experts_);
  SendCounts(route);
  Outgoing(context, route, x, weights);
  Post(route, "dispatch", [this, &route](PeerPieces& pieces) {
    route.offsets.assign(local_experts_ + 1, 0);
    for (int64_t e = 0; e < local_experts_; ++e) {
      route.offsets[e + 1] = route.offsets[e];
      for (int s = 0; s < group_.size(); ++s) route.offsets[e + 1] += route.arriving[s * local_experts_ + e];
    }
    route.received = pool_.Take(BytesOf(route.rows(), route.row_bytes(), route.rows()));
    TokenRows(route, route.Received().rows, pieces);
    AddSorted(route.sent_offsets, local_experts_, route.Outgoing().numbers, pieces.send);
    AddByExpert(route.offsets, route.arriving, route.Received().numbers, pieces.receive);
  });
  Decode(route, true);
  stream_.Record(*route.done);
  return owned;
}

// The tokens' rows to their experts, which have them at `to` when they are decoded.
void ExpertExchange::TokenRows(Route& route, TensorView to, PeerPieces& pieces) {
  if (!route.encodes_tokens()) {
    AddSorted(route.sent_offsets, local_experts_, route.Outgoing().rows, pieces.send);
    AddByExpert(route.offsets, route.arriving, to, pieces.receive);
    return;
  }
  const int64_t bytes = RowBytes(route.dispatch, route.hidden);
  const TensorView tokens = route.encoded.View(DType::kU8, {route.sent() / route.row_of.cols(), bytes});
  for (int r = 0; r < group_.size(); ++r) {
    for (int64_t i = route.sent_offsets[r * local_experts_]; i < route.sent_offsets[(r + 1) * local_experts_];
         ++i) {
      AddRows(tokens, route.sorted_tokens[i], 1, pieces.send[r]);
    }
  }
  route.landed = pool_.Take(route.rows() * bytes);
  AddByExpert(route.offsets, route.arriving, route.Wire(route.landed, route.rows(), route.dispatch),
              pieces.receive);
}

TokenExchange::Dispatched ExpertExchange::WaitDispatch(const Context& context, Handle& handle) {
  Route& route = static_cast<Route&>(handle);
  if (route.dispatched.offsets) return route.dispatched;
  Wait(context, route);
  if (route.offsets.empty()) {  // the world failed before the rows
    route.offsets.assign(local_experts_ + 1, 0);
    route.received = pool_.Take(64);
  }
  const auto [rows, numbers] = route.Received();
  route.dispatched = {.rows = As(rows, route.act, route.hidden),
                      .row_weights = numbers,
                      .offsets = route.memory->New(DType::kI64, {local_experts_ + 1})};
  context.backend.CopyToDevice(context.stream, route.offsets.data(), route.dispatched.offsets);
  return route.dispatched;
}

// The experts' rows (and numbers) back to where their tokens came from.
void ExpertExchange::Return(const Context& context, Route& route, const char* what, TensorView rows,
                            TensorView numbers) {
  const bool encode = route.combine != FormatOf(route.act);
  route.returned = pool_.Take(BytesOf(route.sent(), route.combine_bytes(), route.sent()));
  context.stream.Record(*route.ready);
  stream_.Wait(*route.ready);
  if (encode) {
    stream_.Enqueue([this, &route, rows] {
      route.encoded = pool_.Take(rows.rows() * route.combine_bytes());
      EncodeRows(rows, route.combine, route.Wire(route.encoded, rows.rows(), route.combine));
    });
  }
  Post(route, what, [this, &route, rows, numbers, encode](PeerPieces& pieces) {
    const TensorView from =
        encode ? route.Wire(route.encoded, rows.rows(), route.combine) : BytesOfRows(rows);
    const auto [to, to_numbers] = route.Returned();
    AddByExpert(route.offsets, route.arriving, from, pieces.send);
    AddSorted(route.sent_offsets, local_experts_, to, pieces.receive);
    if (!numbers) return;
    AddByExpert(route.offsets, route.arriving, numbers, pieces.send);
    AddSorted(route.sent_offsets, local_experts_, to_numbers, pieces.receive);
  });
  stream_.Record(*route.done);
}

void ExpertExchange::Sum(const Context& context, Route& route, TensorView add, TensorView y) {
  ArenaScope scope(context.scratch);
  const DType format = route.combine == RowFormat::kF32 ? DType::kF32 : DType::kBF16;
  TensorView rows = As(route.Returned().rows, format, route.hidden);
  if (route.foreign) {
    const TensorView sums = context.scratch.New(format, {route.foreign.rows(), route.hidden});
    CombineRows(context, {.rows = rows, .row_of = route.foreign, .out = sums});
    ScatterRows(context, {.x = sums, .index = route.foreign_first, .out = rows});
  }
  if (format != route.act) {
    const TensorView wide = context.scratch.New(route.act, {rows.rows(), route.hidden});
    Cast(context, rows, wide);
    rows = wide;
  }
  CombineRows(context, {.rows = rows, .row_of = route.terms, .add = add, .out = y});
}

void ExpertExchange::PostCombine(const Context& context, Handle& handle, TensorView rows) {
  Return(context, static_cast<Route&>(handle), "combine", rows, TensorView());
}

void ExpertExchange::WaitCombine(const Context& context, Handle& handle, TensorView add, TensorView y) {
  Route& route = static_cast<Route&>(handle);
  Wait(context, route);
  Sum(context, route, add, y);
  route.returned.Release();
}

void ExpertExchange::PostCombineBackward(const Context& context, Arena& memory, Handle& handle,
                                         TensorView dy) {
  Route& route = static_cast<Route&>(handle);
  route.d_rows = memory.New(route.act, {route.rows(), route.hidden});
  Outgoing(context, route, dy, TensorView());
  Post(route, "combine backward",
       [this, &route](PeerPieces& pieces) { TokenRows(route, BytesOfRows(route.d_rows), pieces); });
  Decode(route, false);
  stream_.Record(*route.done);
}

TensorView ExpertExchange::WaitCombineBackward(const Context& context, Handle& handle) {
  Route& route = static_cast<Route&>(handle);
  Wait(context, route);
  return route.d_rows;
}

void ExpertExchange::PostDispatchBackward(const Context& context, Handle& handle, TensorView d_rows,
                                          TensorView d_row_weights) {
  Return(context, static_cast<Route&>(handle), "dispatch backward", d_rows, d_row_weights);
}

void ExpertExchange::WaitDispatchBackward(const Context& context, Handle& handle, TensorView add,
                                          TensorView dx, TensorView dweights) {
  Route& route = static_cast<Route&>(handle);
  Wait(context, route);
  Sum(context, route, add, dx);
  GatherRows(context, {.x = route.Returned().numbers.Reshape({route.sent(), 1}),
                       .index = route.row_of.Reshape({route.sent()}),
                       .out = dweights.Reshape({route.sent(), 1})});
  route.returned.Release();
}

}  // namespace moebius
