#include "parallel/pipeline/simulate.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <map>
#include <random>
#include <string>
#include <tuple>
#include <vector>

#include "parallel/pipeline/bubble.h"
#include "tests/parallel/pipeline/pipelines.h"

namespace moebius {
namespace {

double WorstIdle(const Schedule& schedule, const PipelineCosts& costs) {
  return Simulated(schedule, costs).worst_idle();
}

double Peak(const Simulation& run) {
  double peak = 0;
  for (const RankFigures& rank : run.ranks) peak = std::max(peak, rank.peak_activations);
  return peak;
}

std::string Failure(const Schedule& schedule, const PipelineCosts& costs = {}) {
  const auto run = Simulate(schedule, costs);
  return run.ok() ? "runs" : std::string(run.status().message());
}

// Bar d. Whole numbers: equality is exact.
TEST(SimulateTest, GPipeAnd1F1BIdleForPublishedTimeAtAnyCosts) {
  for (const char* name : {"gpipe", "1f1b"}) {
    for (int ranks : {1, 2, 3, 4, 8, 16}) {
      for (int microbatches : {1, 3, 8, 32}) {
        for (const auto& [f, i, w] : {std::array{1, 1, 1}, {2, 5, 3}, {7, 1, 2}, {1, 3, 9}}) {
          const Simulation run = Simulated(Generate(name, ranks, microbatches), Equal(f, i, w));
          EXPECT_EQ(run.worst_idle(), (ranks - 1) * (f + i + w)) << name << ranks << " " << microbatches;
          EXPECT_EQ(run.makespan, (microbatches + ranks - 1) * (f + i + w));
        }
      }
    }
  }
}

TEST(SimulateTest, InterleavedDividesTheBubbleByTheChunks) {
  for (int chunks : {1, 2, 3, 4}) {
    for (int ranks : {2, 4, 8}) {
      for (const auto& [f, i, w] : {std::array{1, 1, 1}, {2, 5, 3}, {7, 1, 2}}) {
        const Schedule schedule = Generate("interleaved", ranks, 3 * ranks, chunks);
        const int rank_f = f * chunks, rank_b = (i + w) * chunks;  // of all stages of a rank
        EXPECT_EQ(WorstIdle(schedule, Equal(f, i, w)) * chunks, (ranks - 1) * (rank_f + rank_b));
      }
    }
  }
}

TEST(SimulateTest, ZeroBubbleH1IdlesForPublishedTimeWhileWeightsCostNoMoreThanFOrI) {
  for (int ranks : {1, 2, 4, 8, 16}) {
    for (int microbatches : {ranks, 2 * ranks, 4 * ranks + 1}) {
      for (const auto& [f, i, w] : {std::array{1, 1, 1}, {3, 2, 1}, {2, 3, 2}, {5, 7, 4}}) {
        EXPECT_EQ(WorstIdle(Generate("zb_h1", ranks, microbatches), Equal(f, i, w)),
                  (ranks - 1) * (f + i + w - 2 * w))
            << ranks << " " << microbatches << " " << f << i << w;
      }
    }
  }
}

TEST(SimulateTest, DualPipeAndDualPipeVIdleForPublishedTimeOnTheWorstRank) {
  for (int pp : {2, 4, 6, 8, 12, 16}) {
    for (const int f : {1, 4}) {  // F = I = W
      for (const double pair : {2.0 * f, 2.5 * f, 3.0 * f}) {
        const double published = (pp / 2 - 1) * (pair + 2 * f - 3 * f);
        for (int extra : {0, 2, 10}) {
          EXPECT_EQ(WorstIdle(Generate("dualpipe", pp, 2 * pp + extra), Equal(f, f, f, pair)), published);
          EXPECT_EQ(WorstIdle(Generate("dualpipev", pp / 2, pp + extra), Equal(f, f, f, pair)), published);
        }
      }
    }
  }
}

TEST(SimulateTest, ZeroBubbleVNeverWaitsInsideARankAtEqualTimes) {
  for (int ranks : {1, 2, 4, 8}) {
    const Simulation run = Simulated(Generate("zbv", ranks, 3 * ranks), Equal(2, 2, 2));
    for (const RankFigures& rank : run.ranks) EXPECT_EQ(rank.idle_inside, 0);
    EXPECT_EQ(run.worst_idle(), (ranks - 1) * 2);
  }
}

TEST(SimulateTest, PublishedFormulaIsExactWhereItSaysSoAndShownBesideOtherwise) {
  int exact = 0, inexact = 0, different = 0;
  for (const std::string& name : ScheduleNames()) {
    for (int ranks : {2, 4, 6}) {
      for (int microbatches : {5, 12, 18}) {
        const auto schedule = GenerateSchedule({.name = name, .ranks = ranks, .microbatches = microbatches});
        if (!schedule.ok()) continue;
        for (const auto& [f, i, w] : {std::array{1, 1, 1}, {2, 2, 1}, {3, 3, 2}, {1, 2, 4}, {4, 1, 2}}) {
          for (const double pair : {-1.0, static_cast<double>(f + i)}) {
            const PipelineCosts costs = Equal(f, i, w, pair);
            const auto formula = PublishedBubble(*schedule, costs);
            ASSERT_TRUE(formula.has_value());
            const double idle = WorstIdle(*schedule, costs);
            exact += formula->exact;
            inexact += !formula->exact;
            different += idle != formula->value;
            if (formula->exact) {
              EXPECT_EQ(idle, formula->value)
                  << name << " " << ranks << " " << microbatches << " " << f << i << w;
            }
          }
        }
      }
    }
  }
  EXPECT_GT(exact, 200);
  EXPECT_GT(inexact, different / 2);
  EXPECT_GT(different, 50);
  Schedule own = Generate("1f1b", 2, 2);
  own.name = "mine";
  EXPECT_FALSE(PublishedBubble(own, {}).has_value());
  PipelineCosts slow_links;
  slow_links.transfer_time = 1;
  EXPECT_FALSE(PublishedBubble(Generate("1f1b", 2, 2), slow_links)->exact);
}

// DeepSeek-V3's table; PP counts stages, for DualPipeV on PP/2 ranks.
TEST(SimulateTest, ParametersAndPeakActivationsAreThoseOfThePublishedTable) {
  for (int pp : {4, 8, 16}) {
    const Simulation one_f_one_b = Simulated(Generate("1f1b", pp, 4 * pp));
    const Simulation zero_bubble = Simulated(Generate("zb_h1", pp, 4 * pp));
    const Simulation dualpipe = Simulated(Generate("dualpipe", pp, 4 * pp));
    const Simulation dualpipev = Simulated(Generate("dualpipev", pp / 2, 4 * pp));
    EXPECT_EQ(Peak(one_f_one_b), pp);
    EXPECT_EQ(Peak(zero_bubble), pp);
    EXPECT_EQ(Peak(dualpipe), pp + 1);
    EXPECT_EQ(Peak(dualpipev), pp + 1);
    for (const RankFigures& rank : one_f_one_b.ranks) EXPECT_EQ(rank.held_stages, 1);
    for (const RankFigures& rank : zero_bubble.ranks) EXPECT_EQ(rank.held_stages, 1);
    for (const RankFigures& rank : dualpipe.ranks) EXPECT_EQ(rank.held_stages, 2);
    for (const RankFigures& rank : dualpipev.ranks) EXPECT_EQ(rank.held_stages, 2);
    EXPECT_EQ(Peak(Simulated(Generate("gpipe", pp, 4 * pp))), 4 * pp);
    EXPECT_EQ(Peak(Simulated(Generate("zbv", pp, 4 * pp))), 2 * pp);  // of half the size
  }
}

TEST(SimulateTest, PeakMemoryWeighsStagesAndWhatTheInputGradientFrees) {
  PipelineCosts costs;
  costs.stages = {{.activation_bytes = 100}, {.activation_bytes = 7}};
  const Simulation run = Simulated(Generate("1f1b", 2, 4), costs);
  EXPECT_EQ(run.ranks[0].peak_bytes, 200);
  EXPECT_EQ(run.ranks[1].peak_bytes, 7);
  // What waits for W is held from I on, where W comes later; the action at work comes on top.
  costs.stages = {{.activation_bytes = 100,
                   .held_bytes = 40,
                   .forward_work_bytes = 1,
                   .backward_work_bytes = 3,
                   .input_work_bytes = 2}};
  const Simulation whole = Simulated(Generate("1f1b", 1, 4), costs);
  EXPECT_EQ(whole.ranks[0].peak_bytes, 103);
  EXPECT_EQ(whole.ranks[0].work_bytes, 3);
  EXPECT_EQ(Simulated(Generate("gpipe", 1, 4), costs).ranks[0].peak_bytes, 403);
  Schedule split = Generate("1f1b", 1, 2);
  split.actions[0] = {
      ComputeAction(ActionKind::kForward, 0, 0),        ComputeAction(ActionKind::kBackwardInput, 0, 0),
      ComputeAction(ActionKind::kForward, 0, 1),        ComputeAction(ActionKind::kBackwardInput, 0, 1),
      ComputeAction(ActionKind::kBackwardWeight, 0, 0), ComputeAction(ActionKind::kBackwardWeight, 0, 1)};
  EXPECT_EQ(Simulated(split, costs).ranks[0].peak_bytes, 282);
  // The last of 4 ranks holds one forward and, in ZB-H1, three whose W waits: each a quarter after its I.
  PipelineCosts frees = Equal(1, 1, 1);
  frees.freed_by_input = 0.75;
  EXPECT_EQ(Simulated(Generate("zb_h1", 4, 12)).ranks[3].peak_activations, 4);
  EXPECT_EQ(Simulated(Generate("zb_h1", 4, 12), frees).ranks[3].peak_activations, 1.75);
  // A peak late in the step sees that everything before has been freed, once.
  Schedule late = Generate("1f1b", 1, 3);
  late.actions[0] = {
      ComputeAction(ActionKind::kForward, 0, 0),        ComputeAction(ActionKind::kBackwardInput, 0, 0),
      ComputeAction(ActionKind::kBackwardWeight, 0, 0), ComputeAction(ActionKind::kForward, 0, 1),
      ComputeAction(ActionKind::kForward, 0, 2),        ComputeAction(ActionKind::kBackward, 0, 1),
      ComputeAction(ActionKind::kBackward, 0, 2)};
  EXPECT_EQ(Simulated(late, frees).ranks[0].peak_activations, 2);
  EXPECT_EQ(Simulated(late).ranks[0].peak_activations, 2);
}

// Ends of F (first) and I (second) of every (stage, microbatch), and the makespan, of a compute-only schedule
// by relaxing all "not before" rules until nothing moves: slow, and nothing like the simulator.
double MakespanByRelaxation(const Schedule& schedule, const PipelineCosts& costs) {
  std::map<std::tuple<bool, int, int>, double> end;
  double makespan = 0;
  for (bool moved = true; moved;) {
    moved = false;
    for (const std::vector<Action>& list : schedule.actions) {
      double clock = 0;
      for (const Action& action : list) {
        for (const Compute& part : PartsOf(action)) {
          const auto& [kind, stage, m] = part;
          if (HasForward(kind)) {
            if (stage > 0) clock = std::max(clock, end[{true, stage - 1, m}]);
          } else {
            clock = std::max(clock, end[{true, stage, m}]);
            if (stage + 1 < schedule.stages && HasBackwardInput(kind)) {
              clock = std::max(clock, end[{false, stage + 1, m}]);
            }
          }
        }
        clock += ComputeTime(action, costs);
        makespan = std::max(makespan, clock);
        for (const Compute& part : PartsOf(action)) {
          if (part.kind == ActionKind::kBackwardWeight) continue;
          double& known = end[{HasForward(part.kind), part.stage, part.microbatch}];
          moved |= known != clock;
          known = clock;
        }
      }
    }
  }
  return makespan;
}

TEST(SimulateTest, UnevenStagesTakeTheTimeOfTheLongestPath) {
  std::mt19937 random(3);
  const auto draw = [&] { return static_cast<double>(1 + random() % 5); };
  for (const std::string& name : ScheduleNames()) {
    for (int round = 0; round < 6; ++round) {
      const Schedule schedule = Generate(name, 4, 8 + 4 * (round % 3));
      PipelineCosts costs;
      costs.stages.clear();
      double busy = 0;
      for (int stage = 0; stage < schedule.stages; ++stage) {
        costs.stages.push_back({.forward = draw(), .backward_input = draw(), .backward_weight = draw()});
        const StageCosts& cost = costs.stages.back();
        busy += schedule.microbatches * (cost.forward + cost.backward_input + cost.backward_weight);
      }
      const Simulation run = Simulated(schedule, costs);
      EXPECT_EQ(run.makespan, MakespanByRelaxation(schedule, costs)) << name;
      for (const RankFigures& rank : run.ranks) {
        busy -= rank.busy;
        EXPECT_EQ(rank.idle, run.makespan - rank.busy);
        EXPECT_DOUBLE_EQ(rank.bubble, rank.idle / run.makespan);
        EXPECT_LE(rank.idle, run.worst_idle());
      }
      EXPECT_EQ(busy, 0);
    }
  }
}

TEST(SimulateTest, TransfersTakeLatencyAndOccupyTheirLink) {
  PipelineCosts costs = Equal(1, 1, 1);
  costs.transfer_latency = 5;
  costs.transfer_time = 3;
  const Simulation run = Simulated(Generate("gpipe", 2, 2), costs);
  // F0.0 ends at 1, its message is there at 1+3+5; F0.1's waits for the link until 4.
  EXPECT_EQ(run.times[1][2].start, 9) << Line(run.schedule, 1);
  EXPECT_EQ(Line(run.schedule, 1).substr(0, 37), "RECV_F1.0<0 RECV_F1.1<0 F1.0 F1.1 B1.");
  EXPECT_EQ(run.times[1][1].start, 4);
  EXPECT_EQ(run.times[1][1].end, 12);
  EXPECT_EQ(run.times[1][3].start, 12);
}

TEST(SimulateTest, OverlapHidesTheExchangeOfOneMicrobatchBehindTheComputeOfTheOther) {
  PipelineCosts costs;
  costs.stages = {{.forward = 4,
                   .backward_input = 5,
                   .backward_weight = 2,
                   .forward_exchange = 2,
                   .backward_exchange = 2}};
  const Action pair = OverlapAction({ActionKind::kForward, 0, 1}, {ActionKind::kBackward, 0, 0});
  EXPECT_EQ(ComputeTime(pair, costs), 7);  // 11 in sequence, 4 of it exchange
  costs.stages[0].forward_exchange = 4;
  costs.stages[0].backward_exchange = 5;
  EXPECT_EQ(ComputeTime(pair, costs), 9);  // bound by the exchange
  costs.overlapped_pair = 6;
  EXPECT_EQ(ComputeTime(pair, costs), 6);
}

TEST(SimulateTest, ReductionsOverlapWithTheBackwardThatIsLeft) {
  PipelineCosts costs = Equal(1, 1, 1);
  costs.stages[0].reduce_grad = 4;
  costs.optimize = 1;
  const Simulation run = Simulated(Generate("1f1b", 4, 8), costs);
  // Rank 3 ends its last backward 6 before rank 0, so its reduction is over by then; rank 0's is not.
  EXPECT_EQ(run.makespan, 33);
  EXPECT_EQ(run.times[3][run.times[3].size() - 2].start, 31);
  EXPECT_EQ(run.step_end, 33 + 4 + 1);
}

TEST(SimulateTest, DeadlockIsReportedWithTheActionsThatWaitForEachOther) {
  // Rank 0 wants a gradient of microbatch 0 before it has run the forward that rank 1 does first.
  Schedule schedule = {
      .name = "mine", .ranks = 2, .stages = 2, .microbatches = 2, .holders = {{0, 1}}, .actions = {}};
  const auto f = [](int s, int m) { return ComputeAction(ActionKind::kForward, s, m); };
  const auto b = [](int s, int m) { return ComputeAction(ActionKind::kBackward, s, m); };
  schedule.actions = {{f(0, 0), b(0, 0), f(0, 1), b(0, 1)}, {f(1, 1), f(1, 0), b(1, 0), b(1, 1)}};
  EXPECT_EQ(Failure(schedule),
            "schedule mine deadlocks: rank 0 stops at action 1 (B0.0), which waits for B1.0, action 2 of "
            "rank 1; rank "
            "1 stops at action 0 (F1.1), which waits for F0.1, action 2 of rank 0");
}

TEST(SimulateTest, MessagesReceivedInAnotherOrderThanSentAreRefused) {
  Simulation run = Simulated(Generate("1f1b", 2, 3));
  std::vector<Action>& list = run.schedule.actions[1];
  ASSERT_EQ(ToText(list[0]) + " " + ToText(list[1]), "RECV_F1.0<0 F1.0");
  ASSERT_EQ(ToText(list[2]), "RECV_F1.1<0") << Line(run.schedule, 1);
  std::rotate(list.begin(), list.begin() + 2, list.begin() + 3);
  EXPECT_EQ(
      Failure(run.schedule),
      "schedule 1f1b: messages from rank 0 to rank 1 are out of order: message 0 is sent as SEND_F0.0>1 "
      "(action "
      "1 of rank 0) and received as RECV_F1.1<0 (action 0 of rank 1); post RECVs in the order of the SENDs");
}

TEST(SimulateTest, BadCostsAreRefused) {
  const Schedule schedule = Generate("1f1b", 3, 3);
  PipelineCosts costs;
  costs.stages.resize(2);
  EXPECT_EQ(Failure(schedule, costs),
            "costs are given for 2 stages; give one for each of the 3, or one for all");
  EXPECT_EQ(Failure(schedule, Equal(-1, 1, 1)), "a cost is -1; give finite ones >= 0");
  EXPECT_EQ(Failure(schedule, Equal(1, 1.0 / 0.0, 1)), "a cost is inf; give finite ones >= 0");
  costs.stages = {{.forward = 1, .forward_exchange = 2}};
  EXPECT_EQ(Failure(schedule, costs), "the exchange of a phase costs more than the phase, which includes it");
}

}  // namespace
}  // namespace moebius
