#include "core/backend/cpu/int8.h"

#include <algorithm>
#include <cstring>

#include "core/backend/cpu/instruction_set.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/backend/cpu/int8.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
//
#include "core/backend/cpu/simd-inl.h"
#include "hwy/cache_control.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace moebius::HWY_NAMESPACE {
namespace {

using I32 = hn::RebindToSigned<F32>;
using VI = hn::Vec<I32>;

// Lane i of the result: all lanes of v[i] put together by `join`. Changes v [lanes].
template <class D, class Join>
HWY_INLINE hn::Vec<D> JoinLanes([[maybe_unused]] D d, hn::Vec<D>* v, [[maybe_unused]] const Join& join) {
#if HWY_TARGET != HWY_SCALAR
#pragma GCC unroll 16
  for (int n = static_cast<int>(hn::MaxLanes(d)); n > 1; n /= 2) {
#pragma GCC unroll 16
    for (int i = 0; i < n; i += 2) {
      v[i / 2] = join(hn::ConcatEven(d, v[i + 1], v[i]), hn::ConcatOdd(d, v[i + 1], v[i]));
    }
  }
#endif
  return v[0];
}

constexpr int64_t kGroup = kInt8Panel;  // stretches that are rounded together, a lane for each

// Stretches x [kGroup, kInt8Stretch] in 8 bits: to = round(x * 127 / max |x|), with scales and starts
// [kGroup] as of Int8Rows. A scale is NaN where an element is not finite; `to` and the start then say
// nothing.
template <typename X>
void RoundGroup(const float* x, X* to, float* scales, int32_t* starts) {
  constexpr int kLanes = static_cast<int>(hn::MaxLanes(F32()));
  constexpr int kVectors = static_cast<int>(kInt8Stretch) / kLanes;
  const hn::Rebind<X, I32> narrow;
  for (int64_t first = 0; first < kGroup; first += kLanes) {
    const int64_t begin = first * kInt8Stretch;
    VI v[kLanes];
    // As integers, absolute values are in their order, with infinity and NaN above all others.
    for (int i = 0; i < kLanes; ++i) {
      v[i] = hn::Zero(I32());
#pragma GCC unroll 32
      for (int k = 0; k < kVectors; ++k) {
        const VF value = Load(x + begin + i * kInt8Stretch + k * kLanes);
        v[i] = hn::Max(v[i], hn::BitCast(I32(), hn::Abs(value)));
      }
    }
    const VF amax =
        hn::BitCast(F32(), JoinLanes(I32(), v, [](VI a, VI b) HWY_ATTR { return hn::Max(a, b); }));
    Store(hn::MulAdd(Set(0), amax, hn::Div(amax, Set(127))), scales + first);
    HWY_ALIGN float inverse[kLanes];
    Store(hn::IfThenElseZero(hn::Gt(amax, Set(1e-30f)), hn::Div(Set(127), amax)), inverse);
    for (int i = 0; i < kLanes; ++i) {
      v[i] = hn::Zero(I32());
#pragma GCC unroll 32
      for (int k = 0; k < kVectors; ++k) {
        const int64_t at = begin + i * kInt8Stretch + k * kLanes;
        const VI q = hn::NearestInt(hn::Mul(Load(x + at), Set(inverse[i])));
        v[i] = hn::Add(v[i], q);
        hn::StoreU(hn::DemoteTo(narrow, q), narrow, to + at);
      }
    }
    const VI sums = JoinLanes(I32(), v, [](VI a, VI b) HWY_ATTR { return hn::Add(a, b); });
    hn::StoreU(hn::Neg(hn::ShiftLeft<7>(sums)), I32(), starts + first);
  }
}

// x [n], followed by zeros: to [kInt8Stretch].
template <typename T>
HWY_INLINE void ReadStretch(const T* x, int64_t n, float* to) {
  if (n < kInt8Stretch) std::fill_n(to, kInt8Stretch, 0.0f);
  Sweep(n, [&](int64_t i, auto part) HWY_ATTR { Store(Load(x + i, part), to + i, part); });
}

template <typename T>
void PackPanel(const TensorView& w, int64_t panel, uint8_t* to) {
  const int64_t in = w.cols(), first = panel * kInt8Panel;
  const int64_t outputs = std::min(kInt8Panel, w.rows() - first);
  HWY_ALIGN float values[kInt8Panel * kInt8Stretch] = {};
  int8_t rounded[kInt8Panel * kInt8Stretch];
  float scales[kInt8Panel];
  int32_t starts[kInt8Panel];
  for (int64_t k = 0; k < in; k += kInt8Stretch) {
    for (int64_t j = 0; j < outputs; ++j) {
      ReadStretch(static_cast<const T*>(w.data) + (first + j) * w.stride + k, std::min(kInt8Stretch, in - k),
                  values + j * kInt8Stretch);
    }
    RoundGroup(values, rounded, scales, starts);
    for (int64_t i = 0; i < kInt8Stretch; i += 4) {
      for (int64_t j = 0; j < kInt8Panel; ++j, to += 4) {
        uint32_t four;
        std::memcpy(&four, rounded + j * kInt8Stretch + i, 4);
        four ^= 0x80808080u;  // + 128
        std::memcpy(to, &four, 4);
      }
    }
    std::memcpy(to, scales, sizeof(scales));
    to += sizeof(scales);
  }
}

void PackPanelOf(const TensorView& w, int64_t panel, uint8_t* to) {
  w.dtype == DType::kBF16 ? PackPanel<BF16>(w, panel, to) : PackPanel<float>(w, panel, to);
}

template <typename T, typename X>
void RoundRows(const TensorView& x, int64_t begin, int64_t end, const Int8Rows& to) {
  const int64_t in = x.cols(), stretches = Int8Stretches(in), last = end * stretches;
  HWY_ALIGN float values[kGroup * kInt8Stretch] = {};
  int64_t row = begin, k = 0;
  for (int64_t next = begin * stretches; next < last; next += kGroup) {
    const int64_t count = std::min(kGroup, last - next);
    for (int64_t i = 0; i < count; ++i) {
      ReadStretch(static_cast<const T*>(x.data) + row * x.stride + k, std::min(kInt8Stretch, in - k),
                  values + i * kInt8Stretch);
      k += kInt8Stretch;
      if (k >= in) ++row, k = 0;
    }
    X* rounded = static_cast<X*>(to.values) + next * kInt8Stretch;
    if (count == kGroup) {
      RoundGroup(values, rounded, to.scales + next, to.starts + next);
    } else {
      X group[kGroup * kInt8Stretch];
      float scales[kGroup];
      int32_t starts[kGroup];
      RoundGroup(values, group, scales, starts);
      std::copy_n(group, count * kInt8Stretch, rounded);
      std::copy_n(scales, count, to.scales + next);
      std::copy_n(starts, count, to.starts + next);
    }
  }
}

void RoundRowsOf(const TensorView& x, int64_t begin, int64_t end, Int8Dots dots, const Int8Rows& to) {
  if (x.dtype == DType::kBF16) {
    (dots == Int8Dots::kVnni ? RoundRows<BF16, int8_t> : RoundRows<BF16, int16_t>)(x, begin, end, to);
  } else {
    (dots == Int8Dots::kVnni ? RoundRows<float, int8_t> : RoundRows<float, int16_t>)(x, begin, end, to);
  }
}

// How four terms of a row of x are multiplied with those of a panel's 16 outputs, whose sums are kVectors
// vectors. Sums(i) is the i-th vector of outputs in their order, as floats.

#if HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_AVX2
struct VnniDot {
  using X = int8_t;
  static constexpr int kLanes = static_cast<int>(hn::MaxLanes(I32()));
  static constexpr int kVectors = static_cast<int>(kInt8Panel) / kLanes;
#if HWY_TARGET == HWY_AVX3  // 24 sums in 32 registers
  static constexpr int kRows = 8;
  static constexpr int PanelsOf(int rows) { return rows <= 4 ? 4 : 3; }
#else  // 12 in 16
  static constexpr int kRows = 6;
  static constexpr int PanelsOf(int rows) { return rows <= 2 ? 2 : 1; }
#endif
  static HWY_INLINE VI Start(int32_t start) { return hn::Set(I32(), start); }
  static HWY_INLINE VI Terms(const X* x) {
    int32_t word;
    std::memcpy(&word, x, sizeof(word));
    return hn::Set(I32(), word);
  }
  static HWY_INLINE VI Weights(const uint8_t* w, int vector) {
    return hn::LoadU(I32(), reinterpret_cast<const int32_t*>(w) + vector * kLanes);
  }
  static HWY_INLINE VI Add(VI x, VI w, VI sum) {
#if HWY_TARGET == HWY_AVX3
    asm("vpdpbusd %2, %1, %0" : "+v"(sum.raw) : "v"(w.raw), "v"(x.raw));
#else
    asm("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sum.raw) : "x"(w.raw), "x"(x.raw));
#endif
    return sum;
  }
  static HWY_INLINE VF Sums(const VI* sums, int i) { return hn::ConvertTo(F32(), sums[i]); }
};
#endif

#if HWY_TARGET == HWY_SCALAR
struct WideDot {
  using X = int16_t;
  static constexpr int kVectors = kInt8Panel;
  static constexpr int kRows = 1;
  static constexpr int PanelsOf(int) { return 1; }
  struct Four {
    int32_t of[4];
  };
  static VI Start(int32_t start) { return hn::Set(I32(), start); }
  template <typename T>
  static Four Read(const T* p) {
    return {{p[0], p[1], p[2], p[3]}};
  }
  static Four Terms(const X* x) { return Read(x); }
  static Four Weights(const uint8_t* w, int output) { return Read(w + 4 * output); }
  static VI Add(Four x, Four w, VI sum) {
    int32_t dot = 0;
    for (int i = 0; i < 4; ++i) dot += x.of[i] * w.of[i];
    return hn::Add(sum, hn::Set(I32(), dot));
  }
  static VF Sums(const VI* sums, int i) { return hn::ConvertTo(F32(), sums[i]); }
};
#else
// Both operands are widened to 16 bits, neighbours multiplied and added to a lane of 32: an output has two.
struct WideDot {
  using X = int16_t;
  using I16 = hn::Repartition<int16_t, I32>;
  using V16 = hn::Vec<I16>;
  static constexpr int kLanes = static_cast<int>(hn::MaxLanes(I32()));
  static constexpr int kVectors = 2 * static_cast<int>(kInt8Panel) / kLanes;
  static constexpr int kRows = HWY_TARGET <= HWY_AVX3 ? 8 : 2;
  static constexpr int PanelsOf(int) { return 1; }
  static HWY_INLINE VI Start(int32_t start) { return hn::Set(I32(), start / 2); }  // even: -128 times a sum
  static HWY_INLINE V16 Terms(const X* x) {
    int64_t word;
    std::memcpy(&word, x, sizeof(word));
    return hn::BitCast(I16(), hn::Set(hn::Repartition<int64_t, I32>(), word));
  }
  static HWY_INLINE V16 Weights(const uint8_t* w, int vector) {
    return hn::PromoteTo(I16(), hn::LoadU(hn::Rebind<uint8_t, I16>(), w + vector * 2 * kLanes));
  }
  static HWY_INLINE VI Add(V16 x, V16 w, VI sum) {
    VI rest = hn::Zero(I32());
    sum = hn::ReorderWidenMulAccumulate(I32(), x, w, sum, rest);
    return hn::Add(sum, rest);
  }
  static HWY_INLINE VF Sums(const VI* sums, int i) {
    const VI low = sums[2 * i], high = sums[2 * i + 1];
    return hn::ConvertTo(F32(), hn::Add(hn::ConcatEven(I32(), high, low), hn::ConcatOdd(I32(), high, low)));
  }
};
#endif

// Stores `sums`, a row's outputs from `column` on.
template <typename Y>
void PutRow(const Int8Product& p, int64_t row, int64_t column, int64_t n, const float* sums) {
  Y* y = static_cast<Y*>(p.y.data) + row * p.y.stride + column;
  Sweep(n, [&](int64_t i, auto part) HWY_ATTR {
    VF sum = Load(sums + i, part);
    if (p.bias != nullptr) sum = hn::Add(sum, Load(p.bias + column + i, part));
    Store(sum, y + i, part);
  });
}

// kRows rows from `row` on with kPanels panels from `panel` on; the last rows fetch the panels behind them.
// `out` [kRows, kPanels * kInt8Panel] is the caller's and this is not inlined: else GCC keeps a second copy.
template <class Dot, int kRows, int kPanels>
HWY_NOINLINE void Tile(const Int8Product& p, int64_t row, int64_t panel, bool last, float* out) {
  constexpr int kVectors = kPanels * Dot::kVectors;
  constexpr int64_t kOutputs = kPanels * kInt8Panel;
  const int64_t stretches = Int8Stretches(p.in), terms = p.x->terms, panel_bytes = Int8PanelBytes(p.in);
  const auto* x = static_cast<const typename Dot::X*>(p.x->values) + row * terms;
  const float* x_scales = p.x->scales + row * stretches;
  const int32_t* starts = p.x->starts + row * stretches;
  const uint8_t* w = p.w + panel * panel_bytes;
  const int64_t ahead = last ? kPanels * panel_bytes : 0;
  for (int64_t i = 0; i < kRows * kOutputs; i += Lanes()) Store(hn::Zero(F32()), out + i);
  for (int64_t s = 0; s < stretches; ++s) {
    VI sums[kRows][kVectors];
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 16
      for (int v = 0; v < kVectors; ++v) sums[r][v] = Dot::Start(starts[r * stretches + s]);
    }
#pragma GCC unroll 8
    for (int64_t k = 0; k < kInt8Stretch; k += 4, x += 4, w += 4 * kInt8Panel) {
      decltype(Dot::Weights(w, 0)) weights[kVectors];
#pragma GCC unroll 16
      for (int v = 0; v < kVectors; ++v) {
        weights[v] = Dot::Weights(w + v / Dot::kVectors * panel_bytes, v % Dot::kVectors);
        if (v % Dot::kVectors == 0) hwy::Prefetch(w + v / Dot::kVectors * panel_bytes + ahead);
      }
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) {
        const auto four = Dot::Terms(x + r * terms);
#pragma GCC unroll 16
        for (int v = 0; v < kVectors; ++v) sums[r][v] = Dot::Add(four, weights[v], sums[r][v]);
      }
    }
#pragma GCC unroll 16
    for (int c = 0; c < kPanels; ++c) {
      const float* w_scales = reinterpret_cast<const float*>(w + c * panel_bytes);
#pragma GCC unroll 16
      for (int64_t i = 0; i < kInt8Panel; i += Lanes()) {
        const VF scale = Load(w_scales + i);
#pragma GCC unroll 16
        for (int r = 0; r < kRows; ++r) {
          float* to = out + r * kOutputs + c * kInt8Panel + i;
          const VF sum = Dot::Sums(sums[r] + c * Dot::kVectors, static_cast<int>(i / Lanes()));
          Store(hn::MulAdd(sum, hn::Mul(scale, Set(x_scales[r * stretches + s])), Load(to)), to);
        }
      }
    }
    w += kInt8Panel * sizeof(float);
  }
  const int64_t column = panel * kInt8Panel, outputs = std::min(kOutputs, p.y.cols() - column);
  for (int r = 0; r < kRows; ++r) {
    (p.y.dtype == DType::kBF16 ? PutRow<BF16> : PutRow<float>)(p, row + r, column, outputs,
                                                               out + r * kOutputs);
  }
}

