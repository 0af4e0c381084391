#include "parallel/exchange/row_format.h"

#include <cstring>

#include "parallel/exchange/fp8_tiles.h"
#include "parallel/exchange/row_values.h"

namespace moebius {
namespace {

template <typename From, typename To>
void Convert(const void* from, int64_t n, void* to) {
  if constexpr (std::is_same_v<From, To>) {
    std::memcpy(to, from, n * sizeof(To));
  } else {
    const From* in = static_cast<const From*>(from);
    To* out = static_cast<To*>(to);
    for (int64_t i = 0; i < n; ++i) Set(ToFloat(in[i]), out[i]);
  }
}

template <typename Act>
void Encode(const Act* row, int64_t n, RowFormat format, uint8_t* wire) {
  switch (format) {
    case RowFormat::kF32:
      return Convert<Act, float>(row, n, wire);
    case RowFormat::kBF16:
      return Convert<Act, BF16>(row, n, wire);
    case RowFormat::kF8:
      return QuantizeRow(row, n, wire);
  }
}

template <typename Act>
void Decode(const uint8_t* wire, int64_t n, RowFormat format, Act* row) {
  switch (format) {
    case RowFormat::kF32:
      return Convert<float, Act>(wire, n, row);
    case RowFormat::kBF16:
      return Convert<BF16, Act>(wire, n, row);
    case RowFormat::kF8:
      return DequantizeRow(wire, n, row);
  }
}

template <typename Act, typename Work>
void EachRow(TensorView rows, TensorView wire, const Work& work) {
  for (int64_t r = 0; r < rows.rows(); ++r) {
    work(rows.as<Act>() + r * rows.stride, wire.as<uint8_t>() + r * wire.stride);
  }
}

void CheckRows(TensorView rows, RowFormat format, TensorView wire) {
  CHECK(rows.dtype == DType::kF32 || rows.dtype == DType::kBF16) << rows;
  CHECK(wire.rows() == rows.rows() && wire.cols() == RowBytes(format, rows.cols())) << rows << " " << wire;
}

}  // namespace

RowFormat FormatOf(DType act) {
  CHECK(act == DType::kF32 || act == DType::kBF16) << act;
  return act == DType::kF32 ? RowFormat::kF32 : RowFormat::kBF16;
}
RowFormat FormatOf(WireFormat format, DType act) {
  switch (format) {
    case WireFormat::kAct:
      return FormatOf(act);
    case WireFormat::kBF16:
      return RowFormat::kBF16;
    case WireFormat::kF8:
      return RowFormat::kF8;
  }
  return FormatOf(act);
}

int64_t RowBytes(RowFormat format, int64_t hidden) {
  switch (format) {
    case RowFormat::kF32:
      return 4 * hidden;
    case RowFormat::kBF16:
      return 2 * hidden;
    case RowFormat::kF8:
      return QuantizedBytes(hidden);
  }
  return 0;
}

void EncodeRows(TensorView rows, RowFormat format, TensorView wire) {
  CheckRows(rows, format, wire);
  if (rows.dtype == DType::kF32) {
    EachRow<float>(rows, wire, [&](const float* r, uint8_t* w) { Encode(r, rows.cols(), format, w); });
  } else {
    EachRow<BF16>(rows, wire, [&](const BF16* r, uint8_t* w) { Encode(r, rows.cols(), format, w); });
  }
}

void DecodeRows(TensorView wire, RowFormat format, TensorView rows) {
  CheckRows(rows, format, wire);
  if (rows.dtype == DType::kF32) {
    EachRow<float>(rows, wire, [&](float* r, const uint8_t* w) { Decode(w, rows.cols(), format, r); });
  } else {
    EachRow<BF16>(rows, wire, [&](BF16* r, const uint8_t* w) { Decode(w, rows.cols(), format, r); });
  }
}

}  // namespace moebius
