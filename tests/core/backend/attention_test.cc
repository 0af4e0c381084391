// Attention forward and backward against double precision.
#include "core/backend/cpu/attention.h"

#include <cmath>
#include <cstring>
#include <memory>
#include <ostream>
#include <vector>

#include "core/backend/cpu/amx.h"
#include "tests/core/backend/amx_anywhere.h"
#include "tests/core/backend/arrays.h"
#include "tests/core/backend/attention_reference.h"
#include "tests/core/backend/targets.h"
#include "tests/core/backend/test_backend.h"

namespace moebius {
namespace {

struct Case {
  const char* name;
  std::vector<int32_t> starts;
  int64_t heads, groups, dk, dr, dv;
};
std::ostream& operator<<(std::ostream& out, const Case& c) { return out << c.name; }

// Every operand is a slice of columns of a wider tensor, as layers pass them.
struct Problem {
  Problem(Backend& backend, const Case& c, DType act)
      : starts(c.starts),
        tokens(c.starts.back()),
        qs(RandomTensor(backend, act, {tokens, c.heads, c.dk + c.dr + 8}, "q")),
        kv(RandomTensor(backend, act, {tokens, c.groups, c.dk + c.dv}, "kv")),
        shared(RandomTensor(backend, act, {tokens, 1, 16 + c.dr}, "shared")),
        os(DirtyTensor(backend, act, {tokens, c.heads, c.dv})),
        lses(DirtyTensor(backend, DType::kF32, {c.heads, tokens})),
        d_os(RandomTensor(backend, act, {tokens, c.heads, c.dv}, "d_o")),
        dqs(DirtyTensor(backend, act, {tokens, c.heads, c.dk + c.dr})),
        dkv(DirtyTensor(backend, act, {tokens, c.groups, c.dk + c.dv})),
        d_shared(DirtyTensor(backend, act, {tokens, 1, std::max<int64_t>(c.dr, 1)})) {
    args.forward = {.q = qs.view().Columns(8, c.dk + c.dr),
                    .k = kv.view().Columns(0, c.dk),
                    .k_shared = c.dr > 0 ? shared.view().Columns(16, c.dr) : TensorView(),
                    .v = kv.view().Columns(c.dk, c.dv),
                    .sequence_starts = starts,
                    .scale = 1.0f / std::sqrt(static_cast<float>(c.dk + c.dr)),
                    .o = os,
                    .lse = lses};
    args.d_o = d_os;
    args.dq = dqs;
    args.dk = dkv.view().Columns(0, c.dk);
    args.dv = dkv.view().Columns(c.dk, c.dv);
    if (c.dr > 0) args.dk_shared = d_shared;
  }
  void Run(Backend& backend) {
    const auto stream = backend.NewStream(StreamKind::kCompute);
    backend.Attention(*stream, args.forward);
    backend.AttentionBackward(*stream, args);
  }