// Tile<Dot, rows, panels>, for the number of both at run time.
constexpr int kMostPanels = 4;
template <class Dot, int kRows = Dot::kRows, int kPanels = Dot::PanelsOf(kRows)>
HWY_INLINE void TileOf(int64_t rows, int64_t panels, const Int8Product& p, int64_t row, int64_t panel,
                       bool last, float* out) {
  static_assert(kPanels <= kMostPanels);
  if (rows < kRows) {
    if constexpr (kRows > 1) TileOf<Dot, kRows - 1>(rows, panels, p, row, panel, last, out);
  } else if (panels < kPanels) {
    if constexpr (kPanels > 1) TileOf<Dot, kRows, kPanels - 1>(rows, panels, p, row, panel, last, out);
  } else {
    Tile<Dot, kRows, kPanels>(p, row, panel, last, out);
  }
}

// Few panels stay in the first-level cache while all rows pass them.
template <class Dot>
void Compute(const Int8Product& p) {
  const int64_t blocks = (p.rows + Dot::kRows - 1) / Dot::kRows;
  const int64_t panels = Dot::PanelsOf(static_cast<int>((p.rows + blocks - 1) / blocks));
  HWY_ALIGN float out[Dot::kRows * kMostPanels * kInt8Panel];
  for (int64_t panel = p.begin; panel < p.end; panel += panels) {
    for (int64_t b = 0; b < blocks; ++b) {
      const int64_t row = p.rows * b / blocks, rows = p.rows * (b + 1) / blocks - row;
      TileOf<Dot>(rows, std::min(panels, p.end - panel), p, p.row + row, panel, b + 1 == blocks, out);
    }
  }
}

