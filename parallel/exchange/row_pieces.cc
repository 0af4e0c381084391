#include "parallel/exchange/row_pieces.h"

#include <utility>

namespace moebius {
namespace {

int64_t Aligned(int64_t bytes) { return (bytes + 63) / 64 * 64; }

}  // namespace

int64_t BytesOf(int64_t n, int64_t row_bytes, int64_t numbers) {
  return Aligned(n * row_bytes) + numbers * int64_t{sizeof(float)};
}

RowsAndNumbers Split(const BufferPool::Buffer& buffer, int64_t n, int64_t row_bytes, int64_t numbers) {
  return {buffer.View(DType::kU8, {n, row_bytes}),
          buffer.View(DType::kF32, {numbers}, Aligned(n * row_bytes))};
}

TensorView BytesOfRows(TensorView x) {
  TensorView out(x.data, DType::kU8, {x.rows(), x.cols() * SizeOf(x.dtype)});
  out.stride = x.stride * SizeOf(x.dtype);
  return out;
}

TensorView As(TensorView rows, DType dtype, int64_t hidden) {
  CHECK_EQ(rows.cols(), hidden * SizeOf(dtype));
  return TensorView(rows.data, dtype, {rows.rows(), hidden});
}

void AddRows(TensorView x, int64_t first, int64_t count, Pieces& pieces) {
  if (count == 0) return;
  const bool flat = x.shape.rank() == 1;
  const int64_t step = (flat ? 1 : x.stride) * SizeOf(x.dtype);
  uint8_t* data = static_cast<uint8_t*>(x.data) + first * step;
  const int64_t each = (flat ? 1 : x.cols()) * SizeOf(x.dtype);
  if (each < step) {
    for (int64_t r = 0; r < count; ++r) pieces.push_back({data + r * step, each});
    return;
  }
  if (!pieces.empty() && static_cast<uint8_t*>(pieces.back().data) + pieces.back().bytes == data) {
    pieces.back().bytes += count * each;
  } else {
    pieces.push_back({data, count * each});
  }
}

void PostPieces(Communicator& group, Stream& stream, Purpose purpose, std::function<void(PeerPieces&)> fill) {
  group.AllToAllV(stream, purpose, [&group, fill = std::move(fill)] {
    const std::vector<Pieces> none(group.size());
    PeerPieces pieces{.send = none, .receive = none};
    if (group.status().ok()) fill(pieces);
    return pieces;
  });
}

}  // namespace moebius
