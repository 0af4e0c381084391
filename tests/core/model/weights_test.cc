// Checkpoints that do not have the model's vocabulary; reading and writing whole models is golden_test.cc.
#include "core/model/weights.h"

#include <gtest/gtest.h>

#include "core/base/status.h"
#include "core/base/strings.h"
#include "core/io/file.h"
#include "core/model/convert.h"
#include "core/model/model_folder.h"
#include "tests/core/io/scratch.h"
#include "tests/core/model/tiny_models.h"

namespace moebius {
namespace {

constexpr int64_t kMore = 3;

class NewRowsTest : public testing::TestWithParam<std::string> {
 protected:
  // Weights of the tiny model, in a folder.
  std::string Saved(const ModelConfig& config) {
    TinyModel tiny(config);
    const auto written = SaveWeights(scratch_.path("saved"), tiny.bench.backend(), tiny.bench.stream(),
                                     tiny.model, DType::kF32);
    EXPECT_TRUE(written.ok()) << written.status();
    return scratch_.path("saved");
  }

  absl::Status Load(const std::string& folder, const ModelConfig& config, const LoadOptions& load) {
    TinyModel tiny(config);
    RETURN_IF_ERROR(LoadWeights(folder, tiny.bench.backend(), tiny.bench.stream(), tiny.model, load));
    return SaveWeights(scratch_.path("loaded"), tiny.bench.backend(), tiny.bench.stream(), tiny.model,
                       DType::kF32)
        .status();
  }

  static std::vector<float> Read(const std::string& folder, const std::string& name) {
    const auto files = SafetensorsFolder::Open(folder);
    EXPECT_TRUE(files.ok()) << files.status();
    return *ReadTensorF32(*files, folder, name);
  }

  void SetUp() override {
    for (const char* name : {"saved", "loaded"}) ASSERT_TRUE(MakeDirs(scratch_.path(name)).ok());
  }

