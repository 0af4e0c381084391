#include "core/layers/parameter.h"

#include <cmath>

#include "gtest/gtest.h"
#include "tests/core/layers/bench.h"

namespace moebius {
namespace {

ParameterSpec Fused(const std::string& name, const std::vector<std::pair<std::string, int64_t>>& rows,
                    int64_t columns) {
  ParameterSpec spec{.name = name, .shape = {}, .pieces = {}};
  int64_t total = 0;
  for (const auto& [piece, count] : rows) {
    spec.pieces.push_back({piece, {count, columns}, total * columns});
    total += count;
  }
  spec.shape = {total, columns};
  return spec;
}

std::vector<float> PieceValues(Bench& bench, const Parameter& parameter, const std::string& name) {
  for (const Piece& piece : parameter.spec().pieces) {
    if (piece.name == name) {
      return GetParameter(bench.backend(), bench.stream(), parameter, piece.offset, piece.shape.elements());
    }
  }
  return {};
}

TEST(ParameterSetTest, InitialValuesDoNotDependOnFusing) {
  Bench bench;
  ParameterSet fused, apart;
  Parameter* both = fused.Add(Fused("gate_up", {{"gate", 30}, {"up", 30}}, 20));
  Parameter* up = apart.Add(Fused("up", {{"up", 30}}, 20));
  Parameter* gate = apart.Add(Fused("gate", {{"gate", 30}}, 20));
  for (ParameterSet* set : {&fused, &apart}) {
    set->Allocate(bench.backend(), bench.stream(), {});
    set->Initialize(bench.backend(), bench.stream(), 5, 0.02f);
  }
  EXPECT_EQ(PieceValues(bench, *both, "gate"), PieceValues(bench, *gate, "gate"));
  EXPECT_EQ(PieceValues(bench, *both, "up"), PieceValues(bench, *up, "up"));
  EXPECT_NE(PieceValues(bench, *gate, "gate"), PieceValues(bench, *up, "up"));
}

TEST(ParameterSetTest, InitialValuesAreNormalOnesAndZeros) {
  Bench bench;
  ParameterSet set;
  Parameter* matrix = AddParameter(set, "matrix", {300, 300});  // large enough for several threads
  Parameter* gain = AddParameter(set, "gain", {9}, Init::kOnes);
  Parameter* bias = AddParameter(set, "bias", {9}, Init::kZeros);
  set.Allocate(bench.backend(), bench.stream(), {});
  set.Initialize(bench.backend(), bench.stream(), 5, 0.5f);
  double sum = 0, squares = 0;
  const std::vector<float> values = bench.Read(matrix->weight());
  for (const float value : values) sum += value, squares += value * value;
  EXPECT_NEAR(sum / values.size(), 0, 5 * 0.5 / 300);
  EXPECT_NEAR(std::sqrt(squares / values.size()), 0.5, 0.01);
  EXPECT_EQ(bench.Read(gain->weight()), std::vector<float>(9, 1.0f));
  EXPECT_EQ(bench.Read(bias->weight()), std::vector<float>(9, 0.0f));
  set.Initialize(bench.backend(), bench.stream(), 6, 0.5f);
  EXPECT_NE(bench.Read(matrix->weight()), values) << "another seed, the same values";
}

TEST(ParameterTest, GradientsStartAtZeroAndOnlyTrainableOnesHaveThem) {
  Bench bench;
  ParameterSet set;
  Parameter* weight = AddParameter(set, "w", {4, 5});
  Parameter* bias = set.Add({.name = "b", .shape = {4}, .pieces = {{"b", {4}, 0}}, .trainable = false});
  set.Allocate(bench.backend(), bench.stream(), {});
  EXPECT_EQ(bench.Read(weight->grad()), std::vector<float>(20, 0.0f));
  EXPECT_FALSE(bias->grad());
  EXPECT_EQ(set.elements(), 24);
}

TEST(ParameterTest, InBf16TheMasterKeepsWhatTheWeightRounds) {
  Bench bench;
  ParameterSet set;
  Parameter* matrix = AddParameter(set, "w", {1, 3});
  Parameter* gain = AddParameter(set, "g", {3}, Init::kOnes);
  set.Allocate(bench.backend(), bench.stream(), {.act = DType::kBF16});
  const std::vector<float> values = {1.0009765625f, -3.14159f, 1e-8f};
  SetParameter(bench.backend(), bench.stream(), *matrix, 0, values);
  SetParameter(bench.backend(), bench.stream(), *gain, 0, values);
  EXPECT_EQ(bench.Read(matrix->master()), values);
  EXPECT_EQ(bench.Read(matrix->weight()), RoundedToBf16(values));
  EXPECT_EQ(bench.Read(gain->weight()), values) << "gains are read in f32";
  EXPECT_EQ(gain->weight().data, gain->master().data);
  EXPECT_EQ(GetParameter(bench.backend(), bench.stream(), *matrix, 1, 2),
            (std::vector<float>{values[1], values[2]}));
}

TEST(ParameterTest, WithoutTrainingOnlyTheWeightIsKept) {
  Bench bench;
  ParameterSet set;
  Parameter* matrix = AddParameter(set, "w", {1, 3});
  set.Allocate(bench.backend(), bench.stream(), {.act = DType::kBF16, .training = false});
  EXPECT_FALSE(matrix->master());
  EXPECT_FALSE(matrix->grad());
  const std::vector<float> values = {0.1f, 0.2f, 0.3f};
  SetParameter(bench.backend(), bench.stream(), *matrix, 0, values);
  EXPECT_EQ(GetParameter(bench.backend(), bench.stream(), *matrix, 0, 3), RoundedToBf16(values));
}

TEST(ParameterTest, OnlyMatricesDecay) {
  ParameterSet set;
  EXPECT_TRUE(AddParameter(set, "w", {4, 5})->decays());
  EXPECT_TRUE(AddParameter(set, "experts", {2, 4, 5})->decays());
  EXPECT_FALSE(AddParameter(set, "gain", {4}, Init::kOnes)->decays());
}

TEST(ParameterSetDeathTest, PiecesMustCoverTheParameterWithoutHoles) {
  ParameterSet set;
  EXPECT_DEATH(set.Add({.name = "w", .shape = {4, 2}, .pieces = {{"a", {1, 2}, 0}, {"b", {2, 2}, 4}}}),
               "piece b");
  EXPECT_DEATH(set.Add({.name = "w", .shape = {4, 2}, .pieces = {{"a", {3, 2}, 0}}}), "w");
}

}  // namespace
}  // namespace moebius
