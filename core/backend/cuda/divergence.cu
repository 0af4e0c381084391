// The divergence between a student's and a teacher's rows of logits, and its gradient. A block owns a row and
// reads both logits four times (two maxima; two sums; the divergence; the gradient), the later times mostly
// from the second-level cache. A thread owns the elements that it writes, so the gradient may replace either.
#include <cfloat>

#include "core/backend/cuda/double_sums.cuh"

namespace moebius {
namespace cuda {
namespace {

constexpr int kThreads = 512;

struct DivergenceKernelArgs {
  const float* logits;  // [n, V]
  int64_t logits_stride;
  const float* teacher;  // [n, V]
  int64_t teacher_stride;
  const int32_t* targets;
  float scale;
  const float* weights;  // null: 1 each
  float inverse_temperature;
  float* divergences;
  float* agreements;
  float* gradient;  // null, or may be logits or teacher
  int64_t gradient_stride;
  int vocabulary;
};

// p = e^z / p_sum and q = e^y / q_sum, with z and y the logits below their maximum times the inverse
// temperature.
struct RowPair {
  float student_max, teacher_max;
  float by;
  double p_sum, q_sum;
  __device__ float Z(float student) const { return (student - student_max) * by; }
  __device__ float Y(float teacher) const { return (teacher - teacher_max) * by; }
  // ln q - ln p = y - z - Shift()
  __device__ float Shift() const { return static_cast<float>(log(q_sum) - log(p_sum)); }
};

// Whether the first of the teacher's best is among the student's best. Ids stay below 2^24: exact as floats.
__device__ bool Agrees(const float* student, const float* teacher, int n, const RowPair& row) {
  __shared__ float firsts[kThreads / kWarp];
  float first = -FLT_MAX;  // less the id
  for (int i = static_cast<int>(threadIdx.x); i < n && first == -FLT_MAX; i += kThreads) {
    if (teacher[i] == row.teacher_max) first = -static_cast<float>(i);
  }
  first = BlockMax<kThreads>(first, firsts);
  return first != -FLT_MAX && student[static_cast<int>(-first)] == row.student_max;
}

__device__ RowPair Normalize(const float* student, const float* teacher, int n, float by) {
  __shared__ float maxima[kThreads / kWarp];
  __shared__ double sums[kThreads / kWarp];
  float student_max = -FLT_MAX, teacher_max = -FLT_MAX;
  for (int i = static_cast<int>(threadIdx.x); i < n; i += kThreads) {
    student_max = fmaxf(student_max, student[i]);
    teacher_max = fmaxf(teacher_max, teacher[i]);
  }
  student_max = BlockMax<kThreads>(student_max, maxima);
  teacher_max = BlockMax<kThreads>(teacher_max, maxima);
  RowPair row{student_max, teacher_max, by, 0, 0};
  double p_sum = 0, q_sum = 0;
  for (int i = static_cast<int>(threadIdx.x); i < n; i += kThreads) {
    p_sum += expf(row.Z(student[i]));
    q_sum += expf(row.Y(teacher[i]));
  }
  row.p_sum = BlockSum<kThreads>(p_sum, sums);
  row.q_sum = BlockSum<kThreads>(q_sum, sums);
  return row;
}

template <bool kForward>
__global__ void __launch_bounds__(kThreads) DivergenceKernel(DivergenceKernelArgs args) {
  __shared__ double sums[kThreads / kWarp];
  const int64_t r = blockIdx.x;
  const int n = args.vocabulary, thread = static_cast<int>(threadIdx.x);
  const float* student = args.logits + r * args.logits_stride;
  const float* teacher = args.teacher + r * args.teacher_stride;
  float* gradient = args.gradient == nullptr ? nullptr : args.gradient + r * args.gradient_stride;
  if (args.targets[r] < 0) {
    if (thread == 0) args.divergences[r] = args.agreements[r] = 0;
    for (int i = thread; gradient != nullptr && i < n; i += kThreads) gradient[i] = 0;
    return;
  }
  const RowPair row = Normalize(student, teacher, n, args.inverse_temperature);
  const float shift = row.Shift();
  const bool agrees = Agrees(student, teacher, n, row);
  double part = 0;
  for (int i = thread; i < n; i += kThreads) {
    const float z = row.Z(student[i]), y = row.Y(teacher[i]), weight = expf(kForward ? y : z);
    // What has no probability has no share, whatever its logarithm.
    if (weight != 0) part += weight * (kForward ? y - z - shift : z - y + shift);
  }
  part = BlockSum<kThreads>(part, sums);  // all have read what the gradient may replace
  const double divergence = part / (kForward ? row.q_sum : row.p_sum);
  if (thread == 0) {
    args.divergences[r] = static_cast<float>(divergence);
    args.agreements[r] = agrees ? 1 : 0;
  }
  if (gradient == nullptr) return;
  const float factor =
      args.scale * (args.weights == nullptr ? 1 : args.weights[r]) * args.inverse_temperature;
  const float p_log = static_cast<float>(log(row.p_sum)), q_log = static_cast<float>(log(row.q_sum));
  const float beyond = static_cast<float>(shift - divergence);
  for (int i = thread; i < n; i += kThreads) {
    const float z = row.Z(student[i]), y = row.Y(teacher[i]), p = expf(z - p_log);
    if constexpr (kForward) {
      gradient[i] = factor * (p - expf(y - q_log));  // equal rows differ by exactly nothing
    } else {
      const float share = factor * p;  // 0 in a row that counts for nothing, whose divergence may be infinite
      gradient[i] = share == 0 ? 0 : share * (z - y + beyond);
    }
  }
}

}  // namespace
}  // namespace cuda

void CudaBackend::Divergence(Stream& stream, const DivergenceArgs& args) {
  const int64_t rows = args.logits.rows(), vocabulary = args.logits.cols();
  if (rows == 0) return;
  CHECK_LE(vocabulary, int64_t{1} << 24);
  CHECK_LT(rows, int64_t{1} << 31) << "blocks of one launch";
  const cuda::DivergenceKernelArgs kernel{.logits = cuda::Data<const float>(args.logits),
                                          .logits_stride = args.logits.stride,
                                          .teacher = cuda::Data<const float>(args.teacher),
                                          .teacher_stride = args.teacher.stride,
                                          .targets = cuda::Data<const int32_t>(args.targets),
                                          .scale = args.scale,
                                          .weights = cuda::Data<const float>(args.weights),
                                          .inverse_temperature = args.inverse_temperature,
                                          .divergences = cuda::Data<float>(args.divergences),
                                          .agreements = cuda::Data<float>(args.agreements),
                                          .gradient = cuda::Data<float>(args.gradient),
                                          .gradient_stride = args.gradient.stride,
                                          .vocabulary = static_cast<int>(vocabulary)};
  const auto launch =
      args.kind == DivergenceKind::kForward ? cuda::DivergenceKernel<true> : cuda::DivergenceKernel<false>;
  launch<<<static_cast<unsigned>(rows), cuda::kThreads, 0, cuda::Raw(stream)>>>(kernel);
  cuda::Launched("Divergence");
}

}  // namespace moebius
