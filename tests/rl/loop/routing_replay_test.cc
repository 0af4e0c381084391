// Steps that replay the rollout's experts against steps that do not.
#include <cmath>
#include <filesystem>

#include "core/base/status.h"
#include "core/io/hdf5_file.h"
#include "gtest/gtest.h"
#include "parallel/comm/solo_world.h"
#include "rl/loop/archive.h"
#include "tests/core/io/scratch.h"
#include "tests/rl/loop/archived.h"
#include "tests/rl/loop/tiny_run.h"

namespace moebius {
namespace {

TinyRunOptions WithReplay(bool replays) {
  TinyRunOptions o = SortTwo(TinyMoe());
  proto::Reward::Part& part = *o.reward.add_part();
  part.set_name("dense");
  part.set_weight(1);
  if (replays) o.rl.set_routing_replay(proto::Rl::ROLLOUT);
  return o;
}

struct ReplayedRun {
  std::vector<StepReport> reports;
  std::vector<float> weights;
};

ReplayedRun RunAlone(const TinyRunOptions& options, int64_t steps) {
  SoloWorld world;
  TinyRun run(*world, {}, options);
  const auto source = run.NewPolicySource();
  absl::StatusOr<std::vector<StepReport>> reports = RunSteps(*source, steps);
  EXPECT_TRUE(reports.ok()) << reports.status();
  return {.reports = *std::move(reports), .weights = run.Weights()};
}

TEST(RoutingReplay, ChangesNoBitOfAnExactStep) {
  for (const DType act : {DType::kF32, DType::kBF16}) {
    TinyRunOptions with = WithReplay(true), without = WithReplay(false);
    with.act = without.act = act;
    const ReplayedRun got = RunAlone(with, 4), want = RunAlone(without, 4);
    EXPECT_EQ(got.weights, want.weights);
    for (size_t i = 0; i < 4; ++i) {
      EXPECT_EQ(ValueOf(got.reports[i], "rl/route_mismatch"), 0);
      EXPECT_GT(got.reports[i].metrics.routes_given, 0);
      EXPECT_EQ(got.reports[i].metrics.grad_norm, want.reports[i].metrics.grad_norm);
      EXPECT_EQ(want.reports[i].metrics.routes_given, 0);
    }
  }
}

// The run itself asserts that no route differs.
TEST(RoutingReplay, ChangesNoBitWhateverTheLayoutAndTheTrainersWork) {
  const RecomputePolicy parts{.norms = true, .mla_up = true, .swiglu = true}, blocks{.blocks = true};
  for (const Layout& layout : {Layout{.data = 2}, Layout{.pipeline = 2}, Layout{.expert = 2}}) {
    for (const auto& [recompute, each] : {std::pair{RecomputePolicy{}, 1}, {parts, 3}, {blocks, 5}}) {
      std::vector<double> norms[2];
      for (const bool replays : {false, true}) {
        TinyRunOptions o = WithReplay(replays);
        o.recompute = recompute;
        o.microbatch_sequences = each;
        const absl::Status status = OnRanks(layout, o, [&](TinyRun& run, int rank) -> absl::Status {
          const auto source = run.NewPolicySource();
          ASSIGN_OR_RETURN(const std::vector<StepReport> reports, RunSteps(*source, 2));
          for (const StepReport& report : reports) {
            if (replays) {
              EXPECT_GT(report.metrics.routes_given, 0);
              EXPECT_EQ(ValueOf(report, "rl/route_mismatch"), 0);
            }
            if (rank != 0) continue;
            norms[replays].push_back(report.metrics.grad_norm);
            norms[replays].push_back(report.metrics.loss);
          }
          return absl::OkStatus();
        });
        EXPECT_TRUE(status.ok()) << ToText(layout) << " of " << each << ": " << status;
      }
      EXPECT_EQ(norms[0], norms[1]) << ToText(layout) << " of " << each;
      EXPECT_GT(norms[0][0], 0);
    }
  }
}

// Later updates of a step find weights that have moved since the rollout.
TEST(RoutingReplay, HoldsTheRolloutsExpertsWhileTheWeightsMove) {
  for (const auto rollout : {proto::Rl::EXACT, proto::Rl::FAST}) {
    TinyRunOptions with = WithReplay(true), without = WithReplay(false);
    for (TinyRunOptions* o : {&with, &without}) {
      o->rl.set_rollout(rollout);
      o->rl.set_updates(4);
      o->lr = 0.02;
    }
    const ReplayedRun got = RunAlone(with, 3), want = RunAlone(without, 3);
    EXPECT_GT(ValueOf(got.reports[0], "rl/route_mismatch"), 0.001);
    EXPECT_LT(ValueOf(got.reports[0], "rl/route_mismatch"), 0.9);
    EXPECT_NE(got.weights, want.weights);
    for (const StepReport& report : got.reports) EXPECT_TRUE(std::isfinite(report.metrics.loss));
  }
}

TEST(RoutingReplay, IsRefusedWithoutExperts) {
  proto::Rl rl;
  rl.set_routing_replay(proto::Rl::ROLLOUT);
  EXPECT_TRUE(CheckRl(rl, TinyMoe()).ok());
  const absl::Status status = CheckRl(rl, TinyDense());
  EXPECT_EQ(ExitCode(status), 64);
  EXPECT_TRUE(Contains(status, "rl.routing_replay")) << status;
  ModelConfig dense_layers = TinyMoe();
  dense_layers.first_k_dense_replace = dense_layers.num_hidden_layers;
  EXPECT_EQ(ExitCode(CheckRl(rl, dense_layers)), 64);
}

// Whether updates replay them or not. Archiving itself moves no bit.
TEST(RoutesInTheArchive, AreThereForModelsWithExperts) {
  for (const auto rollout : {proto::Rl::EXACT, proto::Rl::FAST}) {
    for (const bool experts : {false, true}) {
      const Scratch scratch;
      TinyRunOptions o = WithReplay(false);
      if (!experts) o.model = TinyDense();
      o.rl.set_rollout(rollout);
      const ReplayedRun want = RunAlone(o, 2);
      o.rl.set_archive_every_steps(2);
      SoloWorld world;
      TinyRun run(*world, {}, o);
      const auto source = run.NewPolicySource(nullptr, scratch.folder());
      ASSERT_TRUE(RunSteps(*source, 2).ok());
      EXPECT_EQ(run.Weights(), want.weights);
      const Hdf5File file = *Hdf5File::Open(ArchivePath(scratch.folder(), 2));
      const auto logprobs = ReadAll<float>(file, "logprobs"), proximal = ReadAll<float>(file, "proximal");
      ASSERT_EQ(logprobs.size(), proximal.size());
      if (rollout == proto::Rl::EXACT) {
        EXPECT_EQ(logprobs, proximal);
      }
      for (size_t i = 0; i < logprobs.size(); ++i) EXPECT_NEAR(logprobs[i], proximal[i], 1e-4) << i;
      EXPECT_EQ(ReadAll<double>(file, "reward_dense"), ReadAll<double>(file, "reward"));
      const auto sequences = ReadAll<int64_t>(file, "sequence");
      for (size_t i = 0; i < sequences.size(); ++i) EXPECT_EQ(sequences[i], static_cast<int64_t>(16 * 8 + i));
      EXPECT_EQ(file.Has("routes"), experts);
      if (!experts) continue;
      const int64_t size = *file.IntAttribute("route_size");
      EXPECT_EQ(size, 2) << "one MoE layer, two experts a token";
      const auto routes = ReadAll<uint16_t>(file, "routes");
      const auto ends = ReadAll<int64_t>(file, "route_ends"),
                 token_ends = ReadAll<int64_t>(file, "token_ends"),
                 prompt_ends = ReadAll<int64_t>(file, "prompt_ends");
      ASSERT_EQ(ends.size(), sequences.size());
      for (size_t i = 0; i < ends.size(); ++i) {
        EXPECT_EQ(ends[i], (prompt_ends[i] + token_ends[i] - static_cast<int64_t>(i + 1)) * size) << i;
      }
      EXPECT_EQ(std::ssize(routes), ends.back());
      std::vector<int64_t> counts(5, 0);
      for (const Route route : routes) ++counts[route == kNoRoute ? 4 : route];
      for (const int64_t count : counts) EXPECT_GT(count, 0);
    }
  }
}

}  // namespace
}  // namespace moebius
