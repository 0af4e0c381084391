#include "parallel/expert_exchange.h"

#include <algorithm>
#include <utility>

#include "core/backend/ops.h"

namespace moebius {

// One microbatch's way through one layer. Legend: S = T * K rows sent, sorted by expert; R rows received.
struct ExpertExchange::Route final : TokenExchange::Handle {
  Arena* memory = nullptr;
  TensorView row_of;     // [T, K] i32
  TensorView choice_of;  // [S] i32
  DType act = DType::kF32;
  int64_t hidden = 0;
  std::vector<int64_t> sent_offsets;  // [experts + 1]: rows of each expert among those sent
  std::vector<int64_t> arriving;      // [size, local experts]: rows that come from each rank for each expert
  std::unique_ptr<Event> ready;       // what is sent is there
  std::unique_ptr<Event> done;        // the latest transfer has passed

  // Written on the exchange stream, read after `done`.
  std::vector<int64_t> offsets;  // [local experts + 1]: rows of each local expert among those received
  BufferPool::Buffer received;   // rows [R, hidden] act, then weights [R] f32

  BufferPool::Buffer outgoing;  // [S, hidden] act and [S] f32, in flight
  BufferPool::Buffer returned;  // the same, coming back
  Dispatched dispatched;        // views of `received`, from the first WaitDispatch on
  TensorView d_rows;