void ComputeOf(const Int8Product& p, [[maybe_unused]] Int8Dots dots) {
#if HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_AVX2
  if (dots == Int8Dots::kVnni) return Compute<VnniDot>(p);
#endif
  Compute<WideDot>(p);
}

}  // namespace
}  // namespace moebius::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace moebius {

HWY_EXPORT(PackPanelOf);
HWY_EXPORT(RoundRowsOf);
HWY_EXPORT(ComputeOf);

namespace {

int64_t Terms(int64_t in) { return Int8Stretches(in) * kInt8Stretch; }
int64_t ValueBytes(int64_t rows, int64_t in, Int8Dots dots) {
  const int64_t bytes = rows * Terms(in) * (dots == Int8Dots::kVnni ? 1 : 2);
  return (bytes + 63) / 64 * 64;
}

}  // namespace

// WideDot knows in which order x86 adds neighbours.
bool HasInt8Products() { return HWY_ARCH_X86 != 0; }

int64_t Int8PanelBytes(int64_t in) {
  return kInt8Panel * (Terms(in) + Int8Stretches(in) * static_cast<int64_t>(sizeof(float)));
}

void PackInt8Panel(const TensorView& w, int64_t panel, uint8_t* to) {
  HWY_DYNAMIC_DISPATCH(PackPanelOf)(w, panel, to);
}

