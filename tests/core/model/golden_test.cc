// Parity with transformers on golden models: log-probabilities, and losses and gradient norm of a first
// training step. Compiled twice: over the copies in tests/golden, and over all of ../shared/golden.
#include <cmath>

#include "core/base/strings.h"
#include "core/io/file.h"
#include "core/model/score.h"
#include "core/model/weights.h"
#include "gtest/gtest.h"
#include "tests/core/layers/bench.h"
#include "tests/core/model/golden_models.h"

namespace moebius {
namespace {

class GoldenTest : public testing::TestWithParam<std::string> {
 protected:
  void Load(const ModelOptions& options) {
    golden_ = ReadGoldenModel(GetParam());
    absl::StatusOr<LoadedModel> loaded =
        LoadModel(golden_.folder, bench_.backend(), bench_.stream(), options);
    ASSERT_TRUE(loaded.ok()) << std::string(loaded.status().message());
    config_ = loaded->config;
    model_ = std::move(loaded->model);
  }

  Bench bench_;
  GoldenModel golden_;
  ModelConfig config_;
  std::unique_ptr<Model> model_;
};

TEST_P(GoldenTest, ScoresWithinTwoTenThousandths) {
  Load({.storage = {.training = false}, .mtp = false});
  ASSERT_NE(model_, nullptr);
  std::vector<int32_t> ids, starts = {0};
  for (const std::vector<int32_t>& line : golden_.score_input) {
    ids.insert(ids.end(), line.begin(), line.end());
    starts.push_back(static_cast<int32_t>(ids.size()));
  }
  Microbatch mb(bench_.backend(), model_->num_slots());
  const auto got = ScoreSequences(*model_, bench_.context(), mb, ids, starts);
  ASSERT_EQ(got.size(), golden_.score_expected.size());
  double worst = 0;
  for (size_t s = 0; s < got.size(); ++s) {
    ASSERT_EQ(got[s].size(), golden_.score_expected[s].size());
    for (size_t i = 0; i < got[s].size(); ++i) {
      worst = std::max(worst, std::abs(got[s][i] - golden_.score_expected[s][i]));
    }
  }
  EXPECT_LE(worst, 2e-4);
  RecordProperty("worst", Concat(worst));
}

// What the metrics of a step are, from the contract's definitions and nothing of optim/.
std::map<std::string, double> FirstStep(Bench& bench, const Model& model, const GoldenTraining& training,
                                        const GoldenRun& run, int64_t microbatch_sequences) {
  const double tokens = static_cast<double>(training.sequences * training.sequence_length);
  const int64_t modules = model.config().num_nextn_predict_layers;
  const bool mtp = run.mtp_loss_weight != 0 && modules > 0;
  Objective objective;
  objective.token_scale = static_cast<float>(1 / tokens);
  if (mtp) objective.mtp_scale = static_cast<float>(run.mtp_loss_weight / (modules * tokens));
  objective.balance.sequence = static_cast<float>(run.sequence_loss / training.sequences);
  const std::vector<int32_t> batch = training.Batch(0);
  std::map<std::string, double> out;
  std::vector<std::vector<int64_t>> counts;
  Microbatch mb(bench.backend(), model.num_slots());
  const int64_t row = training.sequence_length + 1;
  for (int64_t first = 0; first < training.sequences; first += microbatch_sequences) {
    mb.Load(bench.stream(), std::span(batch).subspan(first * row, microbatch_sequences * row),
            microbatch_sequences, training.sequence_length, mtp ? static_cast<int>(modules) : 0);
    model.Forward(bench.context(), objective, mb);
    out["train/loss"] += SumLosses(bench.backend(), bench.stream(), mb.losses) / tokens;
    for (const Microbatch::Depth& depth : mb.depths) {
      out["mtp/loss"] += SumLosses(bench.backend(), bench.stream(), depth.losses) / (modules * tokens);
    }
    const std::vector<RoutingStatistics> routing = ReadRouting(bench.backend(), bench.stream(), mb);
    counts.resize(routing.size());
    for (size_t layer = 0; layer < routing.size(); ++layer) {
      out["moe/balance_loss"] += routing[layer].balance_loss_sum / training.sequences;
      counts[layer].resize(routing[layer].counts.size());
      for (size_t e = 0; e < counts[layer].size(); ++e) counts[layer][e] += routing[layer].counts[e];
    }
    model.Backward(bench.context(), objective, mb, Model::Weights::kNow);
    mb.saved.Reset();
  }
  for (const std::vector<int64_t>& layer : counts) {
    double total = 0, most = 0;
    for (const int64_t count : layer) total += count, most = std::max(most, static_cast<double>(count));
    const double mean = total / layer.size();
    out["moe/max_violation"] += (most - mean) / mean / counts.size();
  }
  double squares = 0;
  for (const auto& parameter : model.parameters().all()) {
    if (!parameter->grad()) continue;
    for (const float g : bench.Read(parameter->grad())) squares += static_cast<double>(g) * g;
    bench.backend().Zero(bench.stream(), parameter->grad());
  }
  out["train/grad_norm"] = std::sqrt(squares);
  return out;
}

TEST_P(GoldenTest, FirstStepHasTheLossesAndGradientNormOfTransformers) {
  Load({});
  ASSERT_NE(model_, nullptr);
  if (!golden_.trains) {
    // Quantised weights are for reading only.
    EXPECT_TRUE(GetParam().ends_with("fp8")) << "train.json is missing";
    return;
  }
  for (const GoldenRun& run : golden_.training.runs) {
    for (const int64_t microbatch_sequences : {golden_.training.sequences, int64_t{1}}) {
      auto got = FirstStep(bench_, *model_, golden_.training, run, microbatch_sequences);
      for (const auto& [name, want] : run.steps.at(0).metrics) {
        ASSERT_TRUE(got.contains(name)) << name;
        EXPECT_NEAR(got[name], want, 1e-4 * std::abs(want))
            << run.name << ", " << name << ", microbatches of " << microbatch_sequences;
      }
    }
  }
}

// Every tensor of the folder is a piece of a parameter or a copy of one, with the same shape, and the
// reverse.
TEST_P(GoldenTest, PiecesAreTheTensorsOfTheFolder) {
  Load({});
  ASSERT_NE(model_, nullptr);
  const absl::StatusOr<SafetensorsFolder> folder = SafetensorsFolder::Open(golden_.folder);
  ASSERT_TRUE(folder.ok()) << std::string(folder.status().message());
  std::map<std::string, std::vector<int64_t>> pieces;
  for (const auto& parameter : model_->parameters().all()) {
    for (const Piece& piece : parameter->spec().pieces) {
      std::vector<int64_t> shape;
      for (int i = 0; i < piece.shape.rank(); ++i) shape.push_back(piece.shape[i]);
      EXPECT_TRUE(pieces.emplace(piece.name, shape).second) << piece.name << " twice";
    }
  }
  for (const PieceAlias& alias : model_->aliases()) {
    ASSERT_TRUE(pieces.contains(alias.of)) << alias.of;
    pieces[alias.name] = pieces[alias.of];
  }
  for (const std::string& name : folder->names()) {
    if (name.ends_with("_scale_inv")) continue;
    ASSERT_TRUE(pieces.contains(name)) << name << " is in the folder only";
    EXPECT_EQ(folder->Find(name)->shape, pieces[name]) << name;
    pieces.erase(name);
  }
  for (const auto& [name, shape] : pieces) ADD_FAILURE() << name << " is in the model only";
}

INSTANTIATE_TEST_SUITE_P(Models, GoldenTest, testing::ValuesIn(GoldenFolders(MOEBIUS_GOLDEN_ROOT)),
                         [](const auto& info) { return FileName(info.param); });

}  // namespace
}  // namespace moebius
