#include "optim/balance.h"

#include "gtest/gtest.h"

namespace moebius {
namespace {

TEST(Balance, MetricsHaveTheirExtremes) {
  EXPECT_EQ(MaxViolation({5, 5, 5, 5}), 0);
  EXPECT_EQ(MaxViolation({20, 0, 0, 0}), 3);
  EXPECT_NEAR(LoadEntropy({5, 5, 5, 5}), 1, 1e-12);
  EXPECT_EQ(LoadEntropy({20, 0, 0, 0}), 0);
  EXPECT_EQ(MaxViolation({0, 0}), 0) << "nothing was counted";
  EXPECT_EQ(LoadEntropy({0, 0}), 1);
}

// By the sign alone, exactly: 7 of 20 tokens on 3 experts are above the mean, 6.67, though it is no integer.
TEST(Balance, BiasesMoveAgainstTheLoad) {
  EXPECT_EQ(BiasMoves({7, 6, 7}, 0.5), (std::vector<float>{-0.5f, 0.5f, -0.5f}));
  EXPECT_EQ(BiasMoves({4, 4}, 0.5), (std::vector<float>{0, 0})) << "at the mean they stay";
}

}  // namespace
}  // namespace moebius
