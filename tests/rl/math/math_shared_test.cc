// The reference table beside the checkout, with the bar of the design: at least 97 % right, never a false
// "equal".
#include <gtest/gtest.h>

#include "tests/rl/math/math_tables.h"

namespace moebius::math {
namespace {

TEST(MathShared, ReferenceTableMeetsTheBar) {
  const std::vector<Case> cases = ReadCases(MOEBIUS_SHARED_DIR "/reference/math_cases.tsv");
  ASSERT_GT(cases.size(), 50u);
  const Score score = Judge(cases);
  EXPECT_GE(score.right * 100, score.total * 97) << score.wrong;
  EXPECT_EQ(score.false_equal, 0) << score.wrong;
}

}  // namespace
}  // namespace moebius::math
