#include <algorithm>
#include <cmath>

#include "core/backend/cpu/cpu_backend.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/backend/cpu/divergence.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
//
#include "core/backend/cpu/softmax-inl.h"

HWY_BEFORE_NAMESPACE();
namespace moebius {
namespace HWY_NAMESPACE {

// One row of the student's and the teacher's logits: p = e^z / p_sum, q = e^y / q_sum.
struct RowPair {
  const float* student;
  const float* teacher;
  int64_t n;
  float inverse_temperature;
  Normalizer p, q;

  template <class Part>
  HWY_INLINE VF Z(int64_t i, Part part) const {
    return hn::Mul(hn::Sub(Load(student + i, part), Set(p.max)), Set(inverse_temperature));
  }
  template <class Part>
  HWY_INLINE VF Y(int64_t i, Part part) const {
    return hn::Mul(hn::Sub(Load(teacher + i, part), Set(q.max)), Set(inverse_temperature));
  }
  // ln q - ln p = y - z - Shift()
  float Shift() const { return static_cast<float>(std::log(q.sum) - std::log(p.sum)); }
};

// Added up in pieces, whose few terms fp32 holds well enough.
template <bool kForward>
double DivergenceOf(const RowPair& row) {
  constexpr int64_t kPiece = 1024;
  const VF shift = Set(row.Shift());
  double sum = 0;
  for (int64_t begin = 0; begin < row.n; begin += kPiece) {
    VF total = Set(0);
    Sweep(std::min(kPiece, row.n - begin), [&](int64_t i, auto part) HWY_ATTR {
      const VF z = row.Z(begin + i, part), y = row.Y(begin + i, part);
      VF weight = Exp(kForward ? y : z);
      if constexpr (std::is_same_v<decltype(part), Part>) {
        weight = hn::IfThenElseZero(hn::FirstN(F32(), part.n), weight);
      }
      const VF difference = hn::Sub(hn::Sub(y, z), shift);
      // What has no probability has no share, whatever its logarithm.
      total = hn::Add(total, hn::IfThenZeroElse(hn::Eq(weight, Set(0)), hn::Mul(weight, difference)));
    });
    sum += Sum(total);
  }
  return kForward ? sum / row.q.sum : -sum / row.p.sum;
}

// d divergence / d logits times `factor` and the temperature.
template <bool kForward>
void GradientOf(const RowPair& row, double divergence, float factor, float* gradient) {
  const VF log_p = Set(static_cast<float>(std::log(row.p.sum))), by = Set(factor);
  if constexpr (kForward) {
    // Equal rows differ by exactly nothing: the factor comes last.
    const VF log_q = Set(static_cast<float>(std::log(row.q.sum)));
    Sweep(row.n, [&](int64_t i, auto part) HWY_ATTR {
      const VF p = Exp(hn::Sub(row.Z(i, part), log_p)), q = Exp(hn::Sub(row.Y(i, part), log_q));
      Store(hn::Mul(hn::Sub(p, q), by), gradient + i, part);
    });
  } else {
    const VF shift = Set(static_cast<float>(row.Shift() - divergence));
    Sweep(row.n, [&](int64_t i, auto part) HWY_ATTR {
      const VF z = row.Z(i, part), p = hn::Mul(Exp(hn::Sub(z, log_p)), by);
      const VF above = hn::Add(hn::Sub(z, row.Y(i, part)), shift);
      Store(hn::IfThenZeroElse(hn::Eq(p, Set(0)), hn::Mul(p, above)), gradient + i, part);
    });
  }
}

void DivergenceRow(const DivergenceArgs& args, int64_t row) {
  const int64_t n = args.logits.cols();
  float* gradient =
      args.gradient ? static_cast<float*>(args.gradient.data) + row * args.gradient.stride : nullptr;
  float& divergence = static_cast<float*>(args.divergences.data)[row];
  float& agreement = static_cast<float*>(args.agreements.data)[row];
  divergence = agreement = 0;
  if (static_cast<const int32_t*>(args.targets.data)[row] < 0) {
    if (gradient != nullptr) std::fill_n(gradient, n, 0.0f);
    return;
  }
  const float* student = static_cast<const float*>(args.logits.data) + row * args.logits.stride;
  const float* teacher = static_cast<const float*>(args.teacher.data) + row * args.teacher.stride;
  const RowPair pair{.student = student,
                     .teacher = teacher,
                     .n = n,
                     .inverse_temperature = args.inverse_temperature,
                     .p = Normalize<false>(student, n, args.inverse_temperature),
                     .q = Normalize<false>(teacher, n, args.inverse_temperature)};
  const float* best = std::find(teacher, teacher + n, pair.q.max);
  agreement = best < teacher + n && student[best - teacher] == pair.p.max ? 1 : 0;
  const bool forward = args.kind == DivergenceKind::kForward;
  const double value = forward ? DivergenceOf<true>(pair) : DivergenceOf<false>(pair);
  divergence = static_cast<float>(value);
  if (gradient == nullptr) return;
  const float weight = args.weights ? static_cast<const float*>(args.weights.data)[row] : 1;
  const float factor = args.scale * weight * args.inverse_temperature;
  forward ? GradientOf<true>(pair, value, factor, gradient)
          : GradientOf<false>(pair, value, factor, gradient);
}

}  // namespace HWY_NAMESPACE
}  // namespace moebius
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace moebius {

HWY_EXPORT(DivergenceRow);

void CpuBackend::Divergence(Stream&, const DivergenceArgs& args) {
  const int64_t n = args.logits.rows();
  const int64_t rows = std::max<int64_t>(1, 32768 / args.logits.cols());
  const auto row_of = HWY_DYNAMIC_DISPATCH(DivergenceRow);
  pool_.Run((n + rows - 1) / rows, [&](int64_t task, int) {
    for (int64_t row = task * rows; row < std::min(n, (task + 1) * rows); ++row) row_of(args, row);
  });
}

}  // namespace moebius
#endif  // HWY_ONCE
