#include "core/layers/embedding.h"

#include "gtest/gtest.h"
#include "tests/core/layers/gradient_check.h"

namespace moebius {
namespace {

constexpr int64_t kVocab = 7, kWidth = 20;

class EmbeddingSubject final : public Subject {
 public:
  EmbeddingSubject(Bench& bench, ParameterSet& set, SlotCounter& slots)
      : embedding_(slots, AddParameter(set, "table", {kVocab, kWidth})) {
    std::vector<int32_t> ids(32);
    for (size_t i = 0; i < ids.size(); ++i)
      ids[i] = static_cast<int32_t>((i * i + 3) % kVocab);  // repeats, gaps
    ids_ = bench.Ints(ids);
  }
  std::vector<int64_t> input_widths() const override { return {}; }
  std::vector<int64_t> output_widths() const override { return {kWidth}; }
  void Forward(const Pass& pass, std::span<const TensorView>, std::span<const TensorView> y) const override {
    embedding_.Forward(pass, ids_.view().Rows(0, y[0].rows()), y[0]);
  }
  void BackwardInput(const Pass& pass, std::span<const TensorView> dy,
                     std::span<const TensorView>) const override {
    embedding_.SetGradient(pass, dy[0]);
  }
  void BackwardWeight(const Pass& pass) const override { embedding_.BackwardWeight(pass); }

 private:
  TokenEmbedding embedding_;
  Tensor ids_;
};

TEST(TokenEmbeddingTest, PassesTheGradientChecker) {
  CheckGradients([](Bench& bench, ParameterSet& set, SlotCounter& slots) {
    return std::make_unique<EmbeddingSubject>(bench, set, slots);
  });
}

TEST(TokenEmbeddingTest, RowsOfTokensThatDoNotOccurGetNoGradient) {
  Bench bench;
  ParameterSet set;
  SlotCounter slots;
  TokenEmbedding embedding(slots, AddParameter(set, "table", {3, 2}));
  set.Allocate(bench.backend(), bench.stream(), {});
  Randomize(bench, set);
  const OwnedLayout layout = MakeLayout(bench, {0, 3});
  Saved saved(bench.memory(), slots.count());
  const Pass pass{bench.context(), layout.layout, saved};
  const Tensor ids = bench.Ints({2, 0, 2});
  const Tensor y(bench.memory(), DType::kF32, {3, 2});
  embedding.Forward(pass, ids, y);
  const std::vector<float> table = bench.Read(set.all()[0]->weight());
  EXPECT_EQ(bench.Read(y), (std::vector<float>{table[4], table[5], table[0], table[1], table[4], table[5]}));
  const Tensor dy = bench.Floats(DType::kF32, {3, 2}, {1, 2, 10, 20, 100, 200});
  embedding.SetGradient(pass, dy);
  embedding.BackwardWeight(pass);
  EXPECT_EQ(bench.Read(set.all()[0]->grad()), (std::vector<float>{10, 20, 0, 0, 101, 202}));
}

}  // namespace
}  // namespace moebius