  int64_t sent() const { return choice_of.elements(); }
  int64_t rows() const { return offsets.empty() ? 0 : offsets.back(); }
  int64_t row_bytes() const { return hidden * SizeOf(act); }
};

namespace {

int64_t Aligned(int64_t bytes) { return (bytes + 63) / 64 * 64; }

// Rows, and f32 numbers one a row, in one buffer.
struct RowsAndNumbers {
  TensorView rows;
  TensorView numbers;
};
int64_t BytesOf(int64_t n, int64_t row_bytes) { return Aligned(n * row_bytes) + n * int64_t{sizeof(float)}; }
RowsAndNumbers Split(const BufferPool::Buffer& buffer, int64_t n, DType act, int64_t hidden) {
  return {buffer.View(act, {n, hidden}), buffer.View(DType::kF32, {n}, Aligned(n * hidden * SizeOf(act)))};
}

MemoryPiece PieceOf(TensorView x, int64_t first, int64_t count) {
  const int64_t each = x.shape.rank() == 1 ? SizeOf(x.dtype) : x.cols() * SizeOf(x.dtype);
  return {static_cast<uint8_t*>(x.data) + first * each, count * each};
}

// The pieces of each peer on the side that sorted by expert: one stretch.
void AddSorted(const std::vector<int64_t>& sent_offsets, int64_t local, TensorView x,
               std::vector<std::vector<MemoryPiece>>& pieces) {
  for (size_t r = 0; r < pieces.size(); ++r) {
    const int64_t first = sent_offsets[r * local], last = sent_offsets[(r + 1) * local];
    pieces[r].push_back(PieceOf(x, first, last - first));
  }
}

// The same on the experts' side: a stretch for each local expert, where the peer's rows lie among the
// others'.
void AddByExpert(const std::vector<int64_t>& offsets, const std::vector<int64_t>& arriving, TensorView x,
                 std::vector<std::vector<MemoryPiece>>& pieces) {
  const int64_t local = static_cast<int64_t>(offsets.size()) - 1;
  std::vector<int64_t> next(offsets.begin(), offsets.end() - 1);
  for (size_t s = 0; s < pieces.size(); ++s) {
    for (int64_t e = 0; e < local; ++e) {
      const int64_t count = arriving[s * local + e];
      if (count > 0) pieces[s].push_back(PieceOf(x, next[e], count));
      next[e] += count;
    }
  }
}

PeerPieces PiecesFor(int size) {
  const std::vector<std::vector<MemoryPiece>> none(size);
  return {.send = none, .receive = none};
}

}  // namespace

ExpertExchange::ExpertExchange(Communicator& group, Stream& stream, BufferPool& pool, int64_t num_experts,
                               int layer)
    : group_(group),
      stream_(stream),
      pool_(pool),
      num_experts_(num_experts),
      local_experts_(num_experts / group.size()),
      layer_(layer) {
  CHECK_EQ(local_experts_ * group.size(), num_experts);
}

void ExpertExchange::Post(const Context& context, Route& route, const char* what,
                          std::function<PeerPieces()> pieces) {
  context.stream.Record(*route.ready);
  stream_.Wait(*route.ready);
  group_.AllToAllV(stream_, {.what = what, .layer = layer_}, std::move(pieces));
  stream_.Record(*route.done);
}

std::unique_ptr<TokenExchange::Handle> ExpertExchange::PostDispatch(const Context& context, Arena& memory,
                                                                    TensorView x, TensorView experts,
                                                                    TensorView weights) {
  auto owned = std::make_unique<Route>();
  Route& route = *owned;
  const int64_t choices = experts.elements();
  route.memory = &memory;
  route.act = x.dtype;
  route.hidden = x.cols();
  route.row_of = memory.New(DType::kI32, experts.shape);
  route.choice_of = memory.New(DType::kI32, {choices});
  route.ready = context.backend.NewEvent();
  route.done = context.backend.NewEvent();
  route.sent_offsets.resize(num_experts_ + 1);
  {
    ArenaScope scope(context.scratch);
    const TensorView offsets = context.scratch.New(DType::kI64, {num_experts_ + 1});
    RouteSort(context,
              {.experts = experts, .offsets = offsets, .row_of = route.row_of, .choice_of = route.choice_of});
    context.backend.CopyToHost(context.stream, offsets, route.sent_offsets.data());
    context.stream.Synchronize();
  }
  route.outgoing = pool_.Take(BytesOf(choices, route.row_bytes()));
  const auto [rows, numbers] = Split(route.outgoing, choices, route.act, route.hidden);
  GatherRows(
      context,
      {.x = x, .index = route.choice_of, .divisor = static_cast<int32_t>(experts.cols()), .out = rows});
  GatherRows(
      context,
      {.x = weights.Reshape({choices, 1}), .index = route.choice_of, .out = numbers.Reshape({choices, 1})});

  const int size = group_.size();
  std::vector<int64_t> counts(num_experts_);
  for (int64_t e = 0; e < num_experts_; ++e) counts[e] = route.sent_offsets[e + 1] - route.sent_offsets[e];
  route.arriving.resize(num_experts_);
  AllToAllVArgs exchange_counts;
  // The vector moves into the closure that keeps it alive until the stream has passed.
  auto kept = std::make_shared<std::vector<int64_t>>(std::move(counts));
  exchange_counts.send = kept->data();
  exchange_counts.receive = route.arriving.data();
  for (int r = 0; r < size; ++r) {
    const int64_t bytes = local_experts_ * int64_t{sizeof(int64_t)};
    exchange_counts.send_bytes.push_back(bytes);
    exchange_counts.send_offsets.push_back(r * bytes);
    exchange_counts.receive_bytes.push_back(bytes);
    exchange_counts.receive_offsets.push_back(r * bytes);
  }
  group_.AllToAllV(stream_, {.what = "dispatch counts", .layer = layer_}, exchange_counts);
  Post(context, route, "dispatch", [this, &route, kept, rows = rows, numbers = numbers, size] {
    PeerPieces pieces = PiecesFor(size);
    route.offsets.assign(local_experts_ + 1, 0);
    if (!group_.status().ok()) return pieces;  // what counts there are mean nothing
    for (int64_t e = 0; e < local_experts_; ++e) {
      route.offsets[e + 1] = route.offsets[e];
      for (int s = 0; s < size; ++s) route.offsets[e + 1] += route.arriving[s * local_experts_ + e];
    }
    route.received = pool_.Take(BytesOf(route.rows(), route.row_bytes()));
    const auto [to, to_numbers] = Split(route.received, route.rows(), route.act, route.hidden);
    AddSorted(route.sent_offsets, local_experts_, rows, pieces.send);
    AddSorted(route.sent_offsets, local_experts_, numbers, pieces.send);
    AddByExpert(route.offsets, route.arriving, to, pieces.receive);
    AddByExpert(route.offsets, route.arriving, to_numbers, pieces.receive);
    return pieces;
  });
  return owned;
}

TokenExchange::Dispatched ExpertExchange::WaitDispatch(const Context& context, Handle& handle) {
  Route& route = static_cast<Route&>(handle);
  if (route.dispatched.offsets) return route.dispatched;
  context.stream.Wait(*route.done);
  route.outgoing.Release();
  if (route.offsets.empty()) route.offsets.assign(local_experts_ + 1, 0);  // the world failed before the rows
  if (route.rows() == 0) route.received = pool_.Take(64);
  const auto [rows, numbers] = Split(route.received, route.rows(), route.act, route.hidden);
  route.dispatched = {
      .rows = rows, .row_weights = numbers, .offsets = route.memory->New(DType::kI64, {local_experts_ + 1})};
  context.backend.CopyToDevice(context.stream, route.offsets.data(), route.dispatched.offsets);
  return route.dispatched;
}

void ExpertExchange::PostCombine(const Context& context, Handle& handle, TensorView rows) {
  Route& route = static_cast<Route&>(handle);
  route.returned = pool_.Take(BytesOf(route.sent(), route.row_bytes()));
  const TensorView to = Split(route.returned, route.sent(), route.act, route.hidden).rows;
  Post(context, route, "combine", [this, &route, rows, to] {
    PeerPieces pieces = PiecesFor(group_.size());
    AddByExpert(route.offsets, route.arriving, rows, pieces.send);
    AddSorted(route.sent_offsets, local_experts_, to, pieces.receive);
    return pieces;
  });
}

void ExpertExchange::WaitCombine(const Context& context, Handle& handle, TensorView add, TensorView y) {
  Route& route = static_cast<Route&>(handle);
  context.stream.Wait(*route.done);
  const TensorView rows = Split(route.returned, route.sent(), route.act, route.hidden).rows;
  CombineRows(context, {.rows = rows, .row_of = route.row_of, .add = add, .out = y});
  route.returned.Release();
}

void ExpertExchange::PostCombineBackward(const Context& context, Arena& memory, Handle& handle,
                                         TensorView dy) {
  Route& route = static_cast<Route&>(handle);
  route.outgoing = pool_.Take(BytesOf(route.sent(), route.row_bytes()));
  const TensorView from = Split(route.outgoing, route.sent(), route.act, route.hidden).rows;
  GatherRows(
      context,
      {.x = dy, .index = route.choice_of, .divisor = static_cast<int32_t>(route.row_of.cols()), .out = from});
  route.d_rows = memory.New(route.act, {route.rows(), route.hidden});
  Post(context, route, "combine backward", [this, &route, from] {
    PeerPieces pieces = PiecesFor(group_.size());
    AddSorted(route.sent_offsets, local_experts_, from, pieces.send);
    AddByExpert(route.offsets, route.arriving, route.d_rows, pieces.receive);
    return pieces;
  });
}

TensorView ExpertExchange::WaitCombineBackward(const Context& context, Handle& handle) {
  Route& route = static_cast<Route&>(handle);
  context.stream.Wait(*route.done);
  route.outgoing.Release();
  return route.d_rows;
}

void ExpertExchange::PostDispatchBackward(const Context& context, Handle& handle, TensorView d_rows,
                                          TensorView d_row_weights) {
  Route& route = static_cast<Route&>(handle);
  route.returned = pool_.Take(BytesOf(route.sent(), route.row_bytes()));
  const auto [to, to_numbers] = Split(route.returned, route.sent(), route.act, route.hidden);
  Post(context, route, "dispatch backward",
       [this, &route, d_rows, d_row_weights, to = to, to_numbers = to_numbers] {
         PeerPieces pieces = PiecesFor(group_.size());
         AddByExpert(route.offsets, route.arriving, d_rows, pieces.send);
         AddByExpert(route.offsets, route.arriving, d_row_weights, pieces.send);
         AddSorted(route.sent_offsets, local_experts_, to, pieces.receive);
         AddSorted(route.sent_offsets, local_experts_, to_numbers, pieces.receive);
         return pieces;
       });
}

void ExpertExchange::WaitDispatchBackward(const Context& context, Handle& handle, TensorView add,
                                          TensorView dx, TensorView dweights) {
  Route& route = static_cast<Route&>(handle);
  context.stream.Wait(*route.done);
  const auto [rows, numbers] = Split(route.returned, route.sent(), route.act, route.hidden);
  CombineRows(context, {.rows = rows, .row_of = route.row_of, .add = add, .out = dx});
  GatherRows(context, {.x = numbers.Reshape({route.sent(), 1}),
                       .index = route.row_of.Reshape({route.sent()}),
                       .out = dweights.Reshape({route.sent(), 1})});
  route.returned.Release();
}

}  // namespace moebius