  Scratch scratch_;
};

TEST_P(NewRowsTest, AreTheMeanOfTheOthers) {
  ModelConfig config = TinyConfig(GetParam());
  const int64_t rows = config.vocab_size, columns = config.hidden_size;
  const std::string folder = Saved(config);
  config.vocab_size += kMore;
  const absl::Status loaded = Load(folder, config, {.first_new_token = rows});
  ASSERT_TRUE(loaded.ok()) << loaded;
  for (const TensorSpec& spec : CheckpointTensors(config, DType::kF32)) {
    const std::vector<float> before = Read(folder, spec.name),
                             after = Read(scratch_.path("loaded"), spec.name);
    ASSERT_GE(after.size(), before.size());
    EXPECT_TRUE(std::equal(before.begin(), before.end(), after.begin())) << spec.name;
    const bool by_token = spec.shape == std::vector<int64_t>{rows + kMore, columns};
    ASSERT_EQ(after.size() - before.size(), by_token ? kMore * columns : 0) << spec.name;
    if (!by_token) continue;
    for (int64_t c = 0; c < columns; ++c) {
      double sum = 0;
      for (int64_t r = 0; r < rows; ++r) sum += before[r * columns + c];
      for (int64_t r = rows; r < rows + kMore; ++r) {
        ASSERT_NEAR(after[r * columns + c], sum / static_cast<double>(rows), 1e-6) << spec.name;
      }
    }
  }
}

// Released models often have more rows than their tokenizer has tokens: those that become tokens are new,
// too.
TEST_P(NewRowsTest, PaddingThatBecomesTokensIsNew) {
  const ModelConfig config = TinyConfig(GetParam());
  const int64_t columns = config.hidden_size, first = config.vocab_size - kMore;
  const std::string folder = Saved(config);
  const absl::Status loaded = Load(folder, config, {.first_new_token = first});
  ASSERT_TRUE(loaded.ok()) << loaded;
  for (const TensorSpec& spec : CheckpointTensors(config, DType::kF32)) {
    const std::vector<float> before = Read(folder, spec.name),
                             after = Read(scratch_.path("loaded"), spec.name);
    ASSERT_EQ(after.size(), before.size());
    const bool by_token = spec.shape == std::vector<int64_t>{config.vocab_size, columns};
    const auto kept = before.begin() + (by_token ? first * columns : std::ssize(before));
    EXPECT_TRUE(std::equal(before.begin(), kept, after.begin())) << spec.name;
    if (!by_token) continue;
    for (int64_t c = 0; c < columns; ++c) {
      double sum = 0;
      for (int64_t r = 0; r < first; ++r) sum += before[r * columns + c];
      for (int64_t r = first; r < config.vocab_size; ++r) {
        ASSERT_NEAR(after[r * columns + c], sum / static_cast<double>(first), 1e-6) << spec.name;
      }
    }
  }
}

TEST_P(NewRowsTest, AreRefusedWithoutTheOption) {
  ModelConfig config = TinyConfig(GetParam());
  const std::string folder = Saved(config);
  EXPECT_TRUE(Load(folder, config, {}).ok());
  config.vocab_size += kMore;
  const absl::Status loaded = Load(folder, config, {});
  EXPECT_EQ(ExitCode(loaded), kExitDamaged);
  EXPECT_TRUE(Contains(loaded, "model.embed_tokens.weight has shape")) << loaded;
}

TEST_P(NewRowsTest, OtherShapesStayErrors) {
  const ModelConfig config = TinyConfig(GetParam());
  const std::string folder = Saved(config);
  ModelConfig fewer = config;
  fewer.vocab_size -= 1;
  EXPECT_EQ(ExitCode(Load(folder, fewer, {.first_new_token = fewer.vocab_size})), kExitDamaged);
  ModelConfig wider = config;
  wider.intermediate_size += 8;
  const absl::Status loaded = Load(folder, wider, {.first_new_token = wider.vocab_size});
  EXPECT_EQ(ExitCode(loaded), kExitDamaged);
  EXPECT_TRUE(Contains(loaded, "has shape")) << loaded;
}

TEST_P(NewRowsTest, LayersBeyondTheConfigAreRefusedMtpModulesAreNot) {
  ModelConfig config = TinyConfig(GetParam());
  const std::string folder = Saved(config), out = scratch_.path("folders/to/make");
  config.num_nextn_predict_layers = 0;
  ASSERT_TRUE(WriteConfig(folder, config, DType::kF32).ok());
  EXPECT_TRUE(Load(folder, config, {}).ok());
  const auto without = ConvertCheckpoint(folder, out, {.dtype = std::nullopt});
  ASSERT_TRUE(without.ok()) << without.status();
  EXPECT_EQ(without->mtp_unnamed, GetParam() == "deepseek_v3_mtp");
  config.num_hidden_layers -= 1;
  ASSERT_TRUE(WriteConfig(folder, config, DType::kF32).ok());
  const std::string first = Concat("model.layers.", config.num_hidden_layers, ".");
  for (const absl::Status& status :
       {Load(folder, config, {}), ConvertCheckpoint(folder, out + "2", {.dtype = std::nullopt}).status()}) {
    EXPECT_EQ(ExitCode(status), kExitDamaged);
    EXPECT_TRUE(Contains(status, folder + ": tensors " + first)) << status;
    EXPECT_TRUE(Contains(status, " more have no place in a model")) << status;
  }
}

// A fine-tune saved with a flag that its weights deny would lose its head.
TEST_P(NewRowsTest, AHeadThatIsNotTheEmbeddingIsNotTied) {
  ModelConfig config = TinyConfig(GetParam());
  config.tie_word_embeddings = false;
  const std::string folder = Saved(config), out = scratch_.path("out");
  config.tie_word_embeddings = true;
  ASSERT_TRUE(WriteConfig(folder, config, DType::kF32).ok());
  for (const absl::Status& status :
       {Load(folder, config, {}), ConvertCheckpoint(folder, out, {.dtype = std::nullopt}).status()}) {
    EXPECT_EQ(ExitCode(status), kExitDamaged);
    EXPECT_TRUE(Contains(status, "lm_head.weight differs from model.embed_tokens.weight")) << status;
  }
}

// Read back equal, and no model can be run with them.
TEST_P(NewRowsTest, ATensorThatIsNotFiniteIsNamed) {
  const std::string folder = Saved(TinyConfig(GetParam())), out = scratch_.path("out");
  const auto fine = ConvertCheckpoint(folder, out, {.dtype = std::nullopt});
  ASSERT_TRUE(fine.ok()) << fine.status();
  EXPECT_EQ(fine->not_finite, "");
  const TensorReader ruined = [](const std::string& name) -> absl::StatusOr<std::vector<float>> {
    if (name != "model.norm.weight") return std::vector<float>();
    return std::vector<float>(TinyConfig(GetParam()).hidden_size, std::nanf(""));
  };
  const auto bad = ConvertCheckpoint(folder, out + "2", {.dtype = std::nullopt, .weights = ruined});
  ASSERT_TRUE(bad.ok()) << bad.status();
  EXPECT_EQ(bad->not_finite, "model.norm.weight");
}

// Chat models end with several tokens; a list in config.json alone must not shrink to its first on the way.
TEST_P(NewRowsTest, AllEndsOfTextsAreKept) {
  ModelConfig config = TinyConfig(GetParam());
  const std::string folder = Saved(config);
  config.eos_token_id = 3;
  ASSERT_TRUE(WriteConfig(folder, config, DType::kF32).ok());
  std::string text = ReadRaw(JoinPath(folder, "config.json"));
  const std::string one = "\"eos_token_id\": 3";
  ASSERT_NE(text.find(one), text.npos) << text;
  WriteRaw(JoinPath(folder, "config.json"),
           text.replace(text.find(one), one.size(), "\"eos_token_id\": [3, 5, 4]"));
  int number = 0;
  for (const auto& [generation, ends] : std::vector<std::pair<std::string, std::vector<int32_t>>>{
           {"", {3, 5, 4}},
           {"{\"eos_token_id\": 7, \"top_p\": 0.5}", {3, 5, 4, 7}},
           {"{\"eos_token_id\": [3, 5, 4]}", {3, 5, 4}}}) {
    if (!generation.empty()) WriteRaw(JoinPath(folder, "generation_config.json"), generation);
    const std::string out = scratch_.path(Concat("ends-", number++));
    const auto converted = ConvertCheckpoint(folder, out, {.dtype = std::nullopt});
    ASSERT_TRUE(converted.ok()) << converted.status();
    const auto kept = LoadConfig(out);
    ASSERT_TRUE(kept.ok()) << kept.status();
    EXPECT_EQ(kept->eos_token_id, 3);
    EXPECT_EQ(*EndOfTextIds(out, *kept), ends);
    const std::string written = ReadRaw(JoinPath(out, "generation_config.json"));
    EXPECT_EQ(written.find("top_p") == written.npos, generation.find("top_p") == generation.npos) << written;
  }
}

// Untied; tied; with MTP modules that copy the embedding and the head.
INSTANTIATE_TEST_SUITE_P(, NewRowsTest, testing::Values("qwen2", "qwen3", "deepseek_v3", "deepseek_v3_mtp"),
                         [](const auto& param) { return param.param; });

}  // namespace
}  // namespace moebius
