#include "parallel/pipeline/generate.h"

#include <gtest/gtest.h>

#include <string>

#include "parallel/pipeline/validate.h"
#include "tests/parallel/pipeline/pipelines.h"

namespace moebius {
namespace {

std::string Refusal(const ScheduleSpec& spec) {
  const auto schedule = GenerateSchedule(spec);
  return schedule.ok() ? "accepted" : std::string(schedule.status().message());
}

TEST(GenerateTest, EveryScheduleUpTo16RanksAnd64MicrobatchesIsCompleteAndRunsToItsEnd) {
  int accepted = 0;
  for (const std::string& name : ScheduleNames()) {
    for (int ranks = 1; ranks <= 16; ++ranks) {
      for (int microbatches = 1; microbatches <= 64; ++microbatches) {
        const auto schedule = GenerateSchedule({.name = name, .ranks = ranks, .microbatches = microbatches});
        if (!schedule.ok()) continue;
        ++accepted;
        const absl::Status status = Validate(*schedule);
        ASSERT_TRUE(status.ok()) << name << " " << ranks << " x " << microbatches << ": " << status;
      }
    }
  }
  // Nothing that the table of generate.h calls valid was refused.
  int interleaved = 0, dualpipe = 0, dualpipev = 0;
  for (int ranks = 1; ranks <= 16; ++ranks) {
    for (int m = 1; m <= 64; ++m) {
      interleaved += m < ranks || m % (m / ranks) == 0;
      dualpipe += ranks % 2 == 0 && m % 2 == 0 && m >= 2 * ranks;
      dualpipev += m >= 2 * ranks;
    }
  }
  EXPECT_EQ(accepted, 4 * 1024 + interleaved + dualpipe + dualpipev);
}

TEST(GenerateTest, InterleavedRunsWithAnyNumberOfChunks) {
  for (int chunks = 1; chunks <= 5; ++chunks) {
    for (int ranks = 1; ranks <= 8; ++ranks) {
      for (int microbatches : {1, 2, ranks, ranks + 1, 2 * ranks, 4 * ranks}) {
        if (microbatches >= ranks && microbatches % (microbatches / ranks) != 0) continue;
        const absl::Status status = Validate(Generate("interleaved", ranks, microbatches, chunks));
        ASSERT_TRUE(status.ok()) << chunks << " " << ranks << " " << microbatches << ": " << status;
      }
    }
  }
}

TEST(GenerateTest, GPipeRunsAllForwardsBeforeTheFirstBackward) {
  EXPECT_EQ(Line(Generate("gpipe", 2, 3), 1), "F1.0 F1.1 F1.2 B1.0 B1.1 B1.2");
}

TEST(GenerateTest, OneFOneBRunsAheadByTheRanksBelow) {
  const Schedule schedule = Generate("1f1b", 3, 4);
  EXPECT_EQ(Line(schedule, 0), "F0.0 F0.1 F0.2 B0.0 F0.3 B0.1 B0.2 B0.3");
  EXPECT_EQ(Line(schedule, 1), "F1.0 F1.1 B1.0 F1.2 B1.1 F1.3 B1.2 B1.3");
  EXPECT_EQ(Line(schedule, 2), "F2.0 B2.0 F2.1 B2.1 F2.2 B2.2 F2.3 B2.3");
}

TEST(GenerateTest, InterleavedAlternatesChunksByRounds) {
  // Two ranks with stages 0, 2 and 1, 3; rounds of two microbatches.
  EXPECT_EQ(Line(Generate("interleaved", 2, 4), 0),
            "F0.0 F0.1 F2.0 F2.1 F0.2 B2.0 F0.3 B2.1 F2.2 B0.0 F2.3 B0.1 B2.2 B2.3 B0.2 B0.3");
}

TEST(GenerateTest, ZeroBubbleH1DelaysWeightsByTheRank) {
  const Schedule schedule = Generate("zb_h1", 3, 4);
  EXPECT_EQ(Line(schedule, 0), "F0.0 F0.1 F0.2 I0.0 W0.0 F0.3 I0.1 W0.1 I0.2 W0.2 I0.3 W0.3");
  EXPECT_EQ(Line(schedule, 2), "F2.0 I2.0 F2.1 I2.1 F2.2 I2.2 W2.0 F2.3 I2.3 W2.1 W2.2 W2.3");
}

TEST(GenerateTest, ZeroBubbleVTurnsOnTheLastRank) {
  const Schedule schedule = Generate("zbv", 2, 3);
  EXPECT_EQ(schedule.holders, (std::vector<std::vector<int>>{{0, 1, 1, 0}}));
  EXPECT_EQ(Line(schedule, 1),
            "F1.0 F2.0 F1.1 F2.1 I2.0 W2.0 F1.2 I1.0 W1.0 F2.2 I2.1 W2.1 I1.1 I2.2 I1.2 W1.1 W2.2 W1.2");
}

// The phases of the DualPipe repository, written out: rank 0 of 4 with 8 microbatches has n = 4, h = 2, k =
// 0.
TEST(GenerateTest, DualPipeFollowsThePublishedPhases) {
  const Schedule schedule = Generate("dualpipe", 4, 8);
  EXPECT_EQ(schedule.holders, (std::vector<std::vector<int>>{{0, 1, 2, 3}, {3, 2, 1, 0}}));
  EXPECT_EQ(Line(schedule, 0),
            "F0.0 F0.1 "                // 1: 2(h-k-1) F0
            "F0.2 F3.4 "                // 2: k+1 times F0 F1
            "I3.4 W3.4 F3.5 "           // 3: h-k-1 times B1 with W deferred, W, F1
            "(F0.3|B3.5) (F3.6|B0.0) "  // 4: n-PP+k+1 times F0&B1, F1&B0
            "B3.6 (F3.7|B0.1) "         // 5: h-k-1 times B1, F1&B0
            "B3.7 I0.2 "                // 6: k+1 times B1 B0, second half deferred
            "W0.2 I0.3 "                // 7: h-k-1 times W, B0 deferred
            "W0.3");                    // 8: k+1 W
  // A middle rank does not overlap its first pair.
  EXPECT_EQ(
      Line(schedule, 1),
      "F1.0 F2.4 F1.1 F2.5 F1.2 B2.4 (F2.6|B1.0) (F1.3|B2.5) (F2.7|B1.1) B2.6 B1.2 I2.7 I1.3 W2.7 W1.3");
  // The other end sees the same in a mirror.
  EXPECT_EQ(
      Line(schedule, 3),
      "F0.4 F0.5 F0.6 F3.0 I3.0 W3.0 F3.1 (F0.7|B3.1) (F3.2|B0.4) B3.2 (F3.3|B0.5) B3.3 I0.6 W0.6 I0.7 W0.7");
}

TEST(GenerateTest, DualPipeVIsDualPipeFoldedAtTheLastRank) {
  const Schedule schedule = Generate("dualpipev", 2, 4);
  EXPECT_EQ(schedule.holders, (std::vector<std::vector<int>>{{0, 1, 1, 0}}));
  EXPECT_EQ(
      Line(schedule, 0),
      "F0.0 F0.1 F0.2 F3.0 I3.0 W3.0 F3.1 (F0.3|B3.1) (F3.2|B0.0) B3.2 (F3.3|B0.1) B3.3 I0.2 W0.2 I0.3 W0.3");
  EXPECT_EQ(
      Line(schedule, 1),
      "F1.0 F2.0 F1.1 F2.1 F1.2 B2.0 (F2.2|B1.0) (F1.3|B2.1) (F2.3|B1.1) B2.2 B1.2 I2.3 I1.3 W2.3 W1.3");
}

TEST(GenerateTest, UnknownNamesAndNumbersThatDoNotFitNameTheNearestValidOnes) {
  EXPECT_EQ(Refusal({.name = "dualpip"}),
            "there is no schedule \"dualpip\"; did you mean dualpipe? choose one of gpipe, 1f1b, "
            "interleaved, zb_h1, "
            "zbv, dualpipe, dualpipev");
  EXPECT_EQ(Refusal({.name = "interleaved", .ranks = 4, .microbatches = 9}),
            "schedule interleaved on 4 pipeline ranks needs microbatches in rounds of equal size, at least 4 "
            "each; 9 "
            "do not divide; choose 8 or 10");
  EXPECT_EQ(
      Refusal({.name = "dualpipe", .ranks = 3, .microbatches = 8}),
      "schedule dualpipe on 3 pipeline ranks needs an even number of them; choose 2 or 4, or dualpipev");
  EXPECT_EQ(Refusal({.name = "dualpipe", .ranks = 4, .microbatches = 9}),
            "schedule dualpipe on 4 pipeline ranks needs an even number of microbatches, half from each end, "
            "not 9; "
            "choose 8 or 10");
  EXPECT_EQ(Refusal({.name = "dualpipev", .ranks = 4, .microbatches = 7}),
            "schedule dualpipev on 4 pipeline ranks needs at least 8 microbatches, not 7; choose 8, or 1f1b");
  EXPECT_EQ(Refusal({.name = "1f1b", .ranks = 0}), "the number of pipeline ranks is 0; choose 1 to 256");
  EXPECT_EQ(Refusal({.name = "1f1b", .microbatches = 1 << 20}),
            "the number of microbatches is 1048576; choose 1 to 65536");
  EXPECT_EQ(Refusal({.name = "interleaved", .ranks = 2, .microbatches = 2, .chunks = 0}),
            "the number of chunks a rank is 0; choose 1 to 8192");
}

}  // namespace
}  // namespace moebius
