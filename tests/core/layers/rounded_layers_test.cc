// Layers in FP8 whose operands are rounded once for all their products (Backend::RoundedBytes): an MoE layer
// with a shared expert goes through all ways that there are. A GPU keeps operands rounded; the CPU does not,
// so that here it is made to.
#include <string>
#include <vector>

#include "core/backend/cpu/cpu_backend.h"
#include "gtest/gtest.h"
#include "tests/core/backend/test_backend.h"
#include "tests/core/layers/bench.h"
#include "tests/core/layers/layer_parts.h"
#include "tests/core/layers/moe_layer.h"

namespace moebius {
namespace {

// What is kept "rounded" is a copy, which every product then rounds for itself.
class KeepingBackend final : public CpuBackend {
 public:
  KeepingBackend() : CpuBackend(CpuOptions{.threads = 2}) {}

  int64_t RoundedBytes(const TensorView& x, RoundedBy, int64_t) const override { return x.bytes(); }
  void Round(Stream& stream, const RoundArgs& args) override {
    for (const TensorView& to : {args.to.rows, args.to.columns}) {
      if (to) Cast(stream, args.x, Kept(args.x, to));
    }
    ++rounded;
  }
  void MatMul(Stream& stream, const MatMulArgs& args) override {
    MatMulArgs plain = args;
    plain.a = Kept(args.a, args.rounded_a);
    plain.b = Kept(args.b, args.rounded_b);
    plain.rounded_a = plain.rounded_b = {};
    CpuBackend::MatMul(stream, plain);
  }
  void GroupedMatMul(Stream& stream, const GroupedMatMulArgs& args) override {
    GroupedMatMulArgs plain = args;
    plain.x = Kept(args.x, args.rounded_x);
    plain.y = Kept(args.y, args.rounded_y);
    plain.rounded_x = plain.rounded_y = {};
    CpuBackend::GroupedMatMul(stream, plain);
  }
  void SwiGlu(Stream& stream, const SwiGluArgs& args) override {
    SwiGluArgs plain = args;
    plain.h = Kept(args.h, args.rounded_h.rows);
    made_rounded += args.rounded_h.rows ? 1 : 0;
    CpuBackend::SwiGlu(stream, plain);
  }
  void SwiGluBackward(Stream& stream, const SwiGluBackwardArgs& args) override {
    SwiGluBackwardArgs plain = args;
    plain.d_gate_up = Kept(args.d_gate_up, args.rounded_d_gate_up.rows);
    if (args.rounded_h.columns) plain.h = Kept(args.dh, args.rounded_h.columns);
    made_rounded += args.rounded_d_gate_up.rows ? 1 : 0;
    CpuBackend::SwiGluBackward(stream, plain);
    if (const TensorView& columns = args.rounded_d_gate_up.columns) {
      Cast(stream, plain.d_gate_up, Kept(plain.d_gate_up, columns));
    }
  }

  int rounded = 0, made_rounded = 0;  // calls

