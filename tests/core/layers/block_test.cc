#include "core/layers/block.h"

#include "gtest/gtest.h"
#include "tests/core/layers/gradient_check.h"
#include "tests/core/layers/layer_parts.h"

namespace moebius {
namespace {

constexpr int64_t kHidden = 20;
const MoeChoices kMoe = {.spec = {.scoring = Scoring::kSigmoid,
                                  .num_groups = 2,
                                  .top_groups = 1,
                                  .top_k = 2,
                                  .normalize = true,
                                  .scale = 2},
                         .hidden = kHidden,
                         .bias = true,
                         .shared = 8};
const MoeChoices kMoeAlone = {.spec = {.scoring = Scoring::kSoftmax, .top_k = 2, .normalize = true},
                              .hidden = kHidden};

class BlockSubject final : public Subject {
 public:
  BlockSubject(Bench& bench, ParameterSet& set, SlotCounter& slots, const MoeChoices* moe)
      : owned_(bench, set, slots, "block/", kHidden, moe), experts_(moe ? moe->experts : 0) {}
  std::vector<int64_t> input_widths() const override { return {kHidden}; }
  std::vector<int64_t> output_widths() const override { return {kHidden}; }
  int64_t experts() const override { return experts_; }
  void Forward(const Pass& pass, std::span<const TensorView> x,
               std::span<const TensorView> y) const override {
    owned_.block().Forward(pass, x[0], y[0]);
  }
  void BackwardInput(const Pass& pass, std::span<const TensorView> dy,
                     std::span<const TensorView> dx) const override {
    owned_.block().BackwardInput(pass, dy[0], dx[0]);
  }
  void BackwardWeight(const Pass& pass) const override { owned_.block().BackwardWeight(pass); }
  double Terms(const Pass& pass) const override {
    return experts_ > 0 ? TermsOf(pass, *owned_.block().moe()) : 0;
  }

 private:
  OwnedBlock owned_;
  int64_t experts_;
};

void Check(const MoeChoices* moe, const BalanceFactors& balance = {}) {
  CheckGradients([&](Bench& bench, ParameterSet& set,
                     SlotCounter& slots) { return std::make_unique<BlockSubject>(bench, set, slots, moe); },
                 {.balance = balance, .matrix_scale = 1.3, .step = 0.01, .bf16_difference_tolerance = 0});
}

TEST(BlockTest, PassesTheGradientCheckerWithADenseMlp) { Check(nullptr); }

TEST(BlockTest, PassesTheGradientCheckerWithExperts) { Check(&kMoe); }

TEST(BlockTest, PassesTheGradientCheckerWithExpertsAndNoSharedOne) { Check(&kMoeAlone); }

TEST(BlockTest, PassesTheGradientCheckerWithBalanceTerms) {
  Check(&kMoe, {.sequence = 2, .auxiliary = 1, .z = 0.1f});
}

// Two microbatches through one block, as a schedule that overlaps them would.
struct Overlapped {
  struct Micro {
    Micro(Bench& bench, int slots, const std::vector<int32_t>& starts, const std::string& name)
        : owned(MakeLayout(bench, starts)), saved(bench.memory(), slots) {
      const int64_t n = starts.back();
      x = bench.Floats(DType::kF32, {n, kHidden}, Normals(name + "/x", n * kHidden));
      dy = bench.Floats(DType::kF32, {n, kHidden}, Normals(name + "/dy", n * kHidden));
      y = Tensor(bench.memory(), DType::kF32, {n, kHidden});
      dx = Tensor(bench.memory(), DType::kF32, {n, kHidden});
    }
    OwnedLayout owned;
    Saved saved;
    Tensor x, y, dy, dx;
  };

  Overlapped(const MoeChoices* moe, const RecomputePolicy& policy)
      : recompute(policy), owned(bench, set, slots, "block/", kHidden, moe) {
    set.Allocate(bench.backend(), bench.stream(), {});
    Randomize(bench, set, 1.3);
    a = std::make_unique<Micro>(bench, slots.count(), std::vector<int32_t>{0, 4, 11}, "a");
    b = std::make_unique<Micro>(bench, slots.count(), std::vector<int32_t>{0, 7}, "b");
  }
  Pass PassOf(Micro& m) { return {bench.context(), m.owned.layout, m.saved, recompute}; }
  const Block& block() { return owned.block(); }
  // One segment of each in turn: of `b` first, and `a` one ahead.
  void Interleave(std::span<const Block::Segment> segments, bool forward) {
    const size_t n = segments.size();
    for (size_t i = 0; i <= n; ++i) {
      if (i < n) Run(segments[i], *a, forward);
      if (i > 0) Run(segments[i - 1], *b, forward);
    }
  }
  void Run(const Block::Segment& segment, Micro& m, bool forward) {
    (block().*segment.run)(PassOf(m), forward ? m.x : m.dy, forward ? m.y : m.dx);
  }
  std::vector<std::vector<float>> Results() {
    std::vector<std::vector<float>> out = {bench.Read(a->y), bench.Read(b->y), bench.Read(a->dx),
                                           bench.Read(b->dx)};
    for (const auto& parameter : set.all()) {
      if (parameter->grad()) out.push_back(bench.Read(parameter->grad()));
    }
    return out;
  }

