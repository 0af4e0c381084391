// Clusters on paper against what was published and what we measured. Sources: ../shared/reference/cost.md.
#include "launch/plan/cluster_plan.h"

#include "gtest/gtest.h"
#include "launch/plan/cluster.pb.h"
#include "launch/recipe.pb.h"
#include "launch/train/memory.h"
#include "launch/train/resolve_model.h"
#include "tests/core/backend/test_backend.h"
#include "tests/launch/temp_folder.h"

namespace moebius {
namespace {

const std::string kRecipes = MOEBIUS_SOURCE_DIR "/recipes/";

struct Job {
  Job(const std::string& recipe_name, const std::string& cluster_name,
      const std::vector<std::string>& sets = {}) {
    absl::StatusOr<Recipe> loaded = Recipe::Load(kRecipes + recipe_name, sets);
    CHECK(loaded.ok()) << loaded.status();
    config = ResolveModel(*loaded).value();
    recipe = loaded->proto();
    cluster = *LoadCluster(kRecipes + "clusters/" + cluster_name).value();
  }
  proto::Recipe recipe;
  ModelConfig config;
  proto::Cluster cluster;
};

// The parts that the cluster's file was fitted on, of four layers (DeepSeek's trace).
TEST(ClusterPlanTest, AChunkOfDeepSeekV3IsMadeOfWhatItsTraceShows) {
  const Job job("deepseek_v3_2048.textproto", "h800.textproto");
  const absl::StatusOr<LayoutPlan> plan =
      FitPlan(job.recipe, job.config, 2048, job.recipe.batch().sequences(), 8);
  ASSERT_TRUE(plan.ok()) << plan.status();
  const absl::StatusOr<ClusterCosts> costs =
      ClusterCosts::New(job.recipe, job.config, job.cluster, MeasureActivations(job.recipe, job.config));
  ASSERT_TRUE(costs.ok()) << costs.status();
  const StageTime t =
      costs->TimeOf(*plan, {.first_layer = 4, .last_layer = 8, .embedding = false, .head = false});
  EXPECT_NEAR(t.forward.experts + t.backward_input.experts, 22.93e-3, 0.02 * 22.93e-3);
  EXPECT_NEAR(t.forward.dense + t.backward_input.dense, 18.84e-3, 0.02 * 18.84e-3);
  EXPECT_NEAR(t.backward_weight.dense + t.backward_weight.experts, 32.76e-3, 0.02 * 32.76e-3);
  EXPECT_NEAR(t.forward.attention, 4.95e-3, 0.02 * 4.95e-3);
  EXPECT_NEAR(t.backward_input.attention, 17.02e-3, 0.05 * 17.02e-3);
  EXPECT_NEAR(t.forward.elementwise + t.backward_input.elementwise, 32e-3, 0.03 * 32e-3);
  EXPECT_NEAR(t.forward.exchange + t.backward_input.exchange, 80.45e-3, 0.06 * 80.45e-3);
}

// What nothing was fitted on: the report's step of 19.93 s with a bubble of 2.06, 180 K hours a trillion
// tokens.
TEST(ClusterPlanTest, DeepSeekV3sStepIsPredictedFromItsTrace) {
  const Job job("deepseek_v3_2048.textproto", "h800.textproto");
  ClusterPlanner planner(job.config, job.cluster);
  const absl::StatusOr<ClusterPlan> plan = planner.Predict(job.recipe, 2048);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_NEAR(plan->step_s, 19.93, 0.08 * 19.93);
  EXPECT_NEAR(plan->layout.run.worst_idle(), 2.06, 0.4);
  EXPECT_NEAR(1e12 / 3600 / plan->tokens_per_s, 180e3, 0.08 * 180e3);
  EXPECT_FALSE(plan->fits);  // masters lie whole on every rank, activations in bf16
  EXPECT_NE(planner.Describe(*plan).find("does NOT fit 80 GB"), std::string::npos);
}

// docs/gpu.md: 0.374 s a step.
TEST(ClusterPlanTest, OneCardTakesWhatWeMeasured) {
  const Job job("one_gpu.textproto", "h200.textproto", {"batch.microbatch_sequences=8"});
  const absl::StatusOr<ClusterPlan> plan = ClusterPlanner(job.config, job.cluster).Predict(job.recipe, 1);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_NEAR(plan->step_s, 0.374, 0.05 * 0.374);
}

// Also where W comes later, and where several microbatches are alive at once.
TEST(ClusterPlanTest, MemoryOfAScheduleIsThatOfARunOnADeviceThatCounts) {
  for (const char* schedule : {"gpipe", "interleaved", "zb_h1", "zbv", "dualpipev"}) {
    for (const char* policy : {"SELECTIVE", "BLOCKS"}) {
      const Job job("one_gpu.textproto", "h200.textproto",
                    {std::string("recompute.policy=") + policy, std::string("parallel.schedule=") + schedule,
                     "precision.compute=BF16", "mtp.loss_weight=0.3", "model.num_nextn_predict_layers=1"});
      const absl::StatusOr<ClusterPlan> plan = ClusterPlanner(job.config, job.cluster).Predict(job.recipe, 1);
      ASSERT_TRUE(plan.ok()) << plan.status();
      const absl::StatusOr<int64_t> peak =
          PredictPeakBytes(job.recipe, job.config, *MakeCpuBackend({.threads = 1}));
      ASSERT_TRUE(peak.ok()) << peak.status();
      const double want = static_cast<double>(*peak) + job.cluster.accelerator().reserved_gb() * 1e9;
      EXPECT_NEAR(plan->peak_bytes, want, 0.06 * want) << policy << " " << schedule;
    }
  }
}

TEST(ClusterPlanTest, MemoryIsThatOfARunOnADeviceThatCounts) {
  for (const char* policy : {"NONE", "SELECTIVE", "BLOCKS"}) {
    for (const char* sequences : {"4", "8"}) {
      const Job job("one_gpu.textproto", "h200.textproto",
                    {std::string("recompute.policy=") + policy,
                     std::string("batch.microbatch_sequences=") + sequences});
      const absl::StatusOr<ClusterPlan> plan = ClusterPlanner(job.config, job.cluster).Predict(job.recipe, 1);
      ASSERT_TRUE(plan.ok()) << plan.status();
      proto::Recipe bf16 = job.recipe;
      bf16.mutable_precision()->set_compute(proto::Precision::BF16);
      const absl::StatusOr<int64_t> peak =
          PredictPeakBytes(bf16, job.config, *MakeCpuBackend({.threads = 1}));
      ASSERT_TRUE(peak.ok()) << peak.status();
      const double want = static_cast<double>(*peak) + job.cluster.accelerator().reserved_gb() * 1e9;
      EXPECT_NEAR(plan->peak_bytes, want, 0.03 * want) << policy << " " << sequences;
    }
  }
}

TEST(ClusterPlanTest, TokensVisitAsManyNodesAsCountingSays) {
  ModelConfig v3;
  v3.n_routed_experts = 256;
  v3.num_experts_per_tok = 8;
  v3.n_group = 8;
  const double want[] = {1.00, 2.00, 2.90, 3.63, 4.20, 4.65, 5.00, 5.30};  // cost.md 2.4
  for (int groups = 1; groups <= 8; ++groups) {
    v3.topk_group = groups;
    EXPECT_NEAR(PartsVisited(v3, 8), want[groups - 1], 0.006) << groups;
  }
  v3.topk_group = 4;
  EXPECT_NEAR(PartsVisited(v3, 64) / PartsVisited(v3, 8), 2.0, 0.05);  // ranks of a node
  EXPECT_NEAR(PartsVisited(v3, 1), 1, 1e-9);
  // Two of the groups lie on a node: as many nodes as all choices of groups and experts together give.
  v3.n_routed_experts = 4, v3.num_experts_per_tok = 1, v3.n_group = 4, v3.topk_group = 2;
  EXPECT_NEAR(PartsVisited(v3, 2), 1, 1e-9);
  v3.num_experts_per_tok = 2;  // both groups: on one node in 2 of 6 choices
  EXPECT_NEAR(PartsVisited(v3, 2), (2 * 1 + 4 * 2) / 6.0, 1e-9);
  // DeepSeek-V2's router on nodes that are no whole number of its groups: counted over 1e6 drawn tokens.
  v3.n_routed_experts = 160, v3.num_experts_per_tok = 6, v3.n_group = 8, v3.topk_group = 3;
  EXPECT_NEAR(PartsVisited(v3, 5), 2.86, 0.01);
  EXPECT_NEAR(PartsVisited(v3, 10), 3.66, 0.01);
  EXPECT_NEAR(PartsVisited(v3, 20), 4.57, 0.01);
}

// What training refuses is not priced.
TEST(ClusterPlanTest, AnExchangeThatNoRunWouldTakeIsRefused) {
  const Job job("deepseek_v2_lite.textproto", "h800.textproto",
                {"parallel.exchange=TWO_LEVEL", "parallel.expert=16", "batch.sequences=64"});
  ClusterPlanner planner(job.config, job.cluster);
  EXPECT_TRUE(planner.Predict(job.recipe, 16).ok());
  proto::Cluster six = job.cluster;
  six.set_ranks_per_node(6);
  const absl::Status uneven = ClusterPlanner(job.config, six).Predict(job.recipe, 16).status();
  EXPECT_EQ(ExitCode(uneven), kExitUsage);
  EXPECT_NE(std::string(uneven.message()).find("TWO_LEVEL"), std::string::npos) << uneven;
}

TEST(ClusterPlanTest, ExchangesTakeFromProductsOnlyWhatRunsBesideThem) {
  const auto step = [](const char* schedule, double share) {
    Job job("deepseek_v2_lite.textproto", "h800.textproto",
            {"parallel.expert=8", "batch.sequences=64", std::string("parallel.schedule=") + schedule});
    job.cluster.mutable_exchange()->set_share_of_compute(share);
    return ClusterPlanner(job.config, job.cluster).Predict(job.recipe, 8)->step_s;
  };
  EXPECT_EQ(step("1f1b", 0.4), step("1f1b", 0));
  EXPECT_GT(step("dualpipev", 0.4), 1.05 * step("dualpipev", 0));
}

TEST(ClusterPlanTest, GoodputIsYoungs) {
  const Goodput fast = GoodputOf(50700, 2048, 30, 300), slow = GoodputOf(50700, 16384, 60, 600);
  EXPECT_NEAR(fast.save_every_s, 2312, 2);
  EXPECT_NEAR(fast.share, 0.971, 0.0006);
  EXPECT_NEAR(slow.save_every_s, 1156, 2);
  EXPECT_NEAR(slow.share, 0.842, 0.0006);
  const Goodput free_saves = GoodputOf(50700, 2048, 0, 300);
  EXPECT_EQ(free_saves.save_every_s, 0);
  EXPECT_NEAR(free_saves.share, 1 - 300 / (3600 * 50700 / 2048.0), 1e-9);
}

TEST(ClusterPlanTest, ARunHasTheTokensOfItsRampAndNoEndWhereFailuresComeFasterThanRestarts) {
  Job job("deepseek_v3_2048.textproto", "h800.textproto");
  auto* const point = job.recipe.mutable_batch()->add_ramp();
  point->set_at_step(1);
  point->set_to_sequences(2 * job.recipe.batch().sequences());
  job.cluster.mutable_failures()->set_rank_hours(1);
  ClusterPlanner planner(job.config, job.cluster);
  const absl::StatusOr<ClusterPlan> plan = planner.Predict(job.recipe, 2048);
  ASSERT_TRUE(plan.ok()) << plan.status();
  const std::string text = planner.Describe(*plan);
  EXPECT_NE(text.find("run         29,569,843,200,000 tokens"), std::string::npos) << text;
  EXPECT_NE(text.find("the run never ends"), std::string::npos) << text;
  EXPECT_EQ(text.find("inf"), std::string::npos) << text;
}

TEST(ClusterPlanTest, MtpModulesThatAreNotTrainedCostNothing) {
  const auto last = [](const std::vector<std::string>& sets) {
    const Job job("deepseek_v3_2048.textproto", "h800.textproto", sets);
    const absl::StatusOr<ClusterPlan> plan =
        ClusterPlanner(job.config, job.cluster).Predict(job.recipe, 2048);
    CHECK(plan.ok()) << plan.status();
    return plan->layout.costs.stages.back();
  };
  const StageCosts with = last({}), without = last({"mtp.loss_weight=0"});
  EXPECT_LT(without.activation_bytes, with.activation_bytes);
  EXPECT_LT(without.forward, with.forward);
}

// Groups that do not fill their nodes evenly go the flat way, and the part of them that is alone on a node
// sends the most to other nodes.
TEST(ClusterPlanTest, AnExpertGroupOfOneNodeAndAHalfSendsTokensToTheOther) {
  const Job job("deepseek_v3_2048.textproto", "h800.textproto");
  const absl::StatusOr<ClusterCosts> costs =
      ClusterCosts::New(job.recipe, job.config, job.cluster, MeasureActivations(job.recipe, job.config));
  ASSERT_TRUE(costs.ok()) << costs.status();
  Layout layout{.expert = 12, .exchange = {.kind = ExchangeKind::kFlat}};
  const double flat = costs->ExchangeSeconds(layout, 1);
  const double between = job.cluster.between_nodes().gb_per_s() * 1e9;
  EXPECT_NEAR(flat, 8 * 2.0 / 3 / between, 1e-6 * flat);  // eight choices a token; of 12 ranks, 8 elsewhere
  layout.exchange.kind = ExchangeKind::kAuto;
  EXPECT_EQ(costs->ExchangeSeconds(layout, 1), flat);
  // Groups smaller than a node that do not divide it lie on two: of six, two and four.
  const double within = job.cluster.within_node().gb_per_s() * 1e9;
  EXPECT_NEAR(costs->ExchangeSeconds({.expert = 6}, 1) * within, 8 * 5.0 / 6, 1e-6);
  EXPECT_NEAR(costs->ExchangeSeconds({.data = 4, .expert = 6}, 1) * between, 8 * 4.0 / 6, 1e-6);
  EXPECT_NEAR(costs->ExchangeSeconds({.data = 4, .expert = 4}, 1) * within, 8 * 3.0 / 4, 1e-6);
  // Gathered, the two get the rows of the four, and the four theirs.
  const Layout gather{.data = 4, .expert = 6, .exchange = {.kind = ExchangeKind::kGather}};
  EXPECT_NEAR(costs->ExchangeSeconds(gather, 1) * between, 4, 1e-6);
}

TEST(ClusterPlanTest, GatheringSendsAllTokensToAllRanksAndKeepsRoomForAllOfThem) {
  const std::vector<std::string> sets = {"batch.sequences=8", "parallel.expert=8"};
  const Job flat("deepseek_v2_lite.textproto", "h800.textproto", sets);
  Job gather = flat;
  gather.recipe.mutable_parallel()->set_exchange(proto::Parallel::GATHER);
  const absl::StatusOr<ClusterCosts> costs = ClusterCosts::New(
      gather.recipe, gather.config, gather.cluster, MeasureActivations(gather.recipe, gather.config));
  ASSERT_TRUE(costs.ok()) << costs.status();
  Layout layout{.expert = 4, .exchange = {.kind = ExchangeKind::kGather}};
  const double within = gather.cluster.within_node().gb_per_s() * 1e9,
               between = gather.cluster.between_nodes().gb_per_s() * 1e9;
  EXPECT_DOUBLE_EQ(costs->ExchangeSeconds(layout, 1), 3 / within);
  layout.expert = 32;  // four nodes
  EXPECT_DOUBLE_EQ(costs->ExchangeSeconds(layout, 1), 24 / between);

  // 64 experts, 6 a token, 8 on each of 8 ranks: room for 48 rows a token where flat has 6.
  const auto kept = [](const Job& job) {
    const absl::StatusOr<ClusterPlan> plan = ClusterPlanner(job.config, job.cluster).Predict(job.recipe, 8);
    CHECK(plan.ok()) << plan.status();
    return plan->layout.costs.stages[0].activation_bytes / plan->layout.microbatch_tokens;
  };
  const ModelConfig& c = flat.config;
  const double row = 2.0 * (c.hidden_size + 2 * c.moe_intermediate_size);
  EXPECT_NEAR(kept(gather) - kept(flat), static_cast<double>(c.NumMoe(c.num_hidden_layers)) * 42 * row, 1);
}

TEST(ClusterPlanTest, ASearchFindsAFasterLayoutThatFits) {
  const Job job("deepseek_v2_lite.textproto", "h800.textproto",
                {"batch.sequences=16", "batch.sequence_length=4096", "precision.compute=BF16"});
  ClusterPlanner planner(job.config, job.cluster);
  const ClusterPlanner::Found found = planner.Search(job.recipe, 8).value();
  ASSERT_GT(found.plans.size(), 1u);
  EXPECT_GT(found.tried, static_cast<int>(found.plans.size()));
  for (size_t i = 0; i < found.plans.size(); ++i) {
    EXPECT_TRUE(found.plans[i].fits);
    EXPECT_EQ(found.plans[i].layout.layout.ranks(), 8);
    EXPECT_GE(found.plans[i].step_s, found.plans[i == 0 ? 0 : i - 1].step_s);
  }
  // What it found is what it predicts when asked.
  const absl::StatusOr<ClusterPlan> again = planner.Predict(*found.plans[0].recipe, 8);
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->step_s, found.plans[0].step_s);
}

// A microbatch is a rank's share of the batch at most: more would be the same layout again.
TEST(ClusterPlanTest, ASearchListsEveryLayoutOnce) {
  Job job("one_gpu.textproto", "h200.textproto", {"batch.sequences=8"});
  const ClusterPlanner::Found found = ClusterPlanner(job.config, job.cluster).Search(job.recipe, 8).value();
  for (const ClusterPlan& plan : found.plans) {
    const Layout& layout = plan.layout.layout;
    EXPECT_LE(plan.recipe->batch().microbatch_sequences(), 8 / layout.batch_shards()) << ToText(layout);
  }
  EXPECT_GT(found.plans.size(), 8u);
}

TEST(ClusterPlanTest, ASearchTriesNoRecipeThatIsRefusedAndSaysWhyThereIsNone) {
  Job job("one_gpu.textproto", "h200.textproto", {"batch.sequences=6", "batch.microbatch_sequences=1"});
  ClusterPlanner planner(job.config, job.cluster);
  const ClusterPlanner::Found found = planner.Search(job.recipe, 1).value();
  ASSERT_FALSE(found.plans.empty());
  for (const ClusterPlan& plan : found.plans) EXPECT_EQ(6 % plan.recipe->batch().microbatch_sequences(), 0);
  job.recipe.mutable_precision()->set_compute(proto::Precision::FP8);
  job.cluster.mutable_accelerator()->set_fp8_tflops(0);
  const auto none = planner.Search(job.recipe, 1);
  EXPECT_EQ(ExitCode(none.status()), kExitUsage);
  EXPECT_NE(std::string(none.status().message()).find("fp8_tflops"), std::string::npos) << none.status();
}

// A run goes through the batches of its ramp, each at its own pace.
TEST(ClusterPlanTest, ARampsRunIsTheSumOfItsBatches) {
  Job job("one_gpu.textproto", "h200.textproto",
          {"batch.sequences=8", "batch.microbatch_sequences=4", "parallel.pipeline=4", "steps=1000"});
  ClusterPlanner planner(job.config, job.cluster);
  const ClusterPlan small = planner.Predict(job.recipe, 4).value();
  auto* const point = job.recipe.mutable_batch()->add_ramp();
  point->set_at_step(11);
  point->set_to_sequences(64);
  const ClusterPlan ramp = planner.Predict(job.recipe, 4).value();
  job.recipe.mutable_batch()->clear_ramp();
  job.recipe.mutable_batch()->set_sequences(64);
  const ClusterPlan large = planner.Predict(job.recipe, 4).value();
  EXPECT_EQ(ramp.step_s, large.step_s);
  EXPECT_EQ(ramp.peak_bytes, large.peak_bytes);
  EXPECT_NEAR(ramp.run_s, 10 * small.step_s + 990 * large.step_s, 1e-9 * ramp.run_s);
  EXPECT_LT(large.step_s, 7.5 * small.step_s);  // a smaller bubble: it is not 8 of the small ones
}

// 12 sequences of a rank are microbatches of 8 and 4: memory is that of 8.
TEST(ClusterPlanTest, MemoryIsOfTheLargestMicrobatch) {
  Job job("one_gpu.textproto", "h200.textproto", {"batch.sequences=24", "batch.microbatch_sequences=8"});
  ClusterPlanner planner(job.config, job.cluster);
  const ClusterPlan one = planner.Predict(job.recipe, 1).value(),
                    two = planner.Predict(job.recipe, 2).value();
  EXPECT_LT(two.layout.microbatch_tokens, one.layout.microbatch_tokens);
  EXPECT_EQ(two.layout.costs.scratch_bytes, one.layout.costs.scratch_bytes);
  EXPECT_EQ(two.layout.run.ranks[0].peak_bytes, one.layout.run.ranks[0].peak_bytes);
}

// 0 is a rank's whole share, not none of it.
TEST(ClusterPlanTest, MemoryOfAWholeShareIsThatOfAMicrobatchOfItsSize) {
  Job job("one_gpu.textproto", "h200.textproto", {"batch.sequences=8", "batch.microbatch_sequences=8"});
  const ClusterPlan given = ClusterPlanner(job.config, job.cluster).Predict(job.recipe, 1).value();
  job.recipe.mutable_batch()->set_microbatch_sequences(0);
  const ClusterPlan whole = ClusterPlanner(job.config, job.cluster).Predict(job.recipe, 1).value();
  EXPECT_GT(whole.layout.costs.scratch_bytes, 0);
  EXPECT_EQ(whole.layout.costs.scratch_bytes, given.layout.costs.scratch_bytes);
  EXPECT_EQ(whole.layout.run.ranks[0].peak_bytes, given.layout.run.ranks[0].peak_bytes);
}

// DualPipe's two holders of a stage are at both ends of the job: their gradients leave the node.
TEST(ClusterPlanTest, GradientsOfTwoHoldersCrossNodes) {
  const auto reduce = [](const std::vector<std::string>& sets) {
    Job job("one_gpu.textproto", "h200.textproto", sets);
    const ClusterPlan plan = ClusterPlanner(job.config, job.cluster).Predict(job.recipe, 16).value();
    return plan.step_s - plan.layout.run.makespan;
  };
  const double spread = reduce({"batch.sequences=64", "batch.microbatch_sequences=1"}),
               held_twice = reduce({"batch.sequences=64", "batch.microbatch_sequences=1",
                                    "parallel.pipeline=2", "parallel.schedule=dualpipe"});
  EXPECT_NEAR(held_twice, spread, 0.1 * spread);
}

TEST(ClusterPlanTest, SlowerLinksAndBusierExpertsCostTime) {
  Job job("deepseek_v3_2048.textproto", "h800.textproto");
  const auto step = [&] { return ClusterPlanner(job.config, job.cluster).Predict(job.recipe, 2048)->step_s; };
  const double before = step();
  job.cluster.mutable_between_nodes()->set_gb_per_s(23);
  EXPECT_GT(step(), 1.2 * before);
  job.cluster.mutable_between_nodes()->set_gb_per_s(46);
  job.cluster.mutable_exchange()->set_imbalance(1.5);
  EXPECT_GT(step(), 1.1 * before);
}

TEST(ClusterFileTest, MistakesAreNamedWithTheirLine) {
  const TempFolder folder;
  const auto error = [&](const std::string& text) {
    const std::string path = folder.Write("c.textproto", text);
    return std::string(LoadCluster(path).status().message());
  };
  EXPECT_NE(error("accelerator { bf16_tflop: 3 }").find("bf16_tflops"), std::string::npos);
  EXPECT_NE(error("accelerator {\n bf16_tflops: -3 }").find("c.textproto:2"), std::string::npos);
  const std::string missing = error("accelerator { bf16_tflops: 3 }");
  for (const char* field :
       {"memory_gb", "memory_gb_per_s", "accelerator.bf16", "within_node", "between_nodes"}) {
    EXPECT_NE(missing.find(field), std::string::npos) << field << ": " << missing;
  }
  Job job("deepseek_v3_2048.textproto", "h800.textproto");
  job.cluster.mutable_accelerator()->clear_fp8_tflops();
  const absl::StatusOr<ClusterPlan> plan = ClusterPlanner(job.config, job.cluster).Predict(job.recipe, 2048);
  EXPECT_NE(std::string(plan.status().message()).find("precision.compute=BF16"), std::string::npos);
}

}  // namespace
}  // namespace moebius
