// Matrix products of both engines against double precision.
#include <signal.h>
#include <sys/time.h>

#include <atomic>
#include <memory>
#include <ostream>
#include <tuple>
#include <vector>

#include "tests/core/backend/amx_anywhere.h"
#include "tests/core/backend/arrays.h"
#include "tests/core/backend/reference.h"
#include "tests/core/backend/test_backend.h"

namespace moebius {
namespace {

struct Sizes {
  int64_t m, n, k;
};
std::ostream& operator<<(std::ostream& out, const Sizes& s) { return out << s.m << "x" << s.n << "x" << s.k; }

double ProductTolerance(DType dtype) { return ToleranceOf(dtype).product; }

// A matrix as a slice of columns of a wider one.
struct Strided {
  Strided(Backend& backend, DType dtype, int64_t rows, int64_t cols, const std::string& name)
      : whole(RandomTensor(backend, dtype, {rows, cols + 13}, name)), view(whole.view().Columns(5, cols)) {}
  Tensor whole;
  TensorView view;
};

Doubles Op(const TensorView& x, Transpose transpose) {
  return transpose == Transpose::kNo ? Values(x) : ReferenceTransposed(Values(x), x.rows(), x.cols());
}

// What `args` should leave in c, given what c holds now.
Doubles Expected(const MatMulArgs& args, int64_t m, int64_t n, int64_t k) {
  const Doubles product =
      ReferenceMatMul(Op(args.a, args.transpose_a), Op(args.b, args.transpose_b), m, n, k);
  Doubles want = args.accumulate ? Values(args.c) : Doubles(m * n);
  for (int64_t i = 0; i < m * n; ++i) {
    want[i] += product[i] + (args.bias ? ValueAt(args.bias, 0, i % n) : 0.0);
  }
  return want;
}

struct EngineCase {
  const char* name;
  ProductEngine engine;
  DType act;
};
std::ostream& operator<<(std::ostream& out, const EngineCase& c) { return out << c.name; }

// oneDNN 2.6 has bf16 only on processors with AVX-512; elsewhere onednn_bf16 is ours.
std::vector<EngineCase> Engines() {
  if (kTestsGpu) {
    return {{"gpu_f32", ProductEngine::kAuto, DType::kF32}, {"gpu_bf16", ProductEngine::kAuto, DType::kBF16}};
  }
  std::vector<EngineCase> engines = {{"ours_f32", ProductEngine::kOurs, DType::kF32},
                                     {"ours_bf16", ProductEngine::kOurs, DType::kBF16},
                                     {"onednn_f32", ProductEngine::kOneDnn, DType::kF32},
                                     {"onednn_bf16", ProductEngine::kOneDnn, DType::kBF16}};
  if (AmxAnywhere::Works()) engines.push_back({"amx_bf16", ProductEngine::kAmx, DType::kBF16});
  return engines;
}

class MatMulTest : public testing::TestWithParam<std::tuple<EngineCase, Sizes>> {
 protected:
  ProductEngine engine() const { return std::get<0>(GetParam()).engine; }
  DType act() const { return std::get<0>(GetParam()).act; }
  Sizes sizes() const { return std::get<1>(GetParam()); }