 private:
  static TensorView Kept(const TensorView& x, const TensorView& copy) {
    return copy ? TensorView(copy.data, x.dtype, {x.rows(), x.cols()}) : x;
  }
};

struct TrainedOnce {
  std::vector<float> y, dx;
  std::vector<std::vector<float>> parameters;
};

// A microbatch through the layer, the weights' gradients late. intermediate: of every expert.
TrainedOnce Train(Bench& bench, DType act, int64_t intermediate, bool recompute, int64_t hidden = 64) {
  MoeChoices choices;
  choices.hidden = hidden;
  choices.intermediate = choices.shared = intermediate;
  choices.bias = true;
  choices.spec = {.top_k = 3, .normalize = true, .scale = 2.5};
  ParameterSet set;
  SlotCounter slots;
  LocalExchange exchange(choices.experts);
  MoeMlp moe(slots, choices.spec, AddMoe(set, "moe/", choices), &exchange);
  const MoeLayer layer(&moe);
  set.Allocate(bench.backend(), bench.stream(), {.act = act});
  Randomize(bench, set);
  const OwnedLayout layout = MakeLayout(bench, {0, 100, 301});
  const int64_t tokens = 301;
  Saved saved(bench.memory(), slots.count());
  const Pass pass{.context = bench.context(),
                  .layout = layout.layout,
                  .saved = saved,
                  .recompute = {.swiglu = recompute},
                  .rounding = Rounding::kFp8};
  const auto random = [&](const char* name) {
    return bench.Floats(act, {tokens, choices.hidden}, RoundedToBf16(Normals(name, tokens * choices.hidden)));
  };
  const Tensor x = random("x"), dy = random("dy");
  const Tensor y(bench.memory(), act, {tokens, choices.hidden}),
      dx(bench.memory(), act, {tokens, choices.hidden});
  for (const auto& p : set.all()) {
    if (p->grad()) bench.backend().Zero(bench.stream(), p->grad());
  }
  layer.Forward(pass, x, y);
  Poison(bench.scratch());
  layer.BackwardInput(pass, dy, dx);
  Poison(bench.scratch());
  layer.BackwardWeight(pass);
  TrainedOnce out{.y = bench.Read(y), .dx = bench.Read(dx), .parameters = {}};
  for (const auto& p : set.all()) {
    if (p->grad()) out.parameters.push_back(bench.Read(p->grad()));
  }
  return out;
}

void ExpectSame(const TrainedOnce& got, const TrainedOnce& want, double tolerance) {
  const auto same = [&](const std::vector<float>& a, const std::vector<float>& b, const std::string& what) {
    ASSERT_EQ(a.size(), b.size()) << what;
    EXPECT_LE(RelativeDistance(a, b), tolerance) << what;
    EXPECT_GT(RelativeDistance(a, std::vector<float>(a.size(), 0)), 0) << what;
  };
  same(got.y, want.y, "y");
  same(got.dx, want.dx, "dx");
  ASSERT_EQ(got.parameters.size(), want.parameters.size());
  ASSERT_EQ(got.parameters.size(), 5u);
  for (size_t i = 0; i < got.parameters.size(); ++i) {
    same(got.parameters[i], want.parameters[i], "gradient " + std::to_string(i));
  }
}

class RoundedLayersTest : public testing::TestWithParam<DType> {};

TEST_P(RoundedLayersTest, OperandsRoundedOnceAreThoseThatProductsRound) {
  for (const int64_t intermediate : {128, 40}) {  // SwiGLU makes rounded results of whole tiles only
    for (const bool recompute : {true, false}) {
      SCOPED_TRACE(testing::Message() << intermediate << (recompute ? " recomputed" : " kept"));
      auto keeping = std::make_unique<KeepingBackend>();
      const KeepingBackend& calls = *keeping;
      Bench plain, kept(std::move(keeping));
      const TrainedOnce want = Train(plain, GetParam(), intermediate, recompute);
      ExpectSame(Train(kept, GetParam(), intermediate, recompute), want, kTestsGpu ? 0.02 : 0);
      const bool made = intermediate == 128 && recompute;
      EXPECT_EQ(calls.made_rounded, made ? 4 : 0);  // forward and backward, experts and shared expert
      // dy of both products of both, but for what SwiGLU has made.
      EXPECT_EQ(calls.rounded, made ? 2 : 4);
    }
  }
}

// Products of other widths take what has memory.
TEST_P(RoundedLayersTest, SwiGluKeepsItsResultsWhereTheWidthBesideThemIsOdd) {
  auto keeping = std::make_unique<KeepingBackend>();
  const KeepingBackend& calls = *keeping;
  Bench plain, kept(std::move(keeping));
  const TrainedOnce want = Train(plain, GetParam(), 128, true, 100);
  ExpectSame(Train(kept, GetParam(), 128, true, 100), want, kTestsGpu ? 0.02 : 0);
  EXPECT_EQ(calls.made_rounded, 0);
}

// What is made rounded is what is made otherwise, then rounded; sums over a row may differ in their order.
TEST_P(RoundedLayersTest, RecomputingInFp8ChangesNothing) {
  Bench bench;
  const TrainedOnce want = Train(bench, GetParam(), 128, false);
  ExpectSame(Train(bench, GetParam(), 128, true), want, 1e-5);
}

INSTANTIATE_TEST_SUITE_P(Types, RoundedLayersTest, testing::Values(DType::kF32, DType::kBF16));

}  // namespace
}  // namespace moebius
