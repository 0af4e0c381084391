// Rows of a buffer as the pieces of memory that a message is made of: what an all-to-all-v of rows sends and
// receives without a copy of its own.
#pragma once

#include <functional>
#include <vector>

#include "parallel/comm/communicator.h"
#include "parallel/exchange/buffer_pool.h"

namespace moebius {

using Pieces = std::vector<MemoryPiece>;

// n rows on the wire, U8 [n, row_bytes], and n f32 numbers behind them, in one buffer.
struct RowsAndNumbers {
  TensorView rows;
  TensorView numbers;
};
int64_t BytesOf(int64_t n, int64_t row_bytes, int64_t numbers);
RowsAndNumbers Split(const BufferPool::Buffer& buffer, int64_t n, int64_t row_bytes, int64_t numbers);

// x as U8 rows.
TensorView BytesOfRows(TensorView x);
// U8 rows that hold `dtype` as [n, hidden].
TensorView As(TensorView rows, DType dtype, int64_t hidden);

// Rows (or numbers) [first, first + count) of x, appended to `pieces`, joined with the last one where they
// follow it.
void AddRows(TensorView x, int64_t first, int64_t count, Pieces& pieces);

// An all-to-all-v of the pieces that `fill` adds when the stream gets here; of none in a failed world, where
// what has come before means nothing.
void PostPieces(Communicator& group, Stream& stream, Purpose purpose, std::function<void(PeerPieces&)> fill);

}  // namespace moebius
