#include "core/backend/cpu/amx.h"
#include "core/backend/cpu/attention.h"
#include "core/backend/cpu/cpu_backend.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/backend/cpu/attention_backward.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
//
#include "core/backend/cpu/attention-inl.h"

HWY_BEFORE_NAMESPACE();
namespace moebius {
namespace HWY_NAMESPACE {

// Units from row to row of dS in bf16: room for the keys of a block and, for AMX, an odd number of cache
// lines.
inline constexpr int64_t kRoundedStride = kKeyBlock / 2 + 16;

// One chunk of keys of one key/value head: over its query heads in order, its key blocks, and the query
// blocks that see them. Probabilities are computed again from lse (FlashAttention-2, algorithm 2):
//   P = exp(scale S - lse), dS = scale P (dO Vᵀ - rowsum(dO O)),
//   dV += Pᵀ dO, dK += dSᵀ Q, dQ += dS K.
template <class Unit>
struct BackwardScratch {
  BackwardScratch(const AttentionProblem& p, int64_t queries_in_all, int64_t keys_in_all, void* memory)
      : carver(memory), ldd(Padded(p.d())), ldv(Padded(p.dv)) {
    values = carver.Take<Unit>(kKeyBlock * ldv);
    keys = carver.Take<Unit>(kKeyBlock * ldd);
    keys_paired = TakePaired(carver, keys, kKeyBlock * ldd);
    keys_transposed = carver.Take<Unit>(kKeyBlock * ldd);
    values_transposed = carver.Take<Unit>(kKeyBlock * ldv);
    queries = carver.Take<Unit>(kQueries<Unit> * ldd);
    queries_paired = TakePaired(carver, queries, kQueries<Unit> * ldd);
    d_out = carver.Take<Unit>(kQueries<Unit> * ldv);
    d_out_paired = TakePaired(carver, d_out, kQueries<Unit> * ldv);
    p_tile = carver.Take<float>(kQueries<Unit> * kScoreStride);
    ds_tile = carver.Take<float>(kQueries<Unit> * kScoreStride);
    p_paired = carver.Take<Unit>(kElements<Unit> == 2 ? kQueries<Unit> / 2 * kScoreStride : 0);
    ds_paired = carver.Take<Unit>(kElements<Unit> == 2 ? kQueries<Unit> / 2 * kScoreStride : 0);
    ds_rows = carver.Take<Unit>(kElements<Unit> == 2 ? kQueries<Unit> * kRoundedStride : 0);
    p_turned = carver.Take<Unit>(kAmx<Unit> ? kKeyBlock * kTileBlock : 0);
    ds_turned = carver.Take<Unit>(kAmx<Unit> ? kKeyBlock * kTileBlock : 0);
    delta = carver.Take<float>(queries_in_all);
    dq = carver.Take<float>(queries_in_all * ldd);
    dk = carver.Take<float>(keys_in_all * ldd);
    dv = carver.Take<float>(keys_in_all * ldv);
  }
  Carver carver;
  int64_t ldd, ldv;
  Unit* values;             // [kKeyBlock, ldv]
  Unit* keys;               // [kKeyBlock, ldd]
  Unit* keys_paired;        // for dQ
  Unit* keys_transposed;    // for S
  Unit* values_transposed;  // for dO Vᵀ
  Unit* queries;            // [kQueries, ldd]
  Unit* queries_paired;     // for dK
  Unit* d_out;              // [kQueries, ldv]
  Unit* d_out_paired;       // for dV
  float* p_tile;            // [kQueries, kScoreStride]: scores, then probabilities
  float* ds_tile;           // the same: dO Vᵀ, then dS
  Unit* p_paired;           // bf16 only: two rows interleaved
  Unit* ds_paired;
  Unit* ds_rows;   // bf16 only: [kQueries, kRoundedStride]
  Unit* p_turned;  // AMX only: p_paired with keys as rows, in panels of kPanel pairs of queries
  Unit* ds_turned;
  float* delta;  // [queries]
  float* dq;     // [queries, ldd], of one head
  float* dk;     // [keys of the task, ldd]
  float* dv;     // [keys of the task, ldv]
};

// Scores to probabilities and dO Vᵀ to dS, in place, for the first `valid` keys of a row; zeros after them.
template <class Unit>
HWY_INLINE void GradientRow(float* p_row, float* ds_row, int64_t valid, float scale, float lse, float delta) {
  const F32 d;
  const auto vscale = hn::Set(d, scale);
  const auto vlse = hn::Set(d, lse);
  const auto vdelta = hn::Set(d, delta);
  const auto one = [&](int64_t i, VF& p, VF& ds) HWY_ATTR {
    p = Exp(hn::MulSub(hn::LoadU(d, p_row + i), vscale, vlse));
    ds = hn::Mul(hn::Mul(p, vscale), hn::Sub(hn::LoadU(d, ds_row + i), vdelta));
  };
  VF p, ds;
  int64_t i = 0;
  for (; i + kLanes <= valid; i += kLanes) {
    one(i, p, ds);
    hn::StoreU(p, d, p_row + i);
    hn::StoreU(ds, d, ds_row + i);
  }
  if (i < valid) {
    one(i, p, ds);
    const auto mask = hn::FirstN(d, valid - i);
    hn::StoreU(hn::IfThenElseZero(mask, p), d, p_row + i);
    hn::StoreU(hn::IfThenElseZero(mask, ds), d, ds_row + i);
    i += kLanes;
  }
  for (; i < std::min(valid + kZeros<Unit>, kScoreStride - kLanes); i += kLanes) {
    hn::StoreU(hn::Zero(d), d, p_row + i);
    hn::StoreU(hn::Zero(d), d, ds_row + i);
  }
}

// bf16 forms of two fp32 rows: interleaved, and (when given) as they lie.
HWY_INLINE void RoundRows(const float* row0, const float* row1, int64_t n, BF16Pair* paired, uint16_t* out0,
                          uint16_t* out1) {
  const F32 d;
  const WordTag dw;
  for (int64_t i = 0; i < n; i += kLanes) {
    const auto a = RoundToBF16(hn::LoadU(d, row0 + i));
    const auto b = RoundToBF16(hn::LoadU(d, row1 + i));
    hn::StoreU(hn::Or(hn::PromoteTo(dw, a), hn::ShiftLeft<16>(hn::PromoteTo(dw, b))), dw, &paired[i].bits);
    if (out0 == nullptr) continue;
    hn::StoreU(a, HalfWidthTag(), out0 + i);
    hn::StoreU(b, HalfWidthTag(), out1 + i);
  }
}

template <class Unit>
void LoadKeyBlock(const AttentionProblem& p, const AttentionTask& task, int64_t key, int64_t num_keys,
                  BackwardScratch<Unit>& s) {
  constexpr int64_t kPack = kElements<Unit>;
  const int64_t token = task.start + key;
  CopyRows(p.v, token * p.groups + task.head, p.groups, num_keys, p.dv, s.values, s.ldv);
  PadRows(s.values, num_keys, p.dv, s.ldv);
  PackTransposed(s.values, num_keys, UnitsOf<Unit>(p.dv), s.ldv / kPack, s.values_transposed);
  CopyKeys(p, token, num_keys, task.head, s.keys, s.ldd);
  PackTransposed(s.keys, num_keys, UnitsOf<Unit>(p.d()), s.ldd / kPack, s.keys_transposed);
  PairRows(s.keys, num_keys, s.ldd, s.keys_paired);
}

template <class Unit>
void LoadQueryBlock(const AttentionProblem& p, const BackwardOutputs& io, int64_t token, int64_t head,
                    int64_t count, BackwardScratch<Unit>& s) {
  CopyRows(p.q, token * p.heads + head, p.heads, count, p.d(), s.queries, s.ldd);
  PadRows(s.queries, count, p.d(), s.ldd);
  PairRows(s.queries, count, s.ldd, s.queries_paired);
  CopyRows(io.d_o, token * p.heads + head, p.heads, count, p.dv, s.d_out, s.ldv);
  PadRows(s.d_out, count, p.dv, s.ldv);
  PairRows(s.d_out, count, s.ldv, s.d_out_paired);
}

// What a block of queries [first_query, + num_queries) and one of keys give each other.
template <class Unit>
void BackwardBlock(const AttentionProblem& p, const BackwardOutputs& io, const AttentionTask& task,
                   int64_t head, int64_t first_key, int64_t num_keys, int64_t first_query,
                   int64_t num_queries, BackwardScratch<Unit>& s) {
  constexpr int64_t kPack = kElements<Unit>;
  const int64_t diagonal = first_query - first_key;
  const int64_t units = UnitsOf<Unit>(p.d());
  const int64_t v_units = UnitsOf<Unit>(p.dv);
  TileProduct<Bound::kColumns>(
      Tile<Unit>{num_queries, num_keys, p.d(), s.queries, s.ldd / kPack, 1, s.keys_transposed, units * kPanel,
                 kPanel, s.p_tile, kScoreStride, false},
      diagonal);
  TileProduct<Bound::kColumns>(
      Tile<Unit>{num_queries, num_keys, p.dv, s.d_out, s.ldv / kPack, 1, s.values_transposed,
                 v_units * kPanel, kPanel, s.ds_tile, kScoreStride, false},
      diagonal);
  const float* lse = static_cast<const float*>(io.lse.data) + head * io.lse.stride + task.start + first_query;
  const float* delta = s.delta + first_query - task.begin;
  for (int64_t r = 0; r < num_queries; ++r) {
    GradientRow<Unit>(s.p_tile + r * kScoreStride, s.ds_tile + r * kScoreStride,
                      std::min(num_keys, r + diagonal + 1), p.scale, lse[r], delta[r]);
  }

  const Unit* p_columns = reinterpret_cast<const Unit*>(s.p_tile);
  const Unit* ds_columns = reinterpret_cast<const Unit*>(s.ds_tile);
  const Unit* ds_rows = ds_columns;
  int64_t ds_stride = kScoreStride;
  if constexpr (kPack == 2) {
    uint16_t* rows = reinterpret_cast<uint16_t*>(s.ds_rows);
    for (int64_t r = 0; r < num_queries; r += 2) {
      if (r + 1 == num_queries) {
        std::fill_n(s.p_tile + (r + 1) * kScoreStride, kScoreStride, 0.0f);
        std::fill_n(s.ds_tile + (r + 1) * kScoreStride, kScoreStride, 0.0f);
      }
      const int64_t n = std::min(std::min(num_keys, r + diagonal + 2) + kZeros<Unit>, kScoreStride);
      const int64_t at = r * kScoreStride;
      uint16_t* const out = rows + r * 2 * kRoundedStride;
      RoundRows(s.p_tile + at, s.p_tile + at + kScoreStride, n, s.p_paired + at / 2, nullptr, nullptr);
      RoundRows(s.ds_tile + at, s.ds_tile + at + kScoreStride, n, s.ds_paired + at / 2, out,
                out + 2 * kRoundedStride);
    }
    p_columns = s.p_paired;
    ds_columns = s.ds_paired;
    ds_rows = s.ds_rows;
    ds_stride = kRoundedStride;
  }
  int64_t key_step = 1, query_step = kScoreStride;
  if constexpr (kAmx<Unit>) {
    const int64_t pairs = (num_queries + 1) / 2;
    PackTransposed(s.p_paired, pairs, num_keys, kScoreStride, s.p_turned);
    PackTransposed(s.ds_paired, pairs, num_keys, kScoreStride, s.ds_turned);
    p_columns = s.p_turned;
    ds_columns = s.ds_turned;
    key_step = kPanel;
    query_step = 1;
  }
  const int64_t key_at = first_key - task.begin;
  TileProduct<Bound::kReduceFrom>(
      Tile<Unit>{num_keys, p.dv, num_queries, p_columns, key_step, query_step, s.d_out_paired, kPanel, s.ldv,
                 s.dv + key_at * s.ldv, s.ldv, true, num_keys * kPanel},
      diagonal);
  TileProduct<Bound::kReduceFrom>(
      Tile<Unit>{num_keys, p.d(), num_queries, ds_columns, key_step, query_step, s.queries_paired, kPanel,
                 s.ldd, s.dk + key_at * s.ldd, s.ldd, true, num_keys * kPanel},
      diagonal);
  TileProduct<Bound::kReduceTo>(
      Tile<Unit>{num_queries, p.d(), num_keys, ds_rows, ds_stride, 1, s.keys_paired, kPanel, s.ldd,
                 s.dq + (first_query - task.begin) * s.ldd, s.ldd, true},
      diagonal);
}

template <typename T>
float DotRow(const T* a, const T* b, int64_t n) {
  VF sum = Set(0);
  Sweep(n,
        [&](int64_t i, auto part) HWY_ATTR { sum = hn::MulAdd(Load(a + i, part), Load(b + i, part), sum); });
  return Sum(sum);
}

float Delta(const AttentionProblem& p, const BackwardOutputs& io, int64_t row) {
  if (io.o.dtype == DType::kF32) {
    return DotRow(static_cast<const float*>(io.o.data) + row * io.o.stride,
                  static_cast<const float*>(io.d_o.data) + row * io.d_o.stride, p.dv);
  }
  return DotRow(static_cast<const BF16*>(io.o.data) + row * io.o.stride,
                static_cast<const BF16*>(io.d_o.data) + row * io.d_o.stride, p.dv);
}

void WriteRows(const float* from, int64_t ld, const RowsOf& to, int64_t first, int64_t step, int64_t count,
               int64_t cols) {
  for (int64_t r = 0; r < count; ++r) {
    const int64_t at = (first + r * step) * to.stride;
    if (to.dtype == DType::kF32) {
      ConvertRow(from + r * ld, static_cast<float*>(to.data) + at, cols);
    } else {
      ConvertRow(from + r * ld, static_cast<BF16*>(to.data) + at, cols);
    }
  }
}

template <class Unit>
void BackwardTask(const AttentionProblem& p, const BackwardOutputs& io, const AttentionTask& task,
                  void* memory) {
  const int64_t queries = task.length - task.begin;
  const int64_t keys = task.end - task.begin;
  BackwardScratch<Unit> s(p, queries, keys, memory);
  std::fill_n(s.dk, keys * s.ldd, 0.0f);
  std::fill_n(s.dv, keys * s.ldv, 0.0f);
  const int64_t per_group = p.heads / p.groups;
  const int64_t first_token = task.start + task.begin;
  for (int64_t head = task.head * per_group; head < (task.head + 1) * per_group; ++head) {
    std::fill_n(s.dq, queries * s.ldd, 0.0f);
    for (int64_t r = 0; r < queries; ++r) s.delta[r] = Delta(p, io, (first_token + r) * p.heads + head);
    for (int64_t key = task.begin; key < task.end; key += kKeyBlock) {
      const int64_t num_keys = std::min(kKeyBlock, task.end - key);
      LoadKeyBlock(p, task, key, num_keys, s);
      for (int64_t query = key; query < task.length; query += kQueries<Unit>) {
        const int64_t count = std::min(kQueries<Unit>, task.length - query);
        LoadQueryBlock(p, io, task.start + query, head, count, s);
        BackwardBlock(p, io, task, head, key, num_keys, query, count, s);
      }
    }
    WriteRows(s.dq, s.ldd, io.dq, first_token * p.heads + head, p.heads, queries, p.d());
  }
  WriteRows(s.dv, s.ldv, io.dv, first_token * p.groups + task.head, p.groups, keys, p.dv);
  WriteRows(s.dk, s.ldd, io.dk, first_token * p.groups + task.head, p.groups, keys, p.dk);
  if (p.dr > 0) {
    WriteRows(s.dk + p.dk, s.ldd, io.dk_shared, first_token, 1, keys, p.dr);
  }
}

void BackwardTaskOf(UnitKind unit, const AttentionProblem& p, const BackwardOutputs& io,
                    const AttentionTask& task, void* memory) {
  WithUnit(unit, [&](auto of) HWY_ATTR { BackwardTask<decltype(of)>(p, io, task, memory); });
}
int64_t BackwardBytes(const AttentionProblem& p, int64_t queries, int64_t keys) {
  return std::max({BackwardScratch<float>(p, queries, keys, nullptr).carver.bytes(),
                   BackwardScratch<BF16Pair>(p, queries, keys, nullptr).carver.bytes(),
                   BackwardScratch<AmxPair>(p, queries, keys, nullptr).carver.bytes()});
}

// Row `row` of `to` = the sum of `count` fp32 pieces of n elements, in order, each `distance` after the last.
template <typename T>
void SumPieces(const float* pieces, int64_t count, int64_t distance, int64_t n, T* to) {
  Sweep(n, [&](int64_t i, auto part) HWY_ATTR {
    VF sum = Load(pieces + i, part);
    for (int64_t piece = 1; piece < count; ++piece)
      sum = hn::Add(sum, Load(pieces + piece * distance + i, part));
    Store(sum, to + i, part);
  });
}
void SumPiecesInto(const float* pieces, int64_t count, int64_t distance, int64_t n, const RowsOf& to,
                   int64_t row) {
  if (to.dtype == DType::kF32) {
    SumPieces(pieces, count, distance, n, static_cast<float*>(to.data) + row * to.stride);
  } else {
    SumPieces(pieces, count, distance, n, static_cast<BF16*>(to.data) + row * to.stride);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace moebius
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace moebius {

HWY_EXPORT(BackwardTaskOf);
HWY_EXPORT(BackwardBytes);
HWY_EXPORT(SumPiecesInto);

int64_t BackwardScratchBytes(const AttentionProblem& problem, int64_t queries, int64_t keys) {
  return HWY_DYNAMIC_DISPATCH(BackwardBytes)(problem, queries, keys);
}

void RunBackwardTask(UnitKind unit, const AttentionProblem& problem, const BackwardOutputs& out,
                     const AttentionTask& task, void* memory) {
  HWY_DYNAMIC_DISPATCH(BackwardTaskOf)(unit, problem, out, task, memory);
}

int64_t KeyChunk(int64_t sequence_length) {
  constexpr int64_t kWhole = 1024;
  constexpr int64_t kMostParts = 4;
  constexpr int64_t kBlock = 256;
  if (sequence_length <= kWhole) return kWhole;
  const int64_t part = (sequence_length + kMostParts - 1) / kMostParts;
  return std::max(kWhole, (part + kBlock - 1) / kBlock * kBlock);
}

void CpuBackend::AttentionBackward(Stream&, const AttentionBackwardArgs& args) {
  const AttentionArgs& forward = args.forward;
  const AttentionProblem problem(forward);
  const UnitKind unit = ChooseUnit(forward.q.dtype);
  const int64_t tokens = forward.q.shape[0];
  const BackwardOutputs out{RowsOf(forward.o), RowsOf(args.d_o),       RowsOf(forward.lse), RowsOf(args.dq),
                            RowsOf(args.dk),   RowsOf(args.dk_shared), RowsOf(args.dv)};
  std::vector<AttentionTask> tasks;
  int64_t parts = 1;
  for (size_t i = 0; i + 1 < forward.sequence_starts.size(); ++i) {
    const int64_t start = forward.sequence_starts[i];
    const int64_t end = forward.sequence_starts[i + 1];
    const int64_t chunk = KeyChunk(end - start);
    CutSequence(start, end, problem.groups, chunk, Work::kFalls, tasks);
    parts = std::max(parts, (end - start + chunk - 1) / chunk);
  }
  int64_t bytes = 0;
  for (const AttentionTask& task : tasks) {
    bytes = std::max(bytes, BackwardScratchBytes(problem, task.length - task.begin, task.end - task.begin));
  }
  const int64_t dq_part = tokens * problem.heads * problem.d();
  const int64_t shared_part = tokens * problem.dr;
  Tensor dq_parts, shared_parts;
  if (parts > 1) dq_parts = Tensor(*this, DType::kF32, {parts * dq_part});
  if (problem.dr > 0 && problem.groups > 1)
    shared_parts = Tensor(*this, DType::kF32, {problem.groups * shared_part});

  pool_.Run(static_cast<int64_t>(tasks.size()), [&](int64_t i, int thread) {
    const AttentionTask& task = tasks[i];
    BackwardOutputs own = out;
    const int64_t chunk = KeyChunk(task.length);
    if (task.length > chunk) {
      own.dq = RowsOf(dq_parts.view().as<float>() + task.begin / chunk * dq_part, DType::kF32, problem.d());
    }
    if (shared_parts) {
      own.dk_shared =
          RowsOf(shared_parts.view().as<float>() + task.head * shared_part, DType::kF32, problem.dr);
    }
    RunBackwardTask(unit, problem, own, task, ThreadScratch(thread, bytes));
  });
  if (!dq_parts && !shared_parts) return;

  const auto sum = HWY_DYNAMIC_DISPATCH(SumPiecesInto);
  constexpr int64_t kTokensATask = 64;
  std::vector<int32_t> sequence_of(tokens);
  for (size_t s = 0; s + 1 < forward.sequence_starts.size(); ++s) {
    std::fill(sequence_of.begin() + forward.sequence_starts[s],
              sequence_of.begin() + forward.sequence_starts[s + 1], s);
  }
  pool_.Run((tokens + kTokensATask - 1) / kTokensATask, [&](int64_t i, int) {
    for (int64_t token = i * kTokensATask; token < std::min(tokens, (i + 1) * kTokensATask); ++token) {
      const int64_t start = forward.sequence_starts[sequence_of[token]];
      const int64_t length = forward.sequence_starts[sequence_of[token] + 1] - start;
      const int64_t chunk = KeyChunk(length);
      for (int64_t row = token * problem.heads; length > chunk && row < (token + 1) * problem.heads; ++row) {
        sum(dq_parts.view().as<float>() + row * problem.d(), (token - start) / chunk + 1, dq_part,
            problem.d(), out.dq, row);
      }
      if (shared_parts) {
        sum(shared_parts.view().as<float>() + token * problem.dr, problem.groups, shared_part, problem.dr,
            out.dk_shared, token);
      }
    }
  });
}

}  // namespace moebius
#endif  // HWY_ONCE
