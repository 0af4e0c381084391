#include "parallel/pipeline/lower.h"

#include <gtest/gtest.h>

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "parallel/pipeline/validate.h"
#include "tests/parallel/pipeline/pipelines.h"

namespace moebius {
namespace {

Schedule Lowered(const Schedule& compute, const LowerOptions& options = {}) {
  auto lowered = Lower(compute, options);
  if (lowered.ok()) return *std::move(lowered);
  ADD_FAILURE() << lowered.status();
  return {};
}

bool IsSend(ActionKind kind) { return kind == ActionKind::kSendForward || kind == ActionKind::kSendBackward; }
bool IsRecv(ActionKind kind) { return kind == ActionKind::kRecvForward || kind == ActionKind::kRecvBackward; }

TEST(LowerTest, SendsFollowTheirProducerAndReceivesComeOneActionEarly) {
  const Schedule lowered = Lowered(Generate("1f1b", 2, 3));
  EXPECT_EQ(
      Line(lowered, 0),
      "F0.0 SEND_F0.0>1 RECV_B0.0<1 F0.1 SEND_F0.1>1 B0.0 RECV_B0.1<1 F0.2 SEND_F0.2>1 RECV_B0.2<1 B0.1 B0.2 "
      "REDUCE_GRAD0 OPTIMIZE UPDATE_BIAS");
  EXPECT_EQ(
      Line(lowered, 1),
      "RECV_F1.0<0 F1.0 RECV_F1.1<0 B1.0 SEND_B1.0>0 F1.1 RECV_F1.2<0 B1.1 SEND_B1.1>0 F1.2 B1.2 SEND_B1.2>0 "
      "REDUCE_GRAD1 OPTIMIZE UPDATE_BIAS");
}

TEST(LowerTest, TheTurnOfTheVNeedsNoMessage) {
  // Rank 1 holds stages 1 and 2.
  const std::string line = Line(Lowered(Generate("zbv", 2, 2)), 1);
  EXPECT_EQ(line.find("SEND_F1"), std::string::npos) << line;
  EXPECT_EQ(line.find("RECV_F2"), std::string::npos) << line;
  EXPECT_NE(line.find("SEND_F2.0>0"), std::string::npos) << line;
  const Schedule alone = Lowered(Generate("dualpipev", 1, 4));
  for (const Action& action : alone.actions[0]) {
    EXPECT_FALSE(IsSend(action.kind) || IsRecv(action.kind)) << ToText(action);
  }
}

TEST(LowerTest, BothSidesOfEveryPairOfRanksSeeMessagesInOneOrder) {
  for (const std::string& name : ScheduleNames()) {
    for (int ahead : {0, 1, 4}) {
      const Schedule lowered = Lowered(Generate(name, 4, 12), {.receive_ahead = ahead});
      std::map<std::pair<int, int>, std::vector<std::pair<int, int>>> sent,
          received;  // (stage sent, microbatch)
      for (int rank = 0; rank < lowered.ranks; ++rank) {
        for (const Action& action : lowered.actions[rank]) {
          if (IsSend(action.kind)) sent[{rank, action.peer}].push_back({action.stage, action.microbatch});
          if (!IsRecv(action.kind)) continue;
          const int from = action.kind == ActionKind::kRecvForward ? action.stage - 1 : action.stage + 1;
          received[{action.peer, rank}].push_back({from, action.microbatch});
        }
      }
      EXPECT_EQ(sent, received) << name;
      EXPECT_FALSE(sent.empty());
      EXPECT_TRUE(Validate(lowered).ok()) << Validate(lowered);
    }
  }
}

TEST(LowerTest, ReceivingEarlyHidesTransfersBehindCompute) {
  PipelineCosts costs = Equal(2, 2, 2);
  costs.transfer_time = 1;
  const auto makespan = [&](int ahead) {
    return Simulated(Lowered(Generate("dualpipev", 4, 16), {.receive_ahead = ahead}), costs).makespan;
  };
  EXPECT_LT(makespan(1), makespan(0));
}

TEST(LowerTest, GradientsOfAStageAreReducedWhileOthersAreStillInBackward) {
  const std::string line = Line(Lowered(Generate("zbv", 2, 3)), 0);
  const size_t reduce = line.find("REDUCE_GRAD3"), last = line.rfind("W0.2");
  EXPECT_LT(reduce, last) << line;
  EXPECT_GT(reduce, line.find("W3.2")) << line;
}

TEST(LowerTest, HoldersOfTheSameStagesReduceThemInOneOrder) {
  for (int rank : {0, 1}) {
    const Schedule lowered = Lowered(Generate("dualpipe", 2, 8), {.shared_embedding = true});
    EXPECT_NE(Line(lowered, rank).find("REDUCE_GRAD0 REDUCE_GRAD1 REDUCE_TIED OPTIMIZE"), std::string::npos)
        << Line(lowered, rank);
  }
  EXPECT_EQ(Generate("dualpipe", 4, 8).HoldersOf(1), (std::vector<int>{1, 2}));
}

TEST(LowerTest, SharedEmbeddingIsReducedOnceByTheHoldersOfFirstAndLastStage) {
  const LowerOptions shared = {.shared_embedding = true};
  const Schedule pipeline = Lowered(Generate("1f1b", 3, 4), shared);
  EXPECT_EQ(pipeline.TiedHolders(), (std::vector<int>{0, 2}));
  EXPECT_NE(Line(pipeline, 0).find("REDUCE_GRAD0 REDUCE_TIED OPTIMIZE"), std::string::npos);
  EXPECT_EQ(Line(pipeline, 1).find("REDUCE_TIED"), std::string::npos);
  EXPECT_NE(Line(pipeline, 2).find("REDUCE_TIED"), std::string::npos);
  // In a V both ends lie on rank 0, which has one copy: reduced over the data ranks after both stages.
  const Schedule v = Lowered(Generate("zbv", 2, 3), shared);
  EXPECT_EQ(v.TiedHolders(), (std::vector<int>{0}));
  EXPECT_GT(Line(v, 0).find("REDUCE_TIED"), Line(v, 0).rfind("W0.2"));
  EXPECT_EQ(Line(Lowered(Generate("1f1b", 1, 2), shared), 0).find("REDUCE_TIED"), std::string::npos);
  for (const Schedule& schedule : {pipeline, v}) EXPECT_TRUE(Validate(schedule).ok()) << Validate(schedule);
}

TEST(LowerTest, ALoweredScheduleIsNotLoweredAgain) {
  const auto again = Lower(Lowered(Generate("1f1b", 2, 2)));
  EXPECT_EQ(again.status().message(),
            "schedule 1f1b has communication already; it can be run as it is, or lowered without it");
}

}  // namespace
}  // namespace moebius