Int8Dots ChooseInt8Dots() {
  // Found once, as ChooseUnit (attention.cc) does, for the code that Highway has chosen.
  static const bool vnni = [] {
    const int64_t targets = hwy::SupportedTargets() & HWY_TARGETS;  // with sanitizers no AVX3
    return (targets & HWY_AVX3) != 0 ? HasAvx512Vnni() : (targets & HWY_AVX2) != 0 && HasAvxVnni();
  }();
  return vnni ? Int8Dots::kVnni : Int8Dots::kWidened;
}

int64_t Int8Rows::Bytes(int64_t rows, int64_t in, Int8Dots dots) {
  return ValueBytes(rows, in, dots) + rows * Int8Stretches(in) * 8;
}

Int8Rows Int8Rows::At(void* memory, int64_t rows, int64_t in, Int8Dots dots) {
  float* scales = reinterpret_cast<float*>(static_cast<char*>(memory) + ValueBytes(rows, in, dots));
  return {.terms = Terms(in),
          .values = memory,
          .scales = scales,
          .starts = reinterpret_cast<int32_t*>(scales + rows * Int8Stretches(in))};
}

void RoundInt8Rows(const TensorView& x, int64_t begin, int64_t end, Int8Dots dots, const Int8Rows& to) {
  HWY_DYNAMIC_DISPATCH(RoundRowsOf)(x, begin, end, dots, to);
}

void Int8Compute(const Int8Product& product, Int8Dots dots) {
  HWY_DYNAMIC_DISPATCH(ComputeOf)(product, dots);
}

}  // namespace moebius
#endif  // HWY_ONCE
