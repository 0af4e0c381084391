#include "core/backend/cpu/attention.h"

#include <cmath>
#include <limits>

#include "core/backend/cpu/amx.h"
#include "core/backend/cpu/cpu_backend.h"
#include "core/backend/cpu/instruction_set.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/backend/cpu/attention.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
//
#include "core/backend/cpu/attention-inl.h"

HWY_BEFORE_NAMESPACE();
namespace moebius {
namespace HWY_NAMESPACE {

// One chunk of queries of one head, over all keys before them, keys block by block with a running maximum and
// sum (Milakov and Gimelshein, "Online normalizer calculation for softmax", 2018; FlashAttention).
template <class Unit>
struct ForwardScratch {
  ForwardScratch(const AttentionProblem& p, void* memory) : carver(memory) {
    const int64_t ldd = Padded(p.d());
    const int64_t ldv = Padded(p.dv);
    keys = carver.Take<Unit>(kKeyBlock * ldd);
    keys_transposed = carver.Take<Unit>(kKeyBlock * ldd);
    values = carver.Take<Unit>(kKeyBlock * ldv);
    values_paired = TakePaired(carver, values, kKeyBlock * ldv);
    queries = carver.Take<Unit>(kQueries<Unit> * ldd);
    scores = carver.Take<float>(kQueries<Unit> * kScoreStride);
    out = carver.Take<float>(kQueryChunk * ldv);
    max = carver.Take<float>(kQueryChunk);
    sum = carver.Take<float>(kQueryChunk);
  }
  Carver carver;
  Unit* keys;             // [kKeyBlock, ldd]
  Unit* keys_transposed;  // for the scores
  Unit* values;           // [kKeyBlock, ldv]
  Unit* values_paired;    // for the output
  Unit* queries;          // [kQueries, ldd]
  float* scores;          // [kQueries, kScoreStride], then the probabilities in the same place
  float* out;             // [kQueryChunk, ldv], not yet divided by
  float* sum;             // [kQueryChunk]
  float* max;             // [kQueryChunk], of unscaled scores
};

// Turns the first `valid` scores of a row into exp(scale * (score - max)), zeros after them; returns their
// sum.
template <class Unit>
HWY_INLINE float ExpRow(float* row, int64_t valid, float scale, float max) {
  const F32 d;
  const auto vscale = hn::Set(d, scale);
  const auto shift = hn::Set(d, max * scale);
  auto sum = hn::Zero(d);
  const auto store = [row](VF v, int64_t at) HWY_ATTR {
    if constexpr (kElements<Unit> == 2) {
      // In place: bf16 element i lies before the fp32 element i that is still to be read.
      hn::StoreU(RoundToBF16(v), HalfWidthTag(), reinterpret_cast<uint16_t*>(row) + at);
    } else {
      hn::StoreU(v, F32(), row + at);
    }
  };
  int64_t i = 0;
  for (; i + kLanes <= valid; i += kLanes) {
    const auto p = Exp(hn::MulSub(hn::LoadU(d, row + i), vscale, shift));
    sum = hn::Add(sum, p);
    store(p, i);
  }
  if (i < valid) {
    auto p = Exp(hn::MulSub(hn::LoadU(d, row + i), vscale, shift));
    p = hn::IfThenElseZero(hn::FirstN(d, valid - i), p);
    sum = hn::Add(sum, p);
    store(p, i);
    i += kLanes;
  }
  for (; i < std::min(valid + kZeros<Unit>, kScoreStride - kLanes); i += kLanes) store(hn::Zero(d), i);
  return Sum(sum);
}

HWY_INLINE float MaxOfRow(const float* row, int64_t valid) {
  const F32 d;
  auto max = hn::Set(d, std::numeric_limits<float>::lowest());
  int64_t i = 0;
  for (; i + kLanes <= valid; i += kLanes) max = hn::Max(max, hn::LoadU(d, row + i));
  if (i < valid) max = hn::IfThenElse(hn::FirstN(d, valid - i), hn::Max(max, hn::LoadU(d, row + i)), max);
  return Max(max);
}

// Query rows first, first + step, ... of p.q, whose sums are rows `at` and following of the scratch.
struct QueryRows {
  int64_t first;
  int64_t step;
  int64_t count;
  int64_t at;
};

// The queries against one block of keys; row r sees those up to r + diagonal. What a row gets does not depend
// on the others: its products are chains over ascending elements and keys, to which keys that it does not see
// add zeros.
template <class Unit>
void ForwardBlock(const AttentionProblem& p, const QueryRows& q, ForwardScratch<Unit>& s, int64_t num_keys,
                  int64_t diagonal, bool first_block) {
  const F32 d;
  const int64_t ldd = Padded(p.d());
  const int64_t ldv = Padded(p.dv);
  CopyRows(p.q, q.first, q.step, q.count, p.d(), s.queries, ldd);
  PadRows(s.queries, q.count, p.d(), ldd);
  TileProduct<Bound::kColumns>(
      Tile<Unit>{q.count, num_keys, p.d(), s.queries, ldd / kElements<Unit>, 1, s.keys_transposed,
                 UnitsOf<Unit>(p.d()) * kPanel, kPanel, s.scores, kScoreStride, false},
      diagonal);
  for (int64_t r = 0; r < q.count; ++r) {
    float* row = s.scores + r * kScoreStride;
    const int64_t valid = std::min(num_keys, r + diagonal + 1);
    const float old_max = s.max[q.at + r];
    const float max = std::max(old_max, MaxOfRow(row, valid));
    const float sum = ExpRow<Unit>(row, valid, p.scale, max);
    s.max[q.at + r] = max;
    if (first_block) {
      s.sum[q.at + r] = sum;
      continue;
    }
    const float shrink = std::exp((old_max - max) * p.scale);
    s.sum[q.at + r] = s.sum[q.at + r] * shrink + sum;
    if (shrink == 1) continue;
    const auto factor = hn::Set(d, shrink);
    float* out = s.out + (q.at + r) * ldv;
    for (int64_t c = 0; c < ldv; c += kLanes) hn::StoreU(hn::Mul(hn::LoadU(d, out + c), factor), d, out + c);
  }
  TileProduct<Bound::kReduceTo>(
      Tile<Unit>{q.count, p.dv, num_keys, reinterpret_cast<const Unit*>(s.scores), kScoreStride, 1,
                 s.values_paired, kPanel, ldv, s.out + q.at * ldv, ldv, !first_block},
      diagonal);
}

// Keys and values of tokens [first, first + count) in the forms of the products.
template <class Unit>
void LoadBlock(const AttentionProblem& p, int64_t first, int64_t count, int64_t group,
               ForwardScratch<Unit>& s) {
  const int64_t ldd = Padded(p.d());
  const int64_t ldv = Padded(p.dv);
  CopyKeys(p, first, count, group, s.keys, ldd);
  PackTransposed(s.keys, count, UnitsOf<Unit>(p.d()), ldd / kElements<Unit>, s.keys_transposed);
  CopyRows(p.v, first * p.groups + group, p.groups, count, p.dv, s.values, ldv);
  PadRows(s.values, count, p.dv, ldv);
  PairRows(s.values, count, ldv, s.values_paired);
}

template <typename T>
void WriteRow(const float* from, float factor, T* to, int64_t n) {
  Sweep(n, [&](int64_t i, auto part)
               HWY_ATTR { Store(hn::Mul(Load(from + i, part), Set(factor)), to + i, part); });
}

// Row r of the scratch, divided by its sum, into row `to` of o.
template <class Unit>
void WriteOutput(const AttentionProblem& p, const ForwardScratch<Unit>& s, int64_t r, const RowsOf& o,
                 int64_t to) {
  const float* row = s.out + r * Padded(p.dv);
  if (o.dtype == DType::kF32) {
    WriteRow(row, 1 / s.sum[r], static_cast<float*>(o.data) + to * o.stride, p.dv);
  } else {
    WriteRow(row, 1 / s.sum[r], static_cast<BF16*>(o.data) + to * o.stride, p.dv);
  }
}

template <class Unit>
void ForwardTask(const AttentionProblem& p, const ForwardOutputs& out, const AttentionTask& task,
                 void* memory) {
  ForwardScratch<Unit> s(p, memory);
  const int64_t group = task.head / (p.heads / p.groups);
  std::fill(s.max, s.max + (task.end - task.begin), -std::numeric_limits<float>::infinity());
  for (int64_t key = 0; key < task.end; key += kKeyBlock) {
    const int64_t num_keys = std::min(kKeyBlock, task.end - key);
    LoadBlock(p, task.start + key, num_keys, group, s);
    for (int64_t query = task.begin; query < task.end; query += kQueries<Unit>) {
      const int64_t end = std::min(query + kQueries<Unit>, task.end);
      const int64_t first = std::max(query, key);
      if (first >= end) continue;
      const QueryRows rows{(task.start + first) * p.heads + task.head, p.heads, end - first,
                           first - task.begin};
      ForwardBlock(p, rows, s, num_keys, first - key, key == 0);
    }
  }
  for (int64_t r = 0; r < task.end - task.begin; ++r) {
    const int64_t token = task.start + task.begin + r;
    WriteOutput(p, s, r, out.o, token * p.heads + task.head);
    static_cast<float*>(out.lse.data)[task.head * out.lse.stride + token] =
        s.max[r] * p.scale + std::log(s.sum[r]);
  }
}

// The queries of heads that share their keys are the rows of one product.
template <class Unit>
void NewestTask(const AttentionProblem& p, const NewestQueries& queries, const RowsOf& o, void* memory) {
  ForwardScratch<Unit> s(p, memory);
  std::fill(s.max, s.max + queries.count, -std::numeric_limits<float>::infinity());
  for (int64_t key = 0; key < queries.keys; key += kKeyBlock) {
    const int64_t num_keys = std::min(kKeyBlock, queries.keys - key);
    LoadBlock(p, key, num_keys, 0, s);
    ForwardBlock(p, {queries.first, 1, queries.count, 0}, s, num_keys, num_keys - 1, key == 0);
  }
  for (int64_t r = 0; r < queries.count; ++r) WriteOutput(p, s, r, o, queries.first + r);
}

void ForwardTaskOf(UnitKind unit, const AttentionProblem& p, const ForwardOutputs& out,
                   const AttentionTask& task, void* memory) {
  WithUnit(unit, [&](auto of) HWY_ATTR { ForwardTask<decltype(of)>(p, out, task, memory); });
}
void NewestTaskOf(UnitKind unit, const AttentionProblem& p, const NewestQueries& queries, const RowsOf& o,
                  void* memory) {
  WithUnit(unit, [&](auto of) HWY_ATTR { NewestTask<decltype(of)>(p, queries, o, memory); });
}
int64_t ForwardBytes(const AttentionProblem& p) {
  return std::max({ForwardScratch<float>(p, nullptr).carver.bytes(),
                   ForwardScratch<BF16Pair>(p, nullptr).carver.bytes(),
                   ForwardScratch<AmxPair>(p, nullptr).carver.bytes()});
}

}  // namespace HWY_NAMESPACE
}  // namespace moebius
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace moebius {

HWY_EXPORT(ForwardTaskOf);
HWY_EXPORT(NewestTaskOf);
HWY_EXPORT(ForwardBytes);

int64_t ForwardScratchBytes(const AttentionProblem& problem) {
  return HWY_DYNAMIC_DISPATCH(ForwardBytes)(problem);
}

void RunForwardTask(UnitKind unit, const AttentionProblem& problem, const ForwardOutputs& out,
                    const AttentionTask& task, void* memory) {
  HWY_DYNAMIC_DISPATCH(ForwardTaskOf)(unit, problem, out, task, memory);
}

void RunNewestTask(UnitKind unit, const AttentionProblem& problem, const NewestQueries& queries,
                   const RowsOf& o, void* memory) {
  HWY_DYNAMIC_DISPATCH(NewestTaskOf)(unit, problem, queries, o, memory);
}

AttentionProblem::AttentionProblem(const AttentionArgs& args)
    : heads(args.q.shape[1]),
      groups(args.k.shape[1]),
      dk(args.k.cols()),
      dr(args.k_shared ? args.k_shared.cols() : 0),
      dv(args.v.cols()),
      scale(args.scale),
      q(args.q),
      k(args.k),
      k_shared(args.k_shared),
      v(args.v) {
  CHECK_GT(scale, 0.0f);  // the running maximum is kept of unscaled scores
}

AttentionProblem::AttentionProblem(const DecodeAttentionArgs& args, int64_t sequence, int64_t group)
    : heads(args.q.shape[1]),
      groups(1),
      dk(args.q.cols()),
      dr(0),
      dv(args.o.cols()),
      scale(args.scale),
      q(args.q),
      k(args.k.Index(sequence).Columns(group * dk, dk)),
      v(args.v.Index(sequence).Columns(group * dv, dv)) {
  CHECK_GT(scale, 0.0f);
}

void CutSequence(int64_t start, int64_t end, int64_t heads, int64_t chunk, Work work,
                 std::vector<AttentionTask>& tasks) {
  const int64_t length = end - start;
  const int64_t chunks = (length + chunk - 1) / chunk;
  for (int64_t i = 0; i < chunks; ++i) {
    const int64_t begin = (work == Work::kGrows ? chunks - 1 - i : i) * chunk;
    for (int64_t head = 0; head < heads; ++head) {
      tasks.push_back({start, length, begin, std::min(begin + chunk, length), head});
    }
  }
}

UnitKind ChooseUnit(DType act) {
  // Found once: Highway executes CPUID at every question, which traps in a virtual machine.
  static const UnitKind of_bf16 = [] {
    // Highway must have chosen its AVX3 code too: that holds the instructions.
    if ((hwy::SupportedTargets() & HWY_AVX3) == 0) return UnitKind::kFloat;
    if (HasAmx()) return UnitKind::kAmxPair;
    return HasBF16Dots() ? UnitKind::kBF16Pair : UnitKind::kFloat;
  }();
  return act == DType::kBF16 ? of_bf16 : UnitKind::kFloat;
}

void CpuBackend::Attention(Stream&, const AttentionArgs& args) {
  const AttentionProblem problem(args);
  const ForwardOutputs out{RowsOf(args.o), RowsOf(args.lse)};
  const UnitKind unit = ChooseUnit(args.q.dtype);
  const int64_t bytes = ForwardScratchBytes(problem);
  std::vector<AttentionTask> tasks;
  for (size_t i = 0; i + 1 < args.sequence_starts.size(); ++i) {
    CutSequence(args.sequence_starts[i], args.sequence_starts[i + 1], problem.heads, kQueryChunk,
                Work::kGrows, tasks);
  }
  pool_.Run(static_cast<int64_t>(tasks.size()), [&](int64_t task, int thread) {
    RunForwardTask(unit, problem, out, tasks[task], ThreadScratch(thread, bytes));
  });
}

void CpuBackend::DecodeAsAttention(const DecodeAttentionArgs& args) {
  const int64_t batch = args.q.shape[0], heads = args.q.shape[1], groups = args.k.cols() / args.q.cols();
  const int64_t per_group = heads / groups, pieces = (per_group + kQueryBlock - 1) / kQueryBlock;
  const int32_t* lengths = args.lengths.as<int32_t>();
  const UnitKind unit = ChooseUnit(args.q.dtype);
  const RowsOf o(args.o);
  pool_.Run(batch * groups * pieces, [&](int64_t task, int thread) {
    const int64_t sequence = task / pieces / groups, group = task / pieces % groups;
    const int64_t head = task % pieces * kQueryBlock;
    CHECK(lengths[sequence] >= 1 && lengths[sequence] <= args.k.shape[1])
        << "sequence " << sequence << " has " << lengths[sequence] << " cached tokens of " << args.k.shape[1];
    const AttentionProblem problem(args, sequence, group);
    const NewestQueries queries{.first = sequence * heads + group * per_group + head,
                                .count = std::min(kQueryBlock, per_group - head),
                                .keys = lengths[sequence]};
    RunNewestTask(unit, problem, queries, o, ThreadScratch(thread, ForwardScratchBytes(problem)));
  });
}

}  // namespace moebius
#endif  // HWY_ONCE
