#include "launch/train/setup.h"

#include "core/base/status.h"
#include "gtest/gtest.h"
#include "parallel/comm/world.h"

namespace moebius {
namespace {

TEST(Setup, RanksThatWouldComputeInDifferentTypesAreRefused) {
  const auto agree = [](DType of_rank_2) {
    return RunRanks(3, {}, [&](World& world) {
      return AgreeOnCompute(world, world.rank() == 2 ? of_rank_2 : DType::kBF16);
    });
  };
  EXPECT_TRUE(agree(DType::kBF16).ok());
  const absl::Status mixed = agree(DType::kF32);
  EXPECT_EQ(ExitCode(mixed), kExitUnavailable);
  EXPECT_NE(mixed.message().find("on rank 0 and F32 on rank 2"), std::string::npos) << mixed;
}

}  // namespace
}  // namespace moebius
