#include "parallel/pipeline/stage_split.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <limits>
#include <random>
#include <string>
#include <vector>

namespace moebius {
namespace {

std::vector<LayerRange> Split(const SplitCosts& costs, int stages) {
  auto ranges = SplitLayers(costs, stages);
  if (ranges.ok()) return *ranges;
  ADD_FAILURE() << ranges.status();
  return {};
}

std::vector<int64_t> Counts(const std::vector<LayerRange>& ranges) {
  std::vector<int64_t> counts;
  for (const LayerRange& range : ranges) counts.push_back(range.last_layer - range.first_layer);
  return counts;
}

// The smallest maximum over all splits, by trying each.
double BestByTrying(const SplitCosts& costs, int stages) {
  const int layers = static_cast<int>(costs.layers.size());
  double best = std::numeric_limits<double>::infinity();
  std::function<void(int, int, double)> go = [&](int begin, int stage, double worst) {
    if (stage == stages) {
      if (begin == layers) best = std::min(best, worst);
      return;
    }
    double cost = (stage == 0 ? costs.embedding : 0) + (stage == stages - 1 ? costs.head : 0);
    for (int end = begin + 1; end <= layers; ++end) {
      cost += costs.layers[end - 1];
      go(end, stage + 1, std::max(worst, cost));
    }
  };
  go(0, 0, 0);
  return best;
}

TEST(StageSplitTest, EqualLayersSplitEvenlyAndARemainderSpreadsOut) {
  EXPECT_EQ(Counts(Split({.layers = std::vector<double>(12, 1.0)}, 4)), (std::vector<int64_t>{3, 3, 3, 3}));
  const std::vector<int64_t> uneven = Counts(Split({.layers = std::vector<double>(14, 1.0)}, 4));
  EXPECT_EQ(*std::max_element(uneven.begin(), uneven.end()), 4);
  EXPECT_EQ(*std::min_element(uneven.begin(), uneven.end()), 3);  // and not 4, 4, 4, 2
}

TEST(StageSplitTest, AHeavyHeadTakesLayersOffTheLastStage) {
  const std::vector<LayerRange> ranges =
      Split({.layers = std::vector<double>(9, 1.0), .embedding = 0.1, .head = 3}, 3);
  EXPECT_EQ(Counts(ranges), (std::vector<int64_t>{4, 4, 1}));
  EXPECT_DOUBLE_EQ(ranges[0].cost, 4.1);
  EXPECT_DOUBLE_EQ(ranges[2].cost, 4);
}

TEST(StageSplitTest, TheWorstStageIsAsLightAsAnySplitCanMakeIt) {
  std::mt19937 random(7);
  for (int round = 0; round < 300; ++round) {
    SplitCosts costs;
    const int layers = 1 + static_cast<int>(random() % 10);
    for (int i = 0; i < layers; ++i) costs.layers.push_back(static_cast<double>(random() % 20) / 4);
    costs.embedding = static_cast<double>(random() % 8);
    costs.head = static_cast<double>(random() % 8);
    const int stages = 1 + static_cast<int>(random() % layers);
    const std::vector<LayerRange> ranges = Split(costs, stages);
    double worst = 0;
    int64_t next = 0;
    for (const LayerRange& range : ranges) {
      EXPECT_EQ(range.first_layer, next);
      EXPECT_GT(range.last_layer, range.first_layer);
      next = range.last_layer;
      worst = std::max(worst, range.cost);
    }
    EXPECT_EQ(next, layers);
    EXPECT_DOUBLE_EQ(worst, BestByTrying(costs, stages));
  }
}

TEST(StageSplitTest, ImpossibleSplitsAreRefusedWithTheValidChoices) {
  EXPECT_EQ(SplitLayers({.layers = {1, 1, 1}}, 4).status().message(),
            "3 layers cannot be split into 4 stages of at least one layer; choose 1 to 3 stages");
  EXPECT_FALSE(SplitLayers({.layers = {1, 1, 1}}, 0).ok());
  EXPECT_EQ(SplitLayers({}, 1).status().message(), "there are no layers to split");
  EXPECT_EQ(SplitLayers({.layers = {1, -2}}, 1).status().message(),
            "a layer's cost is -2; give finite ones >= 0");
}

}  // namespace
}  // namespace moebius
