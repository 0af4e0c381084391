#include "optim/schedule.h"

#include <cmath>

#include "gtest/gtest.h"

namespace moebius {
namespace {

TEST(Schedule, ConstantHoldsFromTheFirstStepWithoutWarmUp) {
  const ScheduleConfig c{.lr = 2e-3, .phases = {}};
  EXPECT_DOUBLE_EQ(LearningRate(c, 1, 100), 2e-3);
  EXPECT_DOUBLE_EQ(LearningRate(c, 100, 100), 2e-3);
}

TEST(Schedule, WarmUpRisesLinearlyAndReachesTheRateAtItsLastStep) {
  const ScheduleConfig c{.lr = 1.0, .warmup_steps = 4, .phases = {}};
  EXPECT_DOUBLE_EQ(LearningRate(c, 1, 100), 0.25);
  EXPECT_DOUBLE_EQ(LearningRate(c, 3, 100), 0.75);
  EXPECT_DOUBLE_EQ(LearningRate(c, 4, 100), 1.0);
  EXPECT_DOUBLE_EQ(LearningRate(c, 5, 100), 1.0);
}

TEST(Schedule, CosineIsHalfWayInTheMiddleAndEndsAtTheMinimum) {
  const ScheduleConfig c{
      .kind = ScheduleKind::kCosine, .lr = 1.0, .min_lr = 0.2, .warmup_steps = 10, .phases = {}};
  EXPECT_NEAR(LearningRate(c, 60, 110), 0.6, 1e-12);
  EXPECT_NEAR(LearningRate(c, 110, 110), 0.2, 1e-12);
  EXPECT_NEAR(LearningRate(c, 500, 110), 0.2, 1e-12);
}

TEST(Schedule, WsdDecaysOnlyInTheLastSteps) {
  const ScheduleConfig c{.kind = ScheduleKind::kWsd,
                         .lr = 1.0,
                         .min_lr = 0.0,
                         .decay_steps = 20,
                         .decay_shape = DecayShape::kLinear,
                         .phases = {}};
  EXPECT_DOUBLE_EQ(LearningRate(c, 80, 100), 1.0);
  EXPECT_DOUBLE_EQ(LearningRate(c, 90, 100), 0.5);
  EXPECT_DOUBLE_EQ(LearningRate(c, 100, 100), 0.0);
  ScheduleConfig root = c;
  root.decay_shape = DecayShape::kOneMinusSqrt;
  EXPECT_NEAR(LearningRate(root, 85, 100), 0.5, 1e-12);
}

TEST(Schedule, PhasesOfV3FollowEachOtherAndTheLastRateHolds) {
  const ScheduleConfig c{
      .kind = ScheduleKind::kPiecewise,
      .lr = 2.2e-4,
      .warmup_steps = 2,
      .phases = {{.steps = 10, .from_lr = 2.2e-4, .to_lr = 2.2e-4, .shape = DecayShape::kLinear},
                 {.steps = 10, .from_lr = 2.2e-4, .to_lr = 2.2e-5},
                 {.steps = 5, .from_lr = 7.3e-6, .to_lr = 7.3e-6}}};
  EXPECT_DOUBLE_EQ(LearningRate(c, 12, 100), 2.2e-4);
  EXPECT_NEAR(LearningRate(c, 17, 100), (2.2e-4 + 2.2e-5) / 2, 1e-12);
  EXPECT_NEAR(LearningRate(c, 22, 100), 2.2e-5, 1e-12);
  EXPECT_DOUBLE_EQ(LearningRate(c, 23, 100), 7.3e-6);
  EXPECT_DOUBLE_EQ(LearningRate(c, 1000, 100), 7.3e-6);
}

}  // namespace
}  // namespace moebius
