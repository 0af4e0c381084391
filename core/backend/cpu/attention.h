// What the forward and the backward of attention share: the problem in numbers, and how it is cut into tasks.
#pragma once

#include <cstdint>
#include <vector>

#include "core/backend/kernel_args.h"

namespace moebius {

// Rows of a tensor: row r starts at element r * stride.
struct RowsOf {
  void* data = nullptr;
  DType dtype = DType::kF32;
  int64_t stride = 0;

  RowsOf() = default;
  RowsOf(void* data_in, DType dtype_in, int64_t stride_in)
      : data(data_in), dtype(dtype_in), stride(stride_in) {}
  explicit RowsOf(const TensorView& view) : RowsOf(view.data, view.dtype, view.stride) {}
};

struct AttentionProblem {
  int64_t heads;
  int64_t groups;
  int64_t dk;  // columns of k, of k_shared, of v
  int64_t dr;
  int64_t dv;
  float scale;
  RowsOf q, k, k_shared, v;

  explicit AttentionProblem(const AttentionArgs& args);
  // Of sequence `sequence` and key/value head `group` of a decoding step alone: one key head, from the
  // sequence's first cached token on; `heads` is still the number of all query heads.
  AttentionProblem(const DecodeAttentionArgs& args, int64_t sequence, int64_t group);
  int64_t d() const { return dk + dr; }
};

// Positions [begin, end) of the sequence that starts at token `start`, for one query head (forward) or one
// key/value head (backward).
struct AttentionTask {
  int64_t start;
  int64_t length;
  int64_t begin;
  int64_t end;
  int64_t head;
};

// Tasks of one sequence, appended: one for every head and every `chunk` positions. Heavy ones first, so that
// no thread starts the longest last: kGrows when the work grows with the position (queries), kFalls for keys.
enum class Work { kGrows, kFalls };
void CutSequence(int64_t start, int64_t end, int64_t heads, int64_t chunk, Work work,
                 std::vector<AttentionTask>& tasks);

// How products are formed: fp32 units, or pairs of bf16 for the instructions of AVX512-BF16 or of AMX.
enum class UnitKind { kFloat, kBF16Pair, kAmxPair };
// Of pairs where the operands are bf16 and the processor multiplies them.
UnitKind ChooseUnit(DType act);

// The kernels themselves (attention.cc, attention_backward.cc), for the backend and for tests of a unit kind.
// memory: as many bytes as *ScratchBytes says, 64-byte aligned.
struct ForwardOutputs {
  RowsOf o;
  RowsOf lse;  // [heads, tokens] f32
};
int64_t ForwardScratchBytes(const AttentionProblem& problem);
void RunForwardTask(UnitKind unit, const AttentionProblem& problem, const ForwardOutputs& out,
                    const AttentionTask& task, void* memory);

// One query a head at the end of `keys` cached tokens: rows [first, first + count) of p.q and of o, at
// most kQueryBlock.
struct NewestQueries {
  int64_t first;
  int64_t count;
  int64_t keys;
};
void RunNewestTask(UnitKind unit, const AttentionProblem& problem, const NewestQueries& queries,
                   const RowsOf& o, void* memory);

struct BackwardOutputs {
  RowsOf o, d_o, lse;  // inputs
  // One row a (token, head), (token, group) or token. A task overwrites its rows: where several tasks have a
  // share in a row, each gets fp32 rows of its own, which are added up in order afterwards.
  RowsOf dq, dk, dk_shared, dv;
};
int64_t BackwardScratchBytes(const AttentionProblem& problem, int64_t queries, int64_t keys);
void RunBackwardTask(UnitKind unit, const AttentionProblem& problem, const BackwardOutputs& out,
                     const AttentionTask& task, void* memory);

inline constexpr int64_t kQueryChunk = 512;  // queries of a forward task
inline constexpr int64_t kQueryBlock =
    48;  // of them, those of a tile product (AMX: kQueries of attention-inl.h)

// Keys of a backward task: all of a sequence of up to 1024, else a part, at most four of them, so that the
// partial sums of dq stay bounded. A function of the length alone, so results do not depend on threads.
int64_t KeyChunk(int64_t sequence_length);

}  // namespace moebius
