// A batch-invariant backend: rows have the same bits in any company.
#include <algorithm>
#include <memory>
#include <tuple>
#include <vector>

#include "core/backend/cpu/attention.h"
#include "core/backend/device.h"
#include "tests/core/backend/amx_anywhere.h"
#include "tests/core/backend/arrays.h"
#include "tests/core/backend/targets.h"

namespace moebius {
namespace {

std::unique_ptr<Backend> Invariant(int threads = 2) {
  return *MakeBackend({.threads = threads, .batch_invariant = true});
}

TEST(BatchInvariantTest, IsNamedAndIsOnTheCpuAlone) {
  const auto backend = Invariant(), plain = *MakeBackend({.threads = 2});
  EXPECT_TRUE(backend->batch_invariant());
  EXPECT_FALSE(plain->batch_invariant());
  EXPECT_EQ(backend->InstructionSet(), plain->InstructionSet() + " batch-invariant");
  const auto gpu = MakeBackend({.device = Device::kCuda, .batch_invariant = true});
  ASSERT_FALSE(gpu.ok());
  EXPECT_NE(gpu.status().message().find("batch-invariant"), std::string::npos) << gpu.status();
}

struct Sizes {
  int64_t n, k;
};

class InvariantProducts : public testing::TestWithParam<std::tuple<Sizes, DType>> {
 protected:
  Sizes sizes() const { return std::get<0>(GetParam()); }
  DType act() const { return std::get<1>(GetParam()); }
};

constexpr int64_t kRows = 400;
// Around every change of kernel, tile and panel.
constexpr int64_t kCounts[] = {1,  2,  3,  5,  6,  7,  8,  9,  12, 15, 16,
                               17, 24, 25, 31, 32, 33, 64, 95, 96, 97, 193};
// Where a range of `count` rows lies.
int64_t First(int64_t count) { return (count * 37 + 11) % (kRows - count); }

TEST_P(InvariantProducts, ARowDoesNotDependOnTheOthers) {
  const auto backend = Invariant();
  const auto stream = backend->NewStream(StreamKind::kCompute);
  const auto [n, k] = sizes();
  const Tensor x = RandomTensor(*backend, act(), {kRows, k + 3}, "x"),
               bias = RandomTensor(*backend, DType::kF32, {n}, "b");
  for (const Transpose transpose : {Transpose::kYes, Transpose::kNo}) {
    const bool turned = transpose == Transpose::kYes;
    const Tensor w = RandomTensor(*backend, act(), {turned ? n : k, turned ? k : n}, "w");
    for (const DType out : {DType::kF32, act()}) {
      for (const bool with_bias : {false, true}) {
        const auto product = [&](int64_t first, int64_t count, TensorView c) {
          MatMulArgs args{
              .a = x.view().Columns(2, k).Rows(first, count), .b = w, .c = c, .transpose_b = transpose};
          if (with_bias) args.bias = bias;
          backend->MatMul(*stream, args);
        };
        const Tensor all = DirtyTensor(*backend, out, {kRows, n});
        product(0, kRows, all);
        for (const int64_t count : kCounts) {
          const Tensor some = DirtyTensor(*backend, out, {count, n});
          product(First(count), count, some);
          ASSERT_TRUE(SameBits(some, all.view().Rows(First(count), count)))
              << count << " rows into " << out << (turned ? ", transposed" : "")
              << (with_bias ? ", bias" : "");
        }
      }
    }
  }
}

TEST_P(InvariantProducts, AnExpertsRowsAreThoseOfItsProductAlone) {
  const auto backend = Invariant();
  const auto stream = backend->NewStream(StreamKind::kCompute);
  const auto [n, k] = sizes();
  constexpr int64_t kGroups = 5;
  const Tensor w = RandomTensor(*backend, act(), {kGroups, n, k}, "w"),
               x = RandomTensor(*backend, act(), {kRows, k}, "x");
  for (const std::vector<int64_t>& cuts : {std::vector<int64_t>{0, 1, 9, 9, 42, kRows},
                                           {0, 100, 108, 140, 399, kRows},
                                           {0, 0, 33, 65, 71, 72}}) {
    Tensor offsets(*backend, DType::kI64, {kGroups + 1});
    std::copy(cuts.begin(), cuts.end(), offsets.view().as<int64_t>());
    const Tensor grouped = DirtyTensor(*backend, act(), {kRows, n});
    backend->GroupedMatMul(*stream,
                           {.kind = GroupedKind::kForward, .x = x, .w = w, .y = grouped, .offsets = offsets});
    for (int64_t g = 0; g < kGroups; ++g) {
      const Tensor all = DirtyTensor(*backend, act(), {kRows, n});
      backend->MatMul(*stream, {.a = x, .b = w.view().Index(g), .c = all, .transpose_b = Transpose::kYes});
      const int64_t count = cuts[g + 1] - cuts[g];
      ASSERT_TRUE(SameBits(grouped.view().Rows(cuts[g], count), all.view().Rows(cuts[g], count)))
          << "group " << g;
    }
  }
}

TEST_P(InvariantProducts, AHeadsRowsAreThoseOfItsProductAlone) {
  const auto backend = Invariant();
  const auto stream = backend->NewStream(StreamKind::kCompute);
  const auto [n, k] = sizes();
  constexpr int64_t kHeads = 3;
  const Tensor w = RandomTensor(*backend, act(), {kHeads, n, k}, "w"),
               a = RandomTensor(*backend, act(), {kRows, kHeads, k}, "a"),
               all = DirtyTensor(*backend, act(), {kRows, kHeads, n});
  backend->HeadMatMul(*stream, {.a = a, .w = w, .c = all});
  for (const int64_t count : kCounts) {
    const Tensor some = DirtyTensor(*backend, act(), {count, kHeads, n});
    backend->HeadMatMul(*stream, {.a = a.view().Rows(First(count), count), .w = w, .c = some});
    ASSERT_TRUE(SameBits(some, all.view().Rows(First(count), count))) << count;
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, InvariantProducts,
                         testing::Combine(testing::Values(Sizes{1, 1}, Sizes{37, 5}, Sizes{113, 48},
                                                          Sizes{30, 256}, Sizes{65, 257}, Sizes{300, 600}),
                                          testing::Values(DType::kF32, DType::kBF16)),
                         [](const auto& info) {
                           const Sizes s = std::get<0>(info.param);
                           return std::to_string(s.n) + "x" + std::to_string(s.k) +
                                  (std::get<1>(info.param) == DType::kF32 ? "_fp32" : "_bf16");
                         });

struct Heads {
  const char* name;
  int64_t heads, groups, dk, dr, dv;
};

class InvariantAttention : public testing::TestWithParam<std::tuple<Heads, DType>> {
 protected:
  // One long sequence, as rows of wider tensors.
  void SetUp() override {
    const auto& [h, act] = GetParam();
    q_ = RandomTensor(*backend_, act, {kTokens, h.heads, h.dk + h.dr}, "q");
    k_ = RandomTensor(*backend_, act, {kTokens, h.groups, h.dk}, "k");
    v_ = RandomTensor(*backend_, act, {kTokens, h.groups, h.dv}, "v");
    if (h.dr > 0) shared_ = RandomTensor(*backend_, act, {kTokens, 1, h.dr}, "shared");
  }
  const Heads& heads() const { return std::get<0>(GetParam()); }
  DType act() const { return std::get<1>(GetParam()); }

  // o [length of all, H, dv] and lse of sequences that each start with the long one's first tokens.
  struct Result {
    Tensor o, lse;
  };
  Result Run(const std::vector<int64_t>& lengths) {
    std::vector<int32_t> starts{0};
    for (const int64_t length : lengths) starts.push_back(static_cast<int32_t>(starts.back() + length));
    const auto repeat = [&](const Tensor& x) {
      const TensorView from = x;
      Tensor out(*backend_, act(), {starts.back(), from.shape[1], from.shape[2]});
      for (size_t s = 0; s < lengths.size(); ++s) {
        const TensorView part = from.Rows(0, lengths[s]);
        std::memcpy(out.view().Rows(starts[s], lengths[s]).data, part.data, part.bytes());
      }
      return out;
    };
    const Tensor q = repeat(q_), k = repeat(k_), v = repeat(v_),
                 shared = shared_ ? repeat(shared_) : Tensor();
    Result out{DirtyTensor(*backend_, act(), {starts.back(), heads().heads, heads().dv}),
               DirtyTensor(*backend_, DType::kF32, {heads().heads, starts.back()})};
    const auto stream = backend_->NewStream(StreamKind::kCompute);
    backend_->Attention(*stream, {.q = q,
                                  .k = k,
                                  .k_shared = shared ? shared.view() : TensorView(),
                                  .v = v,
                                  .sequence_starts = starts,
                                  .scale = kScale,
                                  .o = out.o,
                                  .lse = out.lse});
    return out;
  }

  static constexpr int64_t kTokens = 1100;  // beyond two chunks of queries, four blocks of keys
  static constexpr float kScale = 0.4f;
  const std::unique_ptr<Backend> backend_ = Invariant();
  Tensor q_, k_, v_, shared_;
};

TEST_P(InvariantAttention, ATokenDoesNotDependOnWhatFollowsOrLiesBeside) {
  const Result whole = Run({kTokens});
  const std::vector<int64_t> lengths = {1, 600, 7, 47, 48, 49, 255, 256, 257, 3, 511, 512, 513, 700};
  const Result many = Run(lengths);
  int64_t start = 0;
  for (const int64_t length : lengths) {
    EXPECT_TRUE(SameBits(many.o.view().Rows(start, length), whole.o.view().Rows(0, length))) << length;
    for (int64_t h = 0; h < heads().heads; ++h) {
      const TensorView got = many.lse.view().Index(h), want = whole.lse.view().Index(h);
      EXPECT_TRUE(SameBits(got.Rows(start, length), want.Rows(0, length))) << length;
    }
    start += length;
  }
}

TEST_P(InvariantAttention, AStepGivesTheBitsOfTheWholeSequence) {
  const Heads& h = heads();
  const Result whole = Run({kTokens});
  const std::vector<int32_t> lengths = {1, 2, 5, 47, 48, 49, 255, 256, 257, 511, 512, 513, 600, 769, 1100};
  const int64_t batch = std::ssize(lengths), capacity = 1200, d = h.dk + h.dr;
  const Tensor q(*backend_, act(), {batch, h.heads, d}),
      o = DirtyTensor(*backend_, act(), {batch, h.heads, h.dv});
  // Caches end in whatever lay there before; rows are parts of wider ones.
  const Tensor keys = DirtyTensor(*backend_, act(), {batch, capacity, h.groups * d + 5}),
               values = DirtyTensor(*backend_, act(), {batch, capacity, h.groups * h.dv});
  const auto copy = [](TensorView from, int64_t row, TensorView to, int64_t to_row, int64_t column) {
    for (int64_t c = 0; c < from.cols(); ++c) SetAt(to, to_row, column + c, ValueAt(from, row, c));
  };
  for (int64_t b = 0; b < batch; ++b) {
    for (int64_t head = 0; head < h.heads; ++head)
      copy(q_, (lengths[b] - 1) * h.heads + head, q, b * h.heads + head, 0);
    for (int64_t t = 0; t < lengths[b]; ++t) {
      for (int64_t g = 0; g < h.groups; ++g) {
        copy(k_, t * h.groups + g, keys, b * capacity + t, g * d);
        if (h.dr > 0) copy(shared_, t, keys, b * capacity + t, g * d + h.dk);
        copy(v_, t * h.groups + g, values, b * capacity + t, g * h.dv);
      }
    }
  }
  const Tensor all_lengths = Int32Tensor(*backend_, lengths);
  const auto stream = backend_->NewStream(StreamKind::kCompute);
  const DecodeAttentionArgs args{.q = q,
                                 .k = keys.view().Columns(0, h.groups * d),
                                 .v = values,
                                 .lengths = all_lengths,
                                 .scale = kScale,
                                 .o = o};
  backend_->DecodeAttention(*stream, args);
  for (int64_t b = 0; b < batch; ++b) {
    EXPECT_TRUE(SameBits(o.view().Index(b), whole.o.view().Index(lengths[b] - 1))) << lengths[b] << " tokens";
  }
  if (act() != DType::kBF16) return;
  // As processors with AVX512-BF16 do it, and those with AMX.
  const AmxAnywhere amx;
  const Tensor lse(*backend_, DType::kF32, {h.heads, kTokens}),
      want(*backend_, act(), {kTokens, h.heads, h.dv});
  const int32_t starts[] = {0, kTokens};
  const AttentionProblem problem({.q = q_,
                                  .k = k_,
                                  .k_shared = shared_ ? shared_.view() : TensorView(),
                                  .v = v_,
                                  .sequence_starts = starts,
                                  .scale = kScale,
                                  .o = want,
                                  .lse = lse});
  const Tensor memory(*backend_, DType::kU8, {ForwardScratchBytes(problem)});
  std::vector<AttentionTask> tasks;
  CutSequence(0, kTokens, h.heads, kQueryChunk, Work::kGrows, tasks);
  const int64_t per_group = h.heads / h.groups;
  const BF16Anywhere bf16;
  for (const UnitKind unit : {UnitKind::kBF16Pair, UnitKind::kAmxPair}) {
    if (unit == UnitKind::kAmxPair && !AmxAnywhere::Works()) continue;
    for (const AttentionTask& task : tasks) {
      RunForwardTask(unit, problem, {RowsOf(want), RowsOf(lse)}, task, memory.view().data);
    }
    for (int64_t b = 0; b < batch; ++b) {
      for (int64_t head = 0; head < h.heads; ++head) {
        RunNewestTask(unit, AttentionProblem(args, b, head / per_group),
                      {.first = b * h.heads + head, .count = 1, .keys = lengths[b]}, RowsOf(o),
                      memory.view().data);
      }
      EXPECT_TRUE(SameBits(o.view().Index(b), want.view().Index(lengths[b] - 1)))
          << lengths[b] << " tokens, " << (unit == UnitKind::kAmxPair ? "tiles" : "pairs");
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, InvariantAttention,
    testing::Combine(testing::Values(Heads{"Grouped", 6, 2, 32, 0, 32}, Heads{"OddWidths", 2, 1, 7, 3, 5},
                                     Heads{"SharedKey", 3, 3, 12, 6, 10}, Heads{"ManyHeads", 53, 1, 9, 0, 4}),
                     testing::Values(DType::kF32, DType::kBF16)),
    [](const auto& info) {
      return std::string(std::get<0>(info.param).name) +
             (std::get<1>(info.param) == DType::kF32 ? "Fp32" : "Bf16");
    });

}  // namespace
}  // namespace moebius
