// Sorting choices by expert, gathering, scattering and combining rows.
#include <algorithm>
#include <vector>

#include "tests/core/backend/arrays.h"
#include "tests/core/backend/test_backend.h"

namespace moebius {
namespace {

std::vector<int32_t> RandomChoices(int64_t n, int64_t experts) {
  const RandomStream random(3, "choices");
  std::vector<int32_t> out(n);
  // Uneven: low experts are chosen more often, the last never.
  for (int64_t i = 0; i < n; ++i) {
    out[i] = static_cast<int32_t>(
        std::min(random.Below(2 * i, experts - 1), random.Below(2 * i + 1, experts - 1)));
  }
  return out;
}

TEST(RowsTest, RouteSortIsAStableSortByExpert) {
  const auto backend = NewTestBackend();
  const auto stream = backend->NewStream(StreamKind::kCompute);
  for (const int64_t tokens : {0, 1, 7, 5000}) {
    const int64_t k = 3, experts = 10;
    const std::vector<int32_t> choices = RandomChoices(tokens * k, experts);
    const Tensor flat = Int32Tensor(*backend, choices);
    const Tensor offsets = DirtyTensor(*backend, DType::kI64, {experts + 1});
    const Tensor row_of = DirtyTensor(*backend, DType::kI32, {tokens, k});
    const Tensor choice_of = DirtyTensor(*backend, DType::kI32, {tokens * k});
    backend->RouteSort(*stream, {.experts = flat.view().Reshape({tokens, k}),
                                 .offsets = offsets,
                                 .row_of = row_of,
                                 .choice_of = choice_of});
    int64_t row = 0;
    for (int64_t e = 0; e < experts; ++e) {
      ASSERT_EQ(offsets.view().as<int64_t>()[e], row);
      for (int64_t i = 0; i < tokens * k; ++i) {
        if (choices[i] != e) continue;
        ASSERT_EQ(choice_of.view().as<int32_t>()[row], i);
        ASSERT_EQ(row_of.view().as<int32_t>()[i], row);
        ++row;
      }
    }
    EXPECT_EQ(offsets.view().as<int64_t>()[experts], tokens * k);
  }
}

TEST(RowsTest, RouteSortOfSomeExpertsLeavesOutTheChoicesOfOthers) {
  const auto backend = NewTestBackend();
  const auto stream = backend->NewStream(StreamKind::kCompute);
  const int64_t k = 3, all = 10, first = 2, experts = 3;
  for (const int64_t tokens : {0, 1, 7, 5000}) {
    const std::vector<int32_t> choices = RandomChoices(tokens * k, all);
    const auto sorted = [&](int32_t e) { return e >= first && e < first + experts; };
    const int64_t rows = std::count_if(choices.begin(), choices.end(), sorted);
    for (const int64_t room : {rows, rows + 100}) {
      const Tensor flat = Int32Tensor(*backend, choices);
      const Tensor offsets = DirtyTensor(*backend, DType::kI64, {experts + 1});
      const Tensor row_of = DirtyTensor(*backend, DType::kI32, {tokens, k});
      const Tensor choice_of = DirtyTensor(*backend, DType::kI32, {room});
      backend->RouteSort(*stream, {.experts = flat.view().Reshape({tokens, k}),
                                   .offsets = offsets,
                                   .row_of = row_of,
                                   .choice_of = choice_of,
                                   .first = first,
                                   .others = true});
      int64_t row = 0;
      for (int64_t e = 0; e < experts; ++e) {
        ASSERT_EQ(offsets.view().as<int64_t>()[e], row);
        for (int64_t i = 0; i < tokens * k; ++i) {
          if (choices[i] != first + e) continue;
          ASSERT_EQ(choice_of.view().as<int32_t>()[row], i);
          ASSERT_EQ(row_of.view().as<int32_t>()[i], row);
          ++row;
        }
      }
      EXPECT_EQ(offsets.view().as<int64_t>()[experts], rows);
      for (; row < room; ++row) ASSERT_EQ(choice_of.view().as<int32_t>()[row], 0);
      for (int64_t i = 0; i < tokens * k; ++i) {
        if (!sorted(choices[i])) {
          ASSERT_EQ(row_of.view().as<int32_t>()[i], kNoRow);
        }
      }
    }
  }
}

// The CPU alone: a GPU finds it too late to say which choice.
TEST(RowsTest, RouteSortReportsAnExpertThatDoesNotExist) {
  const auto backend = MakeCpuBackend({.threads = 1});
  const auto stream = backend->NewStream(StreamKind::kCompute);
  const Tensor experts = Int32Tensor(*backend, {0, 4});
  const Tensor offsets(*backend, DType::kI64, {5}), rows(*backend, DType::kI32, {2, 1}),
      choices(*backend, DType::kI32, {2});
  EXPECT_DEATH(backend->RouteSort(*stream, {.experts = experts.view().Reshape({2, 1}),
                                            .offsets = offsets,
                                            .row_of = rows,
                                            .choice_of = choices}),
               "choice 1 is expert 4 of 4");
}

class RowsOfTypeTest : public testing::TestWithParam<DType> {};

TEST_P(RowsOfTypeTest, GatherTakesRowsOfTokensByChoice) {
  const auto backend = NewTestBackend();
  const auto stream = backend->NewStream(StreamKind::kCompute);
  const Tensor x = RandomTensor(*backend, GetParam(), {50, 24}, "x");
  const std::vector<int32_t> index = RandomChoices(300, 100);
  const Tensor indices = Int32Tensor(*backend, index);
  const Tensor out = DirtyTensor(*backend, GetParam(), {300, 20});
  backend->GatherRows(*stream, {.x = x.view().Columns(4, 20), .index = indices, .divisor = 2, .out = out});
  for (int64_t i = 0; i < 300; ++i) {
    for (int64_t c = 0; c < 20; ++c) ASSERT_EQ(ValueAt(out, i, c), ValueAt(x, index[i] / 2, 4 + c));
  }
}

TEST_P(RowsOfTypeTest, ScatterWritesRowsAtTheirIndexAndNoOthers) {
  const auto backend = NewTestBackend();
  const auto stream = backend->NewStream(StreamKind::kCompute);
  const Tensor x = RandomTensor(*backend, GetParam(), {4, 7}, "x");
  const Tensor out = RandomTensor(*backend, GetParam(), {9, 10}, "out");
  const std::vector<double> before = Values(out);
  const std::vector<int32_t> index = {8, 0, 3, 5};
  const Tensor indices = Int32Tensor(*backend, index);
  backend->ScatterRows(*stream, {.x = x, .index = indices, .out = out.view().Columns(2, 7)});
  std::vector<double> want = before;
  for (int64_t i = 0; i < 4; ++i) {
    for (int64_t c = 0; c < 7; ++c) want[index[i] * 10 + 2 + c] = ValueAt(x, i, c);
  }
  EXPECT_EQ(Values(out), want);
}

TEST_P(RowsOfTypeTest, CombineAddsTheRowsOfATokenInOrder) {
  const auto backend = NewTestBackend();
  const auto stream = backend->NewStream(StreamKind::kCompute);
  const int64_t tokens = 333, k = 4;
  for (const int64_t hidden : {1, 17, 64, 130}) {
    const Tensor rows = RandomTensor(*backend, GetParam(), {tokens * k, hidden}, "rows");
    const Tensor add = RandomTensor(*backend, GetParam(), {tokens, hidden}, "add");
    std::vector<int32_t> row_of(tokens * k);
    for (int64_t i = 0; i < tokens * k; ++i) {
      // Some tokens have fewer rows, every eleventh none.
      const bool none = i / k % 11 == 3 || i % 7 == 2;
      row_of[i] = none ? kNoRow : static_cast<int32_t>((i * 7 + 5) % (tokens * k));
    }
    const Tensor index = Int32Tensor(*backend, row_of);
    const Tensor plain = DirtyTensor(*backend, GetParam(), {tokens, hidden});
    const auto run = [&](TensorView added, TensorView out) {
      backend->CombineRows(
          *stream, {.rows = rows, .row_of = index.view().Reshape({tokens, k}), .add = added, .out = out});
    };
    const auto expect = [&](const std::vector<double>& start, const TensorView& out) {
      for (int64_t t = 0; t < tokens; ++t) {
        for (int64_t c = 0; c < hidden; ++c) {
          float sum = start.empty() ? 0.0f : static_cast<float>(start[t * hidden + c]);
          for (int64_t i = 0; i < k; ++i) {
            if (row_of[t * k + i] != kNoRow) sum += static_cast<float>(ValueAt(rows, row_of[t * k + i], c));
          }
          if (out.dtype == DType::kBF16) sum = BF16::FromFloat(sum).ToFloat();
          ASSERT_EQ(ValueAt(out, t, c), sum) << "token " << t << ", column " << c;
        }
      }
    };
    run({}, plain);
    expect({}, plain);
    const std::vector<double> start = Values(add);
    run(add, add);  // in place
    expect(start, add);
  }
}

INSTANTIATE_TEST_SUITE_P(Types, RowsOfTypeTest, testing::Values(DType::kF32, DType::kBF16),
                         [](const auto& info) { return std::string(Name(info.param)); });

}  // namespace
}  // namespace moebius
