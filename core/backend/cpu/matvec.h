// Products with few rows, as decoding makes them: each weight is read from memory once, in the order it lies
// there, nothing is packed, and bf16 is widened in registers. oneDNN reads at a third of the bandwidth here.
#pragma once

#include <cstdint>

#include "core/backend/cpu/thread_pool.h"
#include "core/tensor/dtype.h"

namespace moebius {

enum class WeightOrder {
  kOutIn,  // w [n, k]: y = x · wᵀ, rows of w are dotted with rows of x
  kInOut,  // w [k, n]: y = x · w, rows of w are added up
};

// y [m, n] (= or +=) x [m, k] · w (+ bias [n]). Rows of x, w and y lie ldx, ldw, ldy elements apart; x, w and
// y are fp32 or bf16 in any mixture, sums are fp32. An element of y depends on its row of x and on w alone:
// the same bits for any m, any split into columns and any number of threads.
struct MatVecArgs {
  int64_t m;
  int64_t n;
  int64_t k;
  const void* x;
  DType x_dtype;
  int64_t ldx;
  const void* w;
  DType w_dtype;
  int64_t ldw;
  WeightOrder order;
  void* y;
  DType y_dtype;
  int64_t ldy;
  const float* bias = nullptr;
  bool accumulate = false;
  bool even_odd = false;  // x is as WidenEvenOdd makes it, w is bf16 in kOutIn
};

// Beyond about this many rows a product that packs its operands is faster; where it would have to widen its
// weights too, beyond some more (CpuBackend::UsesMatVec).
inline constexpr int64_t kMatVecRows = 8;

// Tasks of a product, enough to keep some threads busy to the end.
inline constexpr int64_t kWantedTasks = 16;

// Columns [begin, end) of y in the calling thread: for callers that make one task list of several products.
void MatVecColumns(const MatVecArgs& args, int64_t begin, int64_t end);

// How products of bf16 by bf16 are formed: widened to fp32, or by AVX512-BF16's dot products. kNative is the
// same arithmetic by shifts in code for processors without AVX-512 (tests: BF16Anywhere).
enum class BF16Dots { kWidened, kNative };
BF16Dots ChooseBF16Dots();
void MatVecColumns(const MatVecArgs& args, BF16Dots dots, int64_t begin, int64_t end);

// How many columns make a task that is worth a thread's while; a function of the shape alone.
int64_t MatVecColumnsATask(const MatVecArgs& args);

// to [n] = from [n], widened.
void Widen(const BF16* from, int64_t n, float* to);

// The same in the order in which rows of w are read, some even elements before the odd ones between them; to
// has EvenOddSize(n) elements, zeros beyond n. Products read such rows faster, and have the same bits.
int64_t EvenOddSize(int64_t n);
void WidenEvenOdd(const BF16* from, int64_t n, float* to);

// The whole product over the pool.
void MatVec(ThreadPool& pool, const MatVecArgs& args);

}  // namespace moebius
