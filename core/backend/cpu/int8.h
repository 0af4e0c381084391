// Products with weights of 8 bits (kernel_args.h, Int8MatMul) in the memory of the host.
//
// A packed weight [out, in] is panels of 16 outputs, one after another: for each stretch of 32 terms, four
// terms of each output in turn (a byte is a value + 128, as VNNI multiplies unsigned bytes by signed ones;
// what lacks of the last stretch is 0), then the outputs' scales. So any processor reads a panel as one
// stream. Sums of a stretch are exact; the whole depends on neither the rows beside a row nor, but for fused
// multiply-adds, on the instruction set.
#pragma once

#include <cstdint>

#include "core/tensor/tensor.h"

namespace moebius {

inline constexpr int64_t kInt8Stretch = 32;  // terms that share a scale
inline constexpr int64_t kInt8Panel = 16;    // outputs

inline int64_t Int8Stretches(int64_t in) { return (in + kInt8Stretch - 1) / kInt8Stretch; }
inline int64_t Int8Panels(int64_t out) { return (out + kInt8Panel - 1) / kInt8Panel; }
bool HasInt8Products();  // this architecture does
int64_t Int8PanelBytes(int64_t in);

// Panel `panel` of w [out, in] act.
void PackInt8Panel(const TensorView& w, int64_t panel, uint8_t* to);

// Which instructions multiply: AVX512-VNNI or AVX-VNNI, or what every x86 processor has.
enum class Int8Dots { kVnni, kWidened };
Int8Dots ChooseInt8Dots();

// Rows of x in 8 bits, in memory of the caller.
struct Int8Rows {
  int64_t terms = 0;          // of a row, whole stretches
  void* values = nullptr;     // [rows, terms], i8 for kVnni and i16 for kWidened; zeros beyond x
  float* scales = nullptr;    // [rows, stretches]
  int32_t* starts = nullptr;  // [rows, stretches]: what takes the 128 off every weight again

  static int64_t Bytes(int64_t rows, int64_t in, Int8Dots dots);
  static Int8Rows At(void* memory, int64_t rows, int64_t in, Int8Dots dots);  // 64-byte aligned
};
void RoundInt8Rows(const TensorView& x, int64_t begin, int64_t end, Int8Dots dots, const Int8Rows& to);

// Rows [row, row + rows) of x with panels [begin, end) of a weight, to the same rows and columns of y.
struct Int8Product {
  const Int8Rows* x;
  const uint8_t* w;             // packed
  TensorView y;                 // [.., out] f32 or bf16
  const float* bias = nullptr;  // [out]
  int64_t in;
  int64_t row, rows;
  int64_t begin, end;
};
void Int8Compute(const Int8Product& product, Int8Dots dots);

}  // namespace moebius