  std::vector<int32_t> starts;
  int64_t tokens;
  Tensor qs, kv, shared, os, lses, d_os, dqs, dkv, d_shared;
  AttentionBackwardArgs args;
};

void ExpectReference(const Problem& p, double tolerance) {
  const AttentionReference want = ReferenceAttention(p.args.forward, Values(p.d_os));
  ExpectNear(Values(p.args.forward.o), want.o, tolerance, "o");
  ExpectNear(Values(p.args.forward.lse), want.lse, tolerance, "lse");
  ExpectNear(Values(p.args.dq), want.dq, tolerance, "dq");
  ExpectNear(Values(p.args.dk), want.dk, tolerance, "dk");
  ExpectNear(Values(p.args.dv), want.dv, tolerance, "dv");
  if (p.args.dk_shared) ExpectNear(Values(p.args.dk_shared), want.dk_shared, tolerance, "dk_shared");
}

class AttentionTest : public testing::TestWithParam<Case> {};

TEST_P(AttentionTest, MeetsDoublePrecisionInFp32) {
  const auto backend = NewTestBackend();
  Problem p(*backend, GetParam(), DType::kF32);
  p.Run(*backend);
  ExpectReference(p, ToleranceOf(DType::kF32).attention);
}

TEST_P(AttentionTest, MeetsDoublePrecisionInBf16WithinItsRounding) {
  const auto backend = NewTestBackend();
  Problem p(*backend, GetParam(), DType::kBF16);
  p.Run(*backend);
  ExpectReference(p, ToleranceOf(DType::kBF16).attention);
}

// NaN everywhere: what a kernel reads without having written it shows.
Tensor NanBytes(Backend& backend, int64_t bytes) {
  Tensor memory(backend, DType::kU8, {bytes});
  std::memset(memory.view().data, 0xFF, bytes);
  return memory;
}

void ExpectUnitsMeetReference(const Case& shape, UnitKind unit) {
  const auto backend = MakeCpuBackend({.threads = 1});
  Problem p(*backend, shape, DType::kBF16);
  const AttentionProblem problem(p.args.forward);
  std::vector<AttentionTask> queries, keys;
  for (size_t s = 0; s + 1 < shape.starts.size(); ++s) {
    const int64_t start = shape.starts[s], end = shape.starts[s + 1];
    CutSequence(start, end, problem.heads, kQueryChunk, Work::kGrows, queries);
    CutSequence(start, end, problem.groups, std::max<int64_t>(end - start, 1), Work::kFalls, keys);
  }
  const Tensor memory = NanBytes(*backend, ForwardScratchBytes(problem));
  for (const AttentionTask& task : queries) {
    RunForwardTask(unit, problem, {RowsOf(p.os), RowsOf(p.lses)}, task, memory.view().data);
  }
  const Tensor shared(*backend, DType::kF32, {problem.groups, p.tokens, std::max<int64_t>(problem.dr, 1)});
  for (const AttentionTask& task : keys) {
    const Tensor scratch = NanBytes(*backend, BackwardScratchBytes(problem, task.length, task.length));
    const BackwardOutputs out{RowsOf(p.os),      RowsOf(p.d_os),    RowsOf(p.lses),
                              RowsOf(p.args.dq), RowsOf(p.args.dk), RowsOf(shared.view().Index(task.head)),
                              RowsOf(p.args.dv)};
    RunBackwardTask(unit, problem, out, task, scratch.view().data);
  }
  for (int64_t r = 0; problem.dr > 0 && r < p.tokens; ++r) {
    for (int64_t c = 0; c < problem.dr; ++c) {
      double sum = 0;
      for (int64_t g = 0; g < problem.groups; ++g) sum += ValueAt(shared.view().Index(g), r, c);
      SetAt(p.args.dk_shared, r, c, sum);
    }
  }
  ExpectReference(p, ToleranceOf(DType::kBF16).attention);
}

// The CPU alone.
TEST_P(AttentionTest, PairsOfBf16MeetDoublePrecision) {
  const BF16Anywhere bf16;
  ExpectUnitsMeetReference(GetParam(), UnitKind::kBF16Pair);
}

TEST_P(AttentionTest, TilesOfAmxMeetDoublePrecision) {
  if (!AmxAnywhere::Works()) GTEST_SKIP() << "needs x86-64 with AVX2";
  const AmxAnywhere amx;
  const BF16Anywhere bf16;
  const long trapped = TrappedInstructions();
  ExpectUnitsMeetReference(GetParam(), UnitKind::kAmxPair);
  EXPECT_EQ(TrappedInstructions() > trapped, !HasAmx());
}

#if defined(__x86_64__)
TEST(AmxTest, GivesBackTheConfigurationThatItFound) {
  const AmxAnywhere amx;
  const auto load = [](const uint8_t* config) { asm volatile("ldtilecfg (%0)" : : "r"(config) : "memory"); };
  alignas(64) uint8_t config[64] = {1}, after[64];
  config[16] = 32;  // bytes of a row of tile 0
  config[48] = 7;   // its rows
  load(config);
  {
    const TilesInUse outer;
    const TilesInUse inner;
    const std::vector<float> ones(256, 1);
    LoadTile<7>(ones.data(), 64);
  }
  asm volatile("sttilecfg (%0)" : : "r"(after) : "memory");
  EXPECT_EQ(std::memcmp(config, after, 64), 0);
  config[0] = 0;
  load(config);
}
#endif

TEST_P(AttentionTest, GivesTheSameBitsForAnyNumberOfThreads) {
  const std::vector<std::unique_ptr<Backend>> backends = NewTestBackends();
  Problem want(*backends[0], GetParam(), DType::kF32);
  want.Run(*backends[0]);
  for (const auto& other : backends) {
    Problem got(*other, GetParam(), DType::kF32);
    got.Run(*other);
    EXPECT_TRUE(SameBits(got.os, want.os));
    EXPECT_TRUE(SameBits(got.lses, want.lses));
    EXPECT_TRUE(SameBits(got.dqs, want.dqs));
    EXPECT_TRUE(SameBits(got.dkv, want.dkv));
    EXPECT_TRUE(SameBits(got.d_shared, want.d_shared));
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, AttentionTest,
                         testing::Values(Case{"OneToken", {0, 1}, 2, 2, 8, 4, 8},
                                         Case{"TinySequences", {0, 2, 3, 8, 13, 20}, 3, 3, 12, 4, 10},
                                         Case{"EmptySequence", {0, 5, 5, 9}, 2, 1, 6, 0, 6},
                                         Case{"OddWidths", {0, 37, 60}, 2, 1, 7, 3, 5},
                                         Case{"LatentAttention", {0, 130, 333}, 4, 4, 64, 32, 64},
                                         Case{"GroupedQueries", {0, 300}, 6, 2, 64, 0, 64},
                                         Case{"WideValues", {0, 100}, 2, 2, 24, 8, 80},
                                         Case{"BlockEdges", {0, 48, 304, 353}, 1, 1, 32, 0, 32},
                                         Case{"SeveralQueryChunks", {0, 600}, 2, 1, 16, 8, 16},
                                         Case{"SeveralKeyParts", {0, 3, 2303, 2400}, 2, 2, 8, 8, 8}),
                         [](const auto& info) { return std::string(info.param.name); });

TEST(AttentionReferenceTest, ItsGradientsAgreeWithFiniteDifferences) {
  const auto backend = MakeCpuBackend({.threads = 1});
  Problem p(*backend, Case{"", {0, 3, 8}, 4, 2, 3, 2, 3}, DType::kF32);
  const std::vector<double> d_o = Values(p.d_os);
  const AttentionReference gradients = ReferenceAttention(p.args.forward, d_o);
  const auto loss = [&] {
    const AttentionReference out = ReferenceAttention(p.args.forward, {});
    double sum = 0;
    for (size_t i = 0; i < d_o.size(); ++i) sum += d_o[i] * out.o[i];
    return sum;
  };
  const auto check = [&](const TensorView& x, const std::vector<double>& want) {
    for (int64_t r = 0; r < x.rows(); ++r) {
      for (int64_t c = 0; c < x.cols(); ++c) {
        const double kept = ValueAt(x, r, c);
        SetAt(x, r, c, kept + 1.0 / 1024);
        const double up = loss(), high = ValueAt(x, r, c);
        SetAt(x, r, c, kept - 1.0 / 1024);
        const double slope = (up - loss()) / (high - ValueAt(x, r, c));
        SetAt(x, r, c, kept);
        EXPECT_NEAR(slope, want[r * x.cols() + c], 1e-5);
      }
    }
  };
  check(p.args.forward.q, gradients.dq);
  check(p.args.forward.k, gradients.dk);
  check(p.args.forward.k_shared, gradients.dk_shared);
  check(p.args.forward.v, gradients.dv);
}

}  // namespace
}  // namespace moebius
