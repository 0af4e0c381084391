// Which tokens and samples go where: permutation, mixture, packing, fill-in-the-middle cuts.
#include "data/packing.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <numeric>
#include <set>

#include "core/base/random.h"
#include "core/base/status.h"
#include "data/fim.h"
#include "data/mixture.h"
#include "data/permutation.h"

namespace moebius {
namespace {

TEST(KeyedPermutation, VisitsEveryIndexOnceForAnySize) {
  for (const uint64_t size : {1, 2, 3, 5, 16, 17, 255, 256, 257, 1000, 4097}) {
    const KeyedPermutation permutation(size, 7, "test");
    std::vector<bool> seen(size, false);
    for (uint64_t i = 0; i < size; ++i) {
      const uint64_t to = permutation(i);
      ASSERT_LT(to, size);
      EXPECT_FALSE(seen[to]) << size << ": " << to << " twice";
      seen[to] = true;
    }
  }
}

TEST(KeyedPermutation, DiffersBySeedAndNameAndLooksShuffled) {
  const uint64_t size = 1000;
  const KeyedPermutation a(size, 1, "epoch 0"), again(size, 1, "epoch 0"), b(size, 2, "epoch 0"),
      c(size, 1, "epoch 1");
  int same_b = 0, same_c = 0, fixed = 0, neighbours = 0;
  for (uint64_t i = 0; i < size; ++i) {
    EXPECT_EQ(a(i), again(i));
    same_b += a(i) == b(i);
    same_c += a(i) == c(i);
    fixed += a(i) == i;
    if (i > 0) neighbours += a(i) == a(i - 1) + 1;
  }
  // One of each is expected of a random permutation.
  EXPECT_LT(same_b, 10);
  EXPECT_LT(same_c, 10);
  EXPECT_LT(fixed, 10);
  EXPECT_LT(neighbours, 10);
}

TEST(KeyedPermutation, SpreadsEvenlyOverSeedsInSmallDomains) {
  std::map<uint64_t, int> counts;
  for (uint64_t seed = 0; seed < 7000; ++seed) ++counts[KeyedPermutation(7, seed, "x")(3)];
  for (const auto& [to, count] : counts) EXPECT_NEAR(count, 1000, 150) << to;
  EXPECT_EQ(counts.size(), 7u);
}

TEST(MixturePattern, KeepsSharesInEveryStretch) {
  const auto mixture = MixturePattern::Create({0.5, 0.3, 0.2});
  ASSERT_TRUE(mixture.ok());
  int64_t counts[3] = {0, 0, 0};
  for (int64_t g = 0; g < 3 * MixturePattern::kPeriod; ++g) {
    const auto pick = mixture->At(g);
    EXPECT_EQ(pick.index, counts[pick.part]++) << "indices of a part count up without gaps";
    const double shares[3] = {0.5, 0.3, 0.2};
    for (int k = 0; k < 3; ++k) ASSERT_NEAR(counts[k], shares[k] * (g + 1), 2.5) << g;
  }
}

TEST(MixturePattern, GivesTinyWeightsOneStepAndASinglePartEverything) {
  const auto tiny = MixturePattern::Create({8000, 1, 1});
  ASSERT_TRUE(tiny.ok());
  EXPECT_EQ(tiny->count(1), 1);
  EXPECT_EQ(tiny->count(0) + tiny->count(1) + tiny->count(2), MixturePattern::kPeriod);
  const auto single = MixturePattern::Create({3});
  ASSERT_TRUE(single.ok());
  EXPECT_EQ(single->At(1234567).index, 1234567);
  for (const auto& weights :
       {std::vector<double>{}, {1, 0}, {1, -1}, {1, std::nan("")}, {1, 1e-4}, std::vector<double>(300, 1)}) {
    EXPECT_EQ(ExitCode(MixturePattern::Create(weights).status()), kExitUsage);
  }
}

std::vector<Segment> SegmentsOf(const SequencePlan& plan, int64_t i) {
  std::vector<Segment> segments;
  plan.Segments(i, &segments);
  return segments;
}

TEST(SequencePlan, ContiguousSequencesShareTheirBoundaryToken) {
  const std::vector<int64_t> starts = {0, 7};
  const SequencePlan plan(Packing::kContiguous, starts, 21, 5);
  ASSERT_EQ(plan.size(), 4);  // tokens 0..20: 20 labels
  EXPECT_EQ(plan.unused_tokens(), 0);
  EXPECT_EQ(SequencePlan(Packing::kContiguous, starts, 20, 5).size(), 3);
  EXPECT_EQ(SequencePlan(Packing::kContiguous, starts, 20, 5).unused_tokens(), 4);
  const auto segments = SegmentsOf(plan, 3);
  ASSERT_EQ(segments.size(), 1u);
  EXPECT_EQ(segments[0].begin, 15);
  EXPECT_EQ(segments[0].length, 6);
  EXPECT_EQ(SequencePlan(Packing::kContiguous, starts, 5, 5).size(), 0);
  EXPECT_EQ(SequencePlan(Packing::kContiguous, starts, 6, 5).size(), 1);
}

TEST(SequencePlan, DocumentsThatFitAreNotCutWhileOthersCanFill) {
  // Capacity 11: 6+5, 8+3 fit whole.
  const std::vector<int64_t> starts = {0, 6, 14, 17};
  const SequencePlan plan(Packing::kDocuments, starts, 22, 10);
  ASSERT_EQ(plan.size(), 2);
  for (int64_t i = 0; i < 2; ++i) {
    const auto segments = SegmentsOf(plan, i);
    EXPECT_EQ(segments.size(), 2u);
    for (const Segment& s : segments)
      EXPECT_TRUE(std::count(starts.begin(), starts.end(), s.begin)) << s.begin;
  }
}

TEST(SequencePlan, DocumentPackingFillsEverySequenceAndLosesLessThanOne) {
  const RandomStream random(3, "test");
  for (const int64_t length : {1, 4, 31, 128}) {
    std::vector<int64_t> starts = {0};
    for (int d = 0; d < 400; ++d) {
      starts.push_back(starts.back() + 1 + static_cast<int64_t>(random.Below(d, d % 7 == 0 ? 500 : 40)));
    }
    const int64_t num_tokens = starts.back();
    starts.pop_back();
    const SequencePlan plan(Packing::kDocuments, starts, num_tokens, length);
    std::vector<int> used(num_tokens, 0);
    int64_t cuts = 0;
    for (int64_t i = 0; i < plan.size(); ++i) {
      int64_t total = 0;
      for (const Segment& s : SegmentsOf(plan, i)) {
        ASSERT_GT(s.length, 0);
        total += s.length;
        cuts += !std::binary_search(starts.begin(), starts.end(), s.begin);
        const auto next = std::upper_bound(starts.begin(), starts.end(), s.begin);
        ASSERT_LE(s.begin + s.length, next == starts.end() ? num_tokens : *next)
            << "a segment is of one document";
        for (int64_t t = s.begin; t < s.begin + s.length; ++t) ++used[t];
      }
      ASSERT_EQ(total, length + 1);
    }
    EXPECT_LT(std::count(used.begin(), used.end(), 0), length + 1) << length;
    // The rest of a cut document begins with a token that the slice before it has too.
    EXPECT_GE(plan.unused_tokens(), std::count(used.begin(), used.end(), 0)) << length;
    EXPECT_LT(plan.unused_tokens(), length + 1) << length;
    EXPECT_LE(*std::max_element(used.begin(), used.end()), 2);
    // Contiguous slices cut at nearly every boundary; packing does so for long documents and few others.
    int64_t unavoidable = 0;
    for (size_t d = 0; d < starts.size(); ++d) {
      const int64_t tokens = (d + 1 < starts.size() ? starts[d + 1] : num_tokens) - starts[d];
      unavoidable += std::max<int64_t>(0, (tokens - 2) / length);
    }
    EXPECT_LE(cuts, unavoidable + plan.size() / 4 + 2) << length;
  }
}

TEST(FimCuts, AreAFunctionOfSeedAndDocumentAtTheGivenRate) {
  int chosen = 0;
  double middle = 0;
  for (int64_t d = 0; d < 5000; ++d) {
    const auto cuts = ChooseFimCuts(11, d, 0.3, 100), again = ChooseFimCuts(11, d, 0.3, 100);
    ASSERT_EQ(cuts.has_value(), again.has_value());
    if (!cuts) continue;
    ++chosen;
    EXPECT_EQ(cuts->middle_begin, again->middle_begin);
    EXPECT_GE(cuts->middle_begin, 0);
    EXPECT_LE(cuts->middle_begin, cuts->middle_end);
    EXPECT_LE(cuts->middle_end, 100);
    middle += static_cast<double>(cuts->middle_end - cuts->middle_begin);
  }
  EXPECT_NEAR(chosen, 1500, 120);
  EXPECT_NEAR(middle / chosen, 33.3, 2) << "two uniform points lie a third apart";
  EXPECT_FALSE(ChooseFimCuts(11, 0, 1.0, 0));
  EXPECT_FALSE(ChooseFimCuts(11, 0, 0.0, 10));
}

}  // namespace
}  // namespace moebius
