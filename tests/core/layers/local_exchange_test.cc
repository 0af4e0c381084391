#include "core/layers/local_exchange.h"

#include "gtest/gtest.h"
#include "tests/core/layers/bench.h"

namespace moebius {
namespace {

// 3 tokens of width 2, 2 choices each, 4 experts of which one (2) gets nothing.
struct Exchanged {
  Exchanged()
      : exchange(4),
        arena(bench.memory()),
        x(bench.Floats(DType::kF32, {3, 2}, {1, 2, 3, 4, 5, 6})),
        weights(bench.Floats(DType::kF32, {3, 2}, {0.1f, 0.2f, 0.3f, 0.4f, 0.5f, 0.6f})),
        experts(bench.memory(), DType::kI32, {3, 2}) {
    const std::vector<int32_t> chosen = {3, 0, 1, 3, 0, 1};
    bench.backend().CopyToDevice(bench.stream(), chosen.data(), experts);
    handle = exchange.PostDispatch(bench.context(), arena, x, experts, weights);
  }
  Bench bench;
  LocalExchange exchange;
  Arena arena;
  Tensor x, weights, experts;
  std::unique_ptr<TokenExchange::Handle> handle;
};

TEST(LocalExchangeTest, DispatchSortsRowsByExpertInTokenOrder) {
  Exchanged e;
  const TokenExchange::Dispatched d = e.exchange.WaitDispatch(e.bench.context(), *e.handle);
  std::vector<int64_t> offsets(5);
  e.bench.backend().CopyToHost(e.bench.stream(), d.offsets, offsets.data());
  EXPECT_EQ(offsets, (std::vector<int64_t>{0, 2, 4, 4, 6}));
  EXPECT_EQ(e.bench.Read(d.rows), (std::vector<float>{1, 2, 5, 6, 3, 4, 5, 6, 1, 2, 3, 4}));
  EXPECT_EQ(e.bench.Read(d.row_weights), (std::vector<float>{0.2f, 0.5f, 0.3f, 0.6f, 0.1f, 0.4f}));
}

TEST(LocalExchangeTest, CombineSumsTheRowsOfEachToken) {
  Exchanged e;
  const Tensor rows = e.bench.Floats(DType::kF32, {6, 2}, {1, 10, 2, 20, 3, 30, 4, 40, 5, 50, 6, 60});
  const Tensor y = e.bench.Floats(DType::kF32, {3, 2}, {100, 0, 200, 0, 300, 0});
  e.exchange.WaitDispatch(e.bench.context(), *e.handle);
  e.exchange.PostCombine(e.bench.context(), *e.handle, rows);
  e.exchange.WaitCombine(e.bench.context(), *e.handle, y, y);
  EXPECT_EQ(e.bench.Read(y), (std::vector<float>{106, 60, 209, 90, 306, 60}));
  e.exchange.WaitCombine(e.bench.context(), *e.handle, TensorView(), y);
  EXPECT_EQ(e.bench.Read(y), (std::vector<float>{6, 60, 9, 90, 6, 60}));
}

TEST(LocalExchangeTest, BackwardsAreTheTransposes) {
  Exchanged e;
  e.exchange.WaitDispatch(e.bench.context(), *e.handle);
  const Tensor dy = e.bench.Floats(DType::kF32, {3, 2}, {1, 2, 3, 4, 5, 6});
  Arena gradients(e.bench.memory());
  e.exchange.PostCombineBackward(e.bench.context(), gradients, *e.handle, dy);
  EXPECT_EQ(e.bench.Read(e.exchange.WaitCombineBackward(e.bench.context(), *e.handle)),
            (std::vector<float>{1, 2, 5, 6, 3, 4, 5, 6, 1, 2, 3, 4}));
  const Tensor d_rows = e.bench.Floats(DType::kF32, {6, 2}, {1, 10, 2, 20, 3, 30, 4, 40, 5, 50, 6, 60});
  const Tensor d_row_weights = e.bench.Floats(DType::kF32, {6}, {1, 2, 3, 4, 5, 6});
  const Tensor dx(e.bench.memory(), DType::kF32, {3, 2}), dweights(e.bench.memory(), DType::kF32, {3, 2});
  e.exchange.PostDispatchBackward(e.bench.context(), *e.handle, d_rows, d_row_weights);
  e.exchange.WaitDispatchBackward(e.bench.context(), *e.handle, TensorView(), dx, dweights);
  EXPECT_EQ(e.bench.Read(dx), (std::vector<float>{6, 60, 9, 90, 6, 60}));
  EXPECT_EQ(e.bench.Read(dweights), (std::vector<float>{5, 1, 3, 6, 2, 4}));
}

}  // namespace
}  // namespace moebius
