// The checked entry points: what they refuse and what they count.
#include "core/backend/ops.h"

#include <memory>

#include "tests/core/backend/arrays.h"

namespace moebius {
namespace {

class OpsTest : public testing::Test {
 protected:
  OpsTest() { GTEST_FLAG_SET(death_test_style, "threadsafe"); }
  std::unique_ptr<Backend> backend = MakeCpuBackend({.threads = 1});
  std::unique_ptr<Stream> stream = backend->NewStream(StreamKind::kCompute);
  Arena scratch{*backend};
  KernelProfile profile;
  Context context{*backend, *stream, scratch, &profile};
  const testing::ExitedWithCode bug{70};
};

TEST_F(OpsTest, AProfileCountsCallsTimeAndWork) {
  const TensorView a = scratch.New(DType::kF32, {20, 30}), b = scratch.New(DType::kF32, {40, 30}),
                   c = scratch.New(DType::kF32, {20, 40});
  Fill(context, a, 1);
  Fill(context, b, 1);
  for (int i = 0; i < 3; ++i) MatMul(context, {.a = a, .b = b, .c = c, .transpose_b = Transpose::kYes});
  const KernelProfile::Entry& entry = profile.entries().find("MatMul NT")->second;
  EXPECT_EQ(entry.calls, 3);
  EXPECT_GT(entry.seconds, 0);
  EXPECT_EQ(entry.flops, 3 * 2.0 * 20 * 30 * 40);
  EXPECT_EQ(entry.bytes, 3 * 4.0 * (20 * 30 + 40 * 30 + 20 * 40));
  EXPECT_EQ(profile.entries().find("Fill")->second.calls, 2);
  profile.Clear();
  EXPECT_TRUE(profile.entries().empty());
}

TEST_F(OpsTest, MismatchedShapesEndTheProcessNamingBoth) {
  const TensorView a = scratch.New(DType::kF32, {20, 30}), b = scratch.New(DType::kF32, {31, 40}),
                   c = scratch.New(DType::kF32, {20, 40});
  EXPECT_EXIT(MatMul(context, {.a = a, .b = b, .c = c}), bug, "b is F32\\[31, 40\\], want 30 rows of 40");
  EXPECT_EXIT(Cast(context, a, c), bug, "to is F32\\[20, 40\\]");
}

TEST_F(OpsTest, MixedTypesEndTheProcess) {
  const TensorView a = scratch.New(DType::kBF16, {20, 30}), b = scratch.New(DType::kF32, {30, 40}),
                   c = scratch.New(DType::kBF16, {20, 40});
  EXPECT_EXIT(MatMul(context, {.a = a, .b = b, .c = c}), bug, "b is F32");
  const TensorView b16 = scratch.New(DType::kBF16, {30, 40});
  EXPECT_EXIT(MatMul(context, {.a = a, .b = b16, .c = c, .accumulate = true}), bug, "accumulates");
}

TEST_F(OpsTest, AMissingOperandEndsTheProcess) {
  const TensorView x = scratch.New(DType::kF32, {4, 8}), gain = scratch.New(DType::kF32, {8});
  EXPECT_EXIT(RmsNorm(context, {.x = x, .gain = gain, .y = x, .rstd = {}, .epsilon = 1e-6f}), bug,
              "rstd is missing");
}

TEST_F(OpsTest, SequencesMustCoverTheTokens) {
  const TensorView q = scratch.New(DType::kF32, {6, 2, 8}), lse = scratch.New(DType::kF32, {2, 6});
  const std::vector<int32_t> starts = {0, 5};
  EXPECT_EXIT(
      Attention(context, {.q = q, .k = q, .v = q, .sequence_starts = starts, .scale = 1, .o = q, .lse = lse}),
      bug, "the last entry of sequence_starts");
}

TEST_F(OpsTest, ChosenGroupsMustHoldEnoughExperts) {
  const TensorView logits = scratch.New(DType::kF32, {3, 8}), experts = scratch.New(DType::kI32, {3, 4}),
                   weights = scratch.New(DType::kF32, {3, 4});
  const RouterSpec spec{.num_groups = 4, .top_groups = 1, .top_k = 4};
  EXPECT_EXIT(
      Router(context,
             {.spec = spec, .logits = logits, .scores = logits, .experts = experts, .weights = weights}),
      bug, "too few experts");
}

// What the CPU says of an id that only the kernel sees; a GPU's kernel traps, too late to say which.
TEST_F(OpsTest, AnIdBeyondTheTableEndsTheProcess) {
  const Tensor table = RandomTensor(*backend, DType::kF32, {4, 8}, "table"),
               out(*backend, DType::kF32, {1, 8});
  const Tensor ids = Int32Tensor(*backend, {4});
  EXPECT_EXIT(Embedding(context, {.table = table, .ids = ids, .out = out}), bug, "token id 4");
}

}  // namespace
}  // namespace moebius
