// Rows as they travel: what a row of activations or gradients becomes on the wire, and back. Host memory; run
// by the exchange thread.
#pragma once

#include "core/tensor/tensor.h"
#include "parallel/exchange/exchange_options.h"

namespace moebius {

enum class RowFormat : uint8_t { kF32, kBF16, kF8 };  // kF8: fp8_tiles.h

RowFormat FormatOf(DType act);
RowFormat FormatOf(WireFormat format, DType act);

int64_t RowBytes(RowFormat format, int64_t hidden);

// rows [n, hidden] act, wire: U8 [n, RowBytes]. bf16 rounds to nearest even.
void EncodeRows(TensorView rows, RowFormat format, TensorView wire);
void DecodeRows(TensorView wire, RowFormat format, TensorView rows);

}  // namespace moebius
