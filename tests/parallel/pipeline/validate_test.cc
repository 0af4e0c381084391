#include "parallel/pipeline/validate.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "parallel/pipeline/lower.h"
#include "parallel/pipeline/schedule_text.h"
#include "tests/parallel/pipeline/pipelines.h"

namespace moebius {
namespace {

// The verdict on a hand-written schedule of two ranks, two stages and two microbatches.
std::string Verdict(const std::string& rank0, const std::string& rank1) {
  const auto schedule = ScheduleFromText(
      "schedule mine\nranks 2\nstages 2\nmicrobatches 2\nholders 0 1\n0: " + rank0 + "\n1: " + rank1 + "\n",
      "text");
  if (!schedule.ok()) return std::string(schedule.status().message());
  const absl::Status status = Validate(*schedule);
  return status.ok() ? "valid" : std::string(status.message());
}

TEST(ValidateTest, AHandWrittenScheduleIsAcceptedOrRefusedWithRankPositionAndReason) {
  const std::string good0 = "F0.0 F0.1 B0.0 I0.1 W0.1", good1 = "F1.0 B1.0 F1.1 B1.1";
  EXPECT_EQ(Verdict(good0, good1), "valid");
  EXPECT_EQ(Verdict("F0.0 F0.1 B0.0 (F0.1|B0.1)", good1),
            "schedule mine: rank 0, action 3 ((F0.1|B0.1)): OVERLAP pairs two different microbatches");
  EXPECT_EQ(Verdict("F0.0 F0.1 F0.0 B0.0 B0.1", good1),
            "schedule mine: rank 0, action 2 (F0.0): again; the first is action 0");
  EXPECT_EQ(Verdict("F0.0 F1.1 B0.0 B0.1", good1),
            "schedule mine: rank 0, action 1 (F1.1): stage 1 of microbatch 1 is held by rank 1");
  EXPECT_EQ(Verdict("F0.0 B0.0 B0.1 F0.1", good1),
            "schedule mine: rank 0, action 2 (B0.1): F0.1 must come before it");
  EXPECT_EQ(Verdict("F0.0 F0.1 B0.0 W0.1 I0.1", good1),
            "schedule mine: rank 0, action 3 (W0.1): I0.1 must come before it");
  EXPECT_EQ(Verdict("F0.0 F0.1 B0.0 I0.1", good1), "schedule mine: rank 0 lacks W0.1");
  EXPECT_EQ(Verdict("F0.0 F0.1 B0.0 W0.0 B0.1", good1),
            "schedule mine: rank 0, action 3 (W0.0): again; the first is action 2");
  EXPECT_EQ(Verdict(good0, ""), "schedule mine: rank 1 lacks F1.0");
}

TEST(ValidateTest, RanksThatWaitForEachOtherAreRefused) {
  EXPECT_EQ(Verdict("F0.0 B0.0 F0.1 B0.1", "F1.0 F1.1 B1.0 B1.1"),
            "schedule mine deadlocks: rank 0 stops at action 1 (B0.0), which waits for B1.0, action 2 of "
            "rank 1; rank "
            "1 stops at action 1 (F1.1), which waits for F0.1, action 2 of rank 0");
}

TEST(ValidateTest, ASendBehindAnActionThatWaitsForItsAnswerIsRefused) {
  EXPECT_EQ(
      Verdict("F0.0 RECV_B0.0<1 B0.0 SEND_F0.0>1 F0.1 SEND_F0.1>1 RECV_B0.1<1 B0.1 REDUCE_GRAD0 OPTIMIZE",
              "RECV_F1.0<0 F1.0 B1.0 SEND_B1.0>0 RECV_F1.1<0 F1.1 B1.1 SEND_B1.1>0 REDUCE_GRAD1 OPTIMIZE"),
      "schedule mine deadlocks: rank 0 stops at action 2 (B0.0), which waits for SEND_B1.0>0, action 3 of "
      "rank "
      "1; rank 1 stops at action 1 (F1.0), which waits for SEND_F0.0>1, action 3 of rank 0");
}

TEST(ValidateTest, AVWhoseTurnIsOutOfOrderIsRefused) {
  const auto schedule = ScheduleFromText(
      "schedule v\nranks 1\nstages 2\nmicrobatches 1\nholders 0 0\n0: F1.0 F0.0 B1.0 B0.0\n", "text");
  EXPECT_EQ(
      Validate(*schedule).message(),
      "schedule v deadlocks: rank 0 stops at action 0 (F1.0), which waits for F0.0, later in its own list "
      "(action 1)");
}

TEST(ValidateTest, HandWrittenCommunicationIsChecked) {
  const std::string good0 =
      "F0.0 SEND_F0.0>1 F0.1 SEND_F0.1>1 RECV_B0.0<1 B0.0 RECV_B0.1<1 B0.1 REDUCE_GRAD0 OPTIMIZE";
  const std::string good1 =
      "RECV_F1.0<0 F1.0 B1.0 SEND_B1.0>0 RECV_F1.1<0 F1.1 B1.1 SEND_B1.1>0 REDUCE_GRAD1 OPTIMIZE UPDATE_BIAS";
  EXPECT_EQ(Verdict(good0, good1), "valid");
  const auto without = [](std::string text, const std::string& part, const std::string& instead = "") {
    const size_t at = text.find(part);
    EXPECT_NE(at, std::string::npos) << part;
    return text.replace(at, part.size(), instead);
  };
  EXPECT_EQ(Verdict(without(good0, "SEND_F0.1>1 "), good1), "schedule mine: rank 0 lacks SEND_F0.1>1");
  EXPECT_EQ(Verdict(good0, without(good1, "RECV_F1.1<0 ")), "schedule mine: rank 1 lacks RECV_F1.1<0");
  EXPECT_EQ(
      Verdict(without(good0, "F0.1 SEND_F0.1>1", "SEND_F0.1>1 F0.1"), good1),
      "schedule mine: rank 0, action 2 (SEND_F0.1>1): it comes before the action that produces the tensor");
  EXPECT_EQ(Verdict(good0, without(good1, "RECV_F1.1<0 F1.1", "F1.1 RECV_F1.1<0")),
            "schedule mine: rank 1, action 5 (RECV_F1.1<0): it comes after the action that needs the tensor");
  EXPECT_EQ(Verdict(without(good0, "F0.0>1", "F0.0>0"), good1),
            "schedule mine: rank 0, action 1 (SEND_F0.0>0): its peer is rank 1");
  EXPECT_EQ(Verdict(without(good0, "F0.0 ", "F0.0 SEND_B0.0>1 "), good1),
            "schedule mine: rank 0, action 1 (SEND_B0.0>1): there is no tensor to pass to another rank here");
  EXPECT_EQ(Verdict(good0, without(good1, "B1.0 SEND_B1.0>0", "I1.0 SEND_B1.0>0 W1.0")), "valid");
  EXPECT_EQ(
      Verdict(good0, without(good1, "B1.0 SEND_B1.0>0", "I1.0 W1.0 SEND_B1.0>0")),
      "schedule mine: rank 1, action 4 (SEND_B1.0>0): it comes after W1.0 at 3, which frees the tensor");
  EXPECT_EQ(Verdict(without(good0, "REDUCE_GRAD0 "), good1), "schedule mine: rank 0 lacks REDUCE_GRAD0");
  EXPECT_EQ(Verdict(without(good0, " OPTIMIZE"), good1), "schedule mine: rank 0 lacks OPTIMIZE");
  EXPECT_EQ(Verdict(without(good0, "REDUCE_GRAD0 OPTIMIZE", "OPTIMIZE REDUCE_GRAD0"), good1),
            "schedule mine: rank 0, action 9 (REDUCE_GRAD0): nothing but UPDATE_BIAS may follow OPTIMIZE");
  EXPECT_EQ(Verdict(without(good0, "B0.1 REDUCE_GRAD0", "REDUCE_GRAD0 B0.1"), good1),
            "schedule mine: rank 0, action 8 (B0.1): it comes after REDUCE_GRAD0 at 7");
  EXPECT_EQ(Verdict(without(good0, "REDUCE_GRAD0", "REDUCE_GRAD0 REDUCE_GRAD1"), good1),
            "schedule mine: rank 0, action 9 (REDUCE_GRAD1): rank 0 does not hold stage 1");
  EXPECT_EQ(Verdict(without(good0, "REDUCE_GRAD0", "REDUCE_GRAD0 REDUCE_TIED"), good1),
            "schedule mine deadlocks: rank 0 stops at action 10 (OPTIMIZE), which waits for a reduction that "
            "rank 1 "
            "never posts");
}

TEST(ValidateTest, ReductionsInDifferentOrdersOnTheirHoldersAreRefused) {
  Schedule schedule = *Lower(Generate("dualpipe", 2, 4));
  std::vector<Action>& list = schedule.actions[1];
  for (size_t i = 0; i + 1 < list.size(); ++i) {
    if (list[i].kind == ActionKind::kReduceGrad && list[i + 1].kind == ActionKind::kReduceGrad) {
      std::swap(list[i], list[i + 1]);
      break;
    }
  }
  const std::string message(Validate(schedule).message());
  EXPECT_NE(message.find("reductions are out of order: rank 0 posts REDUCE_GRAD0"), std::string::npos)
      << message;
}

// Mesh groups replicas by all that a rank holds.
TEST(ValidateTest, RanksThatShareAStageShareAll) {
  const auto verdict = [](const std::string& holders) {
    const auto schedule = ScheduleFromText(
        "schedule mine\nranks 3\nstages 3\nmicrobatches 2\n" + holders + "0:\n1:\n2:\n", "text");
    const absl::Status status = schedule.ok() ? Validate(*schedule) : schedule.status();
    return std::string(status.message());
  };
  EXPECT_EQ(
      verdict("holders 0 1 2\nholders 1 2 0\n"),
      "schedule mine: ranks 0 and 1 both hold stage 0, but not the same stages; ranks that share a stage "
      "must share all; let the second line of holders mirror the first");
  EXPECT_EQ(verdict("holders 0 1 2\nholders 2 1 0\n").find("must share all"), std::string::npos);
  EXPECT_EQ(verdict("holders 0 2 0\n"),
            "schedule mine: rank 1 holds no stage and would only wait; leave it out or give it one in "
            "`holders`");
}

// Two ranks hold stages 0 and 1, and end their weight gradients in different orders: the table that first and
// last stage share is reduced after everything else on both, or they would wait for each other.
// The later stage reads the earlier one's output where it lies.
TEST(ValidateTest, AStageIsFreedAfterTheOneOnItsRankThatReadsIt) {
  const auto said = [](const std::string& actions) {
    const auto schedule = ScheduleFromText(
        "schedule mine\nranks 1\nstages 2\nmicrobatches 1\nholders 0 0\n0: " + actions, "text");
    EXPECT_TRUE(schedule.ok()) << schedule.status();
    return std::string(Validate(*schedule).message());
  };
  EXPECT_EQ(said("F0.0 F1.0 I1.0 I0.0 W1.0 W0.0"), "");
  EXPECT_EQ(said("F0.0 F1.0 B1.0 B0.0"), "");
  EXPECT_EQ(said("F0.0 F1.0 I1.0 I0.0 W0.0 W1.0"),
            "schedule mine: rank 0, action 4 (W0.0): W1.0 must come before it: what that stage reads is "
            "freed here");
  EXPECT_NE(said("F0.0 F1.0 I1.0 B0.0 W1.0").find("W1.0 must come before it"), std::string::npos);
}

TEST(ValidateTest, ReplicasReduceTheSharedTableLast) {
  const auto schedule = ScheduleFromText(
      "schedule mine\nranks 4\nstages 4\nmicrobatches 2\nholders 0 0 1 1\nholders 2 2 3 3\n"
      "0: F0.0 F1.0 I1.0 W1.0 I0.0 W0.0\n1: F2.0 F3.0 I3.0 I2.0 W3.0 W2.0\n"
      "2: F0.1 F1.1 I1.1 I0.1 W1.1 W0.1\n3: F2.1 F3.1 I3.1 I2.1 W3.1 W2.1\n",
      "text");
  ASSERT_TRUE(schedule.ok()) << schedule.status();
  ASSERT_TRUE(Validate(*schedule).ok()) << Validate(*schedule);
  absl::StatusOr<Schedule> made = Lower(*schedule, {.shared_embedding = true});
  ASSERT_TRUE(made.ok()) << made.status();
  Schedule lowered = *std::move(made);
  ASSERT_TRUE(Validate(lowered).ok()) << Validate(lowered);
  for (const std::vector<Action>& actions : lowered.actions) {
    int after = -1;
    for (const Action& action : actions) {
      if (action.kind == ActionKind::kReduceTied) after = 0;
      if (action.kind == ActionKind::kReduceGrad && after >= 0) ++after;
    }
    EXPECT_LE(after, 0);
  }
  // By hand: the table before a stage that has replicas.
  for (std::vector<Action>& actions : lowered.actions) {
    const auto is = [](ActionKind kind) { return [kind](const Action& a) { return a.kind == kind; }; };
    const auto table = std::find_if(actions.begin(), actions.end(), is(ActionKind::kReduceTied));
    if (table == actions.end()) continue;
    const auto reduce = std::find_if(actions.begin(), actions.end(), is(ActionKind::kReduceGrad));
    ASSERT_LT(reduce, table);
    std::iter_swap(reduce, table);
  }
  EXPECT_NE(std::string(Validate(lowered).message()).find("it comes after REDUCE_TIED"), std::string::npos)
      << Validate(lowered);
}

TEST(ValidateTest, ShapesThatDoNotFitAreRefusedBeforeAnythingIsRead) {
  Schedule schedule = Generate("1f1b", 2, 2);
  const auto message = [](Schedule broken) { return std::string(Validate(broken).message()); };
  Schedule broken = schedule;
  broken.microbatches = 0;
  EXPECT_EQ(message(broken), "schedule 1f1b: microbatches is 0, not 1 to 65536");
  broken = schedule;
  broken.holders[0][1] = 2;
  EXPECT_EQ(message(broken), "schedule 1f1b: holder 2 is not a rank of 2");
  broken = schedule;
  broken.holders[0].pop_back();
  EXPECT_EQ(message(broken), "schedule 1f1b: 1 holders for 2 stages");
  broken = schedule;
  broken.actions.pop_back();
  EXPECT_EQ(message(broken), "schedule 1f1b: 1 lists of actions for 2 ranks");
  broken = schedule;
  broken.actions[0][0].stage = 5;
  EXPECT_EQ(message(broken),
            "schedule 1f1b: rank 0, action 0 (F5.0): there is no stage 5; stages are 0 to 1");
  broken = schedule;
  broken.actions[0][0].microbatch = -1;
  EXPECT_EQ(message(broken),
            "schedule 1f1b: rank 0, action 0 (F0.-1): there is no microbatch -1; they are 0 to 1");
}

}  // namespace
}  // namespace moebius