 private:
  const AmxAnywhere amx_;
};

TEST_P(MatMulTest, MeetsDoublePrecisionInEveryOrientationIntoFp32AndAct) {
  const auto backend = NewTestBackend(engine());
  const auto stream = backend->NewStream(StreamKind::kCompute);
  const auto [m, n, k] = sizes();
  const Tensor bias = RandomTensor(*backend, DType::kF32, {n}, "bias");
  for (const Transpose ta : {Transpose::kNo, Transpose::kYes}) {
    for (const Transpose tb : {Transpose::kNo, Transpose::kYes}) {
      const bool at = ta == Transpose::kYes, bt = tb == Transpose::kYes;
      const Strided a(*backend, act(), at ? k : m, at ? m : k, "a"),
          b(*backend, act(), bt ? n : k, bt ? k : n, "b");
      for (const DType out : {DType::kF32, act()}) {
        for (const bool with_bias : {false, true}) {
          const Strided c(*backend, out, m, n, "c");
          const Doubles around = Values(c.whole);
          MatMulArgs args{.a = a.view, .b = b.view, .c = c.view, .transpose_a = ta, .transpose_b = tb};
          if (with_bias) args.bias = bias;
          backend->MatMul(*stream, args);
          ExpectNear(Values(c.view), Expected(args, m, n, k), ProductTolerance(out), "c");
          for (int64_t i = 0; i < m * (n + 13); ++i) {  // the columns beside the view are not touched
            const int64_t column = i % (n + 13);
            if (column >= 5 && column < 5 + n) continue;
            ASSERT_EQ(ValueAt(c.whole, i / (n + 13), column), around[i]);
          }
        }
      }
    }
  }
}

TEST_P(MatMulTest, AddsToWhatIsThere) {
  const auto backend = NewTestBackend(engine());
  const auto stream = backend->NewStream(StreamKind::kCompute);
  const auto [m, n, k] = sizes();
  const Strided a(*backend, act(), k, m, "a"), b(*backend, act(), k, n, "b"),
      c(*backend, DType::kF32, m, n, "c");
  const MatMulArgs args{
      .a = a.view, .b = b.view, .c = c.view, .transpose_a = Transpose::kYes, .accumulate = true};
  const Doubles want = Expected(args, m, n, k);
  backend->MatMul(*stream, args);
  ExpectNear(Values(c.view), want, ProductTolerance(DType::kF32), "c");
}

TEST_P(MatMulTest, GivesTheSameBitsWithAnyNumberOfThreads) {
  const auto [m, n, k] = sizes();
  const auto reference = NewTestBackend(engine());  // whose memory the tensors are
  std::vector<Tensor> results;
  for (const auto& backend : NewTestBackends(engine())) {
    const auto stream = backend->NewStream(StreamKind::kCompute);
    const Strided a(*reference, act(), m, k, "a"), b(*reference, act(), n, k, "b");
    results.push_back(DirtyTensor(*reference, DType::kF32, {m, n}));
    backend->MatMul(*stream, {.a = a.view, .b = b.view, .c = results.back(), .transpose_b = Transpose::kYes});
    EXPECT_TRUE(SameBits(results.front(), results.back())) << backend->num_threads() << " threads";
  }
}

// Sizes around the kernels' edges: few rows (matrix-vector; groups of 16 rows and 48 columns of a weight),
// tiles of 6, 12 and 16, blocks of k of 256 and 512, row panels of 96 and 256.
INSTANTIATE_TEST_SUITE_P(
    Engines, MatMulTest,
    testing::Combine(testing::ValuesIn(Engines()),
                     testing::Values(Sizes{1, 1, 1}, Sizes{3, 70, 33}, Sizes{9, 17, 5}, Sizes{16, 200, 256},
                                     Sizes{30, 200, 256}, Sizes{45, 130, 301}, Sizes{101, 48, 300},
                                     Sizes{200, 150, 70}, Sizes{97, 530, 513}, Sizes{261, 40, 545})));

// A request to stop arrives in the middle of a product.
TEST(ProductTest, SignalsDoNotDisturbAProduct) {
  const auto backend = NewTestBackend(ProductEngine::kOneDnn);
  const auto stream = backend->NewStream(StreamKind::kCompute);
  const Tensor dy = RandomTensor(*backend, DType::kF32, {600, 130}, "dy"),
               x = RandomTensor(*backend, DType::kF32, {600, 70}, "x");
  const Tensor want = DirtyTensor(*backend, DType::kF32, {130, 70}),
               got = DirtyTensor(*backend, DType::kF32, {130, 70});
  const auto product = [&](const Tensor& dw) {
    backend->MatMul(*stream, {.a = dy, .b = x, .c = dw, .transpose_a = Transpose::kYes});
  };
  product(want);
  static std::atomic<int> signals = 0;
  struct sigaction action = {}, before = {};
  action.sa_handler = [](int) { ++signals; };
  action.sa_flags = SA_RESTART | SA_ONSTACK;
  ASSERT_EQ(sigaction(SIGALRM, &action, &before), 0);
  const itimerval often = {{0, 200}, {0, 200}}, never = {};
  setitimer(ITIMER_REAL, &often, nullptr);
  for (int i = 0; i < 3000 && (i < 300 || signals < 200); ++i) {
    product(got);
    ASSERT_TRUE(SameBits(want, got)) << "product " << i;
  }
  setitimer(ITIMER_REAL, &never, nullptr);
  sigaction(SIGALRM, &before, nullptr);
  EXPECT_GT(signals, 20);
}

TEST(ProductTest, WithoutTermsTheProductIsZeroPlusBias) {
  const auto backend = NewTestBackend();
  const auto stream = backend->NewStream(StreamKind::kCompute);
  const Tensor bias = RandomTensor(*backend, DType::kF32, {20}, "bias");
  for (const int64_t m : {2, 30, 120}) {
    const Tensor a(*backend, DType::kF32, {m, 0}), b(*backend, DType::kF32, {0, 20});
    const Tensor c = DirtyTensor(*backend, DType::kF32, {m, 20});
    backend->MatMul(*stream, {.a = a, .b = b, .c = c, .bias = bias});
    for (int64_t i = 0; i < m * 20; ++i) ASSERT_EQ(Values(c)[i], Values(bias)[i % 20]);
  }
}

TEST(ProductTest, GroupsWithoutTermsAreZero) {
  const auto backend = NewTestBackend();
  const auto stream = backend->NewStream(StreamKind::kCompute);
  const std::vector<int64_t> begins = {0, 3, 40, 40, 160};
  Tensor offsets(*backend, DType::kI64, {5});
  std::copy(begins.begin(), begins.end(), offsets.view().as<int64_t>());
  for (const DType act : {DType::kF32, DType::kBF16}) {
    const Tensor x(*backend, act, {160, 0}), w(*backend, act, {4, 20, 0}),
        y = DirtyTensor(*backend, act, {160, 20});
    backend->GroupedMatMul(*stream,
                           {.kind = GroupedKind::kForward, .x = x, .w = w, .y = y, .offsets = offsets});
    EXPECT_EQ(Values(y), Doubles(160 * 20, 0));
  }
}

TEST(ProductTest, ARowOfABatchInvariantBackendDoesNotDependOnTheOtherRows) {
  const auto backend = MakeCpuBackend({.threads = 2, .batch_invariant = true});
  const auto stream = backend->NewStream(StreamKind::kCompute);
  for (const DType act : {DType::kF32, DType::kBF16}) {
    const Tensor a = RandomTensor(*backend, act, {300, 600}, "a"),
                 b = RandomTensor(*backend, act, {200, 600}, "b");
    const Tensor many = DirtyTensor(*backend, act, {300, 200});
    backend->MatMul(*stream, {.a = a, .b = b, .c = many, .transpose_b = Transpose::kYes});
    for (const int64_t m : {1, 13, 50}) {
      const Tensor few = DirtyTensor(*backend, act, {m, 200});
      backend->MatMul(*stream, {.a = a.view().Rows(91, m), .b = b, .c = few, .transpose_b = Transpose::kYes});
      EXPECT_TRUE(SameBits(many.view().Rows(91, m), few)) << m;
    }
  }
}

// Groups of so many rows that each of the kernels for few rows has some, with a k that chooses among them.
TEST(ProductTest, GroupsOfFewLongRowsMeetDoublePrecision) {
  const auto backend = NewTestBackend(ProductEngine::kOurs);
  const auto stream = backend->NewStream(StreamKind::kCompute);
  const std::vector<int64_t> begins = {0, 3, 12, 27, 43, 45, 75};
  constexpr int64_t kRows = 75, kLong = 300, kWidth = 70, kCount = 6;
  Tensor offsets(*backend, DType::kI64, {kCount + 1});
  std::copy(begins.begin(), begins.end(), offsets.view().as<int64_t>());
  for (const DType act : {DType::kF32, DType::kBF16}) {
    const Tensor w = RandomTensor(*backend, act, {kCount, kWidth, kLong}, "w"),
                 x = RandomTensor(*backend, act, {kRows, kLong}, "x"),
                 y = DirtyTensor(*backend, act, {kRows, kWidth});
    backend->GroupedMatMul(*stream,
                           {.kind = GroupedKind::kForward, .x = x, .w = w, .y = y, .offsets = offsets});
    for (int64_t g = 0; g < kCount; ++g) {
      const int64_t rows = begins[g + 1] - begins[g];
      const Doubles xg = Values(x.view().Rows(begins[g], rows)), wg = Values(w.view().Index(g));
      ExpectNear(Values(y.view().Rows(begins[g], rows)),
                 ReferenceMatMul(xg, ReferenceTransposed(wg, kWidth, kLong), rows, kWidth, kLong),
                 ProductTolerance(act), "y");
    }
  }
}

TEST(ProductTest, ManyNewShapesLeaveOldOnesRight) {
  const auto backend = NewTestBackend(ProductEngine::kOneDnn);
  const auto stream = backend->NewStream(StreamKind::kCompute);
  const Tensor a = RandomTensor(*backend, DType::kF32, {64, 64}, "a"),
               c = DirtyTensor(*backend, DType::kF32, {64, 64});
  for (int64_t i = 0; i < 2500; ++i) {  // more than are kept
    const int64_t m = 9 + i % 50, n = 1 + i / 50, k = 40;
    const TensorView x = a.view().Rows(0, m).Columns(0, k), y = a.view().Rows(0, n).Columns(0, k);
    const TensorView z = c.view().Rows(0, m).Columns(0, n);
    backend->MatMul(*stream, {.a = x, .b = y, .c = z, .transpose_b = Transpose::kYes});
    if (i % 500 != 0) continue;
    ExpectNear(Values(z), ReferenceMatMul(Values(x), ReferenceTransposed(Values(y), n, k), m, n, k),
               ProductTolerance(DType::kF32), "z");
  }
}

class GroupedMatMulTest : public testing::TestWithParam<EngineCase> {
  const AmxAnywhere amx_;
};

// Groups that are empty, of one row, of a few, and one that takes most rows; rows beyond the last stay.
const std::vector<int64_t> kOffsets = {0, 0, 1, 6, 6, 31, 760, 771, 771};
constexpr int64_t kGroups = 8, kRows = 780, kIn = 70, kOut = 53;

TEST_P(GroupedMatMulTest, MeetsDoublePrecisionGroupByGroup) {
  const auto [name, engine, act] = GetParam();
  const auto backend = NewTestBackend(engine);
  const auto stream = backend->NewStream(StreamKind::kCompute);
  Tensor offsets(*backend, DType::kI64, {kGroups + 1});
  std::copy(kOffsets.begin(), kOffsets.end(), offsets.view().as<int64_t>());
  const Tensor w = RandomTensor(*backend, act, {kGroups, kOut, kIn}, "w");
  const Tensor x = RandomTensor(*backend, act, {kRows, kIn}, "x"),
               y = RandomTensor(*backend, act, {kRows, kOut}, "y");
  const Tensor new_y = DirtyTensor(*backend, act, {kRows, kOut}),
               new_x = DirtyTensor(*backend, act, {kRows, kIn});
  const Tensor dw = RandomTensor(*backend, DType::kF32, {kGroups, kOut, kIn}, "dw");
  const Doubles dw_before = Values(dw);
  backend->GroupedMatMul(*stream,
                         {.kind = GroupedKind::kForward, .x = x, .w = w, .y = new_y, .offsets = offsets});
  backend->GroupedMatMul(
      *stream, {.kind = GroupedKind::kBackwardInput, .x = new_x, .w = w, .y = y, .offsets = offsets});
  backend->GroupedMatMul(*stream,
                         {.kind = GroupedKind::kBackwardWeight, .x = x, .w = dw, .y = y, .offsets = offsets});
  for (int64_t g = 0; g < kGroups; ++g) {
    const int64_t begin = kOffsets[g], rows = kOffsets[g + 1] - begin;
    const Doubles wg = Values(w.view().Index(g));
    const Doubles xg = Values(x.view().Rows(begin, rows)), yg = Values(y.view().Rows(begin, rows));
    ExpectNear(Values(new_y.view().Rows(begin, rows)),
               ReferenceMatMul(xg, ReferenceTransposed(wg, kOut, kIn), rows, kOut, kIn),
               ProductTolerance(act), "y");
    ExpectNear(Values(new_x.view().Rows(begin, rows)), ReferenceMatMul(yg, wg, rows, kIn, kOut),
               ProductTolerance(act), "x");
    Doubles want = ReferenceMatMul(ReferenceTransposed(yg, rows, kOut), xg, kOut, kIn, rows);
    for (int64_t i = 0; i < kOut * kIn; ++i) want[i] += dw_before[g * kOut * kIn + i];
    ExpectNear(Values(dw.view().Index(g)), want, ProductTolerance(DType::kF32), "dw");
  }
  const Tensor dirty = DirtyTensor(*backend, act, {kRows, kOut});
  EXPECT_TRUE(SameBits(new_y.view().Rows(771, 9), dirty.view().Rows(771, 9)));
}

INSTANTIATE_TEST_SUITE_P(Engines, GroupedMatMulTest, testing::ValuesIn(Engines()));

TEST(HeadMatMulTest, MultipliesEachHeadByItsOwnMatrix) {
  const auto backend = NewTestBackend();
  const auto stream = backend->NewStream(StreamKind::kCompute);
  constexpr int64_t kHeads = 3, kN = 37, kK = 50;
  for (const DType act : {DType::kF32, DType::kBF16}) {
    for (const int64_t tokens : {1, 7, 40}) {
      const Tensor a = RandomTensor(*backend, act, {tokens, kHeads, kK + 9}, "a");
      const Tensor w = RandomTensor(*backend, act, {kHeads, kN, kK}, "w");
      const Tensor c = DirtyTensor(*backend, act, {tokens, kHeads, kN + 4});
      const TensorView from = a.view().Columns(9, kK), to = c.view().Columns(1, kN);
      backend->HeadMatMul(*stream, {.a = from, .w = w, .c = to});
      for (int64_t h = 0; h < kHeads; ++h) {
        Doubles rows, got;
        for (int64_t t = 0; t < tokens; ++t) {
          for (int64_t i = 0; i < kK; ++i) rows.push_back(ValueAt(from, t * kHeads + h, i));
          for (int64_t i = 0; i < kN; ++i) got.push_back(ValueAt(to, t * kHeads + h, i));
        }
        const Doubles wh = ReferenceTransposed(Values(w.view().Index(h)), kN, kK);
        ExpectNear(got, ReferenceMatMul(rows, wh, tokens, kN, kK), ProductTolerance(act), "c");
      }
    }
  }
}

}  // namespace
}  // namespace moebius