  RecomputePolicy recompute;
  Bench bench;
  ParameterSet set;
  SlotCounter slots;
  OwnedBlock owned;
  std::unique_ptr<Micro> a, b;
};

TEST(BlockTest, SegmentListsOfTwoMicrobatchesInterleaveWithoutChangingABit) {
  for (const MoeChoices* moe : {static_cast<const MoeChoices*>(nullptr), &kMoe, &kMoeAlone}) {
    for (const bool everything : {false, true}) {
      const RecomputePolicy policy{.norms = everything, .mla_up = everything, .swiglu = everything};
      Overlapped apart(moe, policy);
      for (Overlapped::Micro* m : {apart.a.get(), apart.b.get()}) {
        apart.block().Forward(apart.PassOf(*m), m->x, m->y);
        apart.block().BackwardInput(apart.PassOf(*m), m->dy, m->dx);
        apart.block().BackwardWeight(apart.PassOf(*m));
      }
      Overlapped together(moe, policy);
      together.Interleave(together.block().ForwardSegments(), true);
      together.Interleave(together.block().BackwardInputSegments(), false);
      together.block().BackwardWeight(together.PassOf(*together.a));
      together.block().BackwardWeight(together.PassOf(*together.b));
      const auto want = apart.Results(), got = together.Results();
      for (size_t i = 0; i < want.size(); ++i) EXPECT_EQ(got[i], want[i]) << "result " << i;
    }
  }
}

TEST(BlockTest, ForwardOfOneOverlapsBackwardOfTheOther) {
  Overlapped apart(&kMoe, {});
  for (Overlapped::Micro* m : {apart.a.get(), apart.b.get()}) {
    apart.block().Forward(apart.PassOf(*m), m->x, m->y);
    apart.block().BackwardInput(apart.PassOf(*m), m->dy, m->dx);
    apart.block().BackwardWeight(apart.PassOf(*m));
  }
  Overlapped together(&kMoe, {});
  const Block& block = together.block();
  block.Forward(together.PassOf(*together.a), together.a->x, together.a->y);
  const auto forward = block.ForwardSegments(), backward = block.BackwardInputSegments();
  ASSERT_EQ(forward.size(), backward.size());
  for (size_t i = 0; i < forward.size(); ++i) {
    together.Run(backward[i], *together.a, false);
    together.Run(forward[i], *together.b, true);
  }
  block.BackwardWeight(together.PassOf(*together.a));
  block.BackwardInput(together.PassOf(*together.b), together.b->dy, together.b->dx);
  block.BackwardWeight(together.PassOf(*together.b));
  const auto want = apart.Results(), got = together.Results();
  for (size_t i = 0; i < want.size(); ++i) EXPECT_EQ(got[i], want[i]) << "result " << i;
}

TEST(BlockTest, EveryPostOfAListHasItsWaitLaterInTheList) {
  Overlapped dense(nullptr, {}), moe(&kMoe, {});
  for (const auto segments : {moe.block().ForwardSegments(), moe.block().BackwardInputSegments()}) {
    int open = 0, posts = 0;
    for (const Block::Segment& segment : segments) {
      if (segment.kind == SegmentKind::kPost) ++open, ++posts;
      if (segment.kind == SegmentKind::kWait) --open;
      EXPECT_GE(open, 0) << segment.name;
    }
    EXPECT_EQ(open, 0);
    EXPECT_EQ(posts, 2);
  }
  for (const auto segments : {dense.block().ForwardSegments(), dense.block().BackwardInputSegments()}) {
    for (const Block::Segment& segment : segments)
      EXPECT_EQ(segment.kind, SegmentKind::kCompute) << segment.name;
  }
}

TEST(BlockTest, RecomputingKeepsLess) {
  const auto kept = [](const RecomputePolicy& policy) {
    Overlapped run(&kMoe, policy);
    run.block().Forward(run.PassOf(*run.a), run.a->x, run.a->y);
    return run.a->saved.activations().bytes();
  };
  const int64_t all = kept({.norms = false, .mla_up = false, .swiglu = false});
  EXPECT_LT(kept({.norms = true, .mla_up = false, .swiglu = false}), all);
  EXPECT_LT(kept({.norms = false, .mla_up = true, .swiglu = false}), all);
  EXPECT_LT(kept({.norms = false, .mla_up = false, .swiglu = true}), all);
}

}  // namespace
}  // namespace moebius
