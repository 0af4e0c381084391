#include "optim/checkpoint.h"

#include <sys/resource.h>

#include <csignal>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "core/io/atomic_file.h"
#include "core/io/file.h"
#include "core/model/convert.h"
#include "gtest/gtest.h"
#include "optim/stored_slices.h"
#include "tests/core/io/scratch.h"
#include "tests/optim/training.h"

namespace moebius {
namespace {

TrainConfig Config(DType moments = DType::kF32) {
  TrainConfig c;
  c.steps = 20;
  c.schedule.lr = 1e-2;
  c.optimizer.moments = moments;
  c.optimizer.ema_decay = 0.9;
  return c;
}

// Writes beyond `bytes` of any file fail, as on a full disk.
class SmallFiles {
 public:
  explicit SmallFiles(rlim_t bytes) : handler_(signal(SIGXFSZ, SIG_IGN)) {
    CHECK_EQ(getrlimit(RLIMIT_FSIZE, &before_), 0);
    const rlimit limit{.rlim_cur = bytes, .rlim_max = before_.rlim_max};
    CHECK_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
  }
  ~SmallFiles() {
    setrlimit(RLIMIT_FSIZE, &before_);
    signal(SIGXFSZ, handler_);
  }

 private:
  void (*handler_)(int);
  rlimit before_;
};

class CheckpointTest : public testing::Test {
 protected:
  absl::Status Save(const Training& t, const std::string& folder) {
    return SaveCheckpoint(folder, *t.trainer, {.instruction_set = "SET"});
  }
  absl::Status Load(Training& t, const std::string& folder, std::string* warning) {
    return LoadCheckpoint(folder, *t.trainer, "SET", warning);
  }

  Scratch scratch_;
  std::string warning_;
};

TEST_F(CheckpointTest, GoesOnBitForBit) {
  for (const DType moments : {DType::kF32, DType::kBF16}) {
    Training whole(Config(moments));
    for (int i = 0; i < 3; ++i) whole.Step(i);
    const std::string folder = scratch_.path(moments == DType::kF32 ? "a" : "b");
    ASSERT_TRUE(Save(whole, folder).ok());
    for (int i = 3; i < 6; ++i) whole.Step(i);

    Training resumed(Config(moments), 2, /*seed=*/99);  // other weights: everything must come from the folder
    ASSERT_TRUE(Load(resumed, folder, &warning_).ok());
    EXPECT_EQ(warning_, "");
    EXPECT_EQ(resumed.trainer->state().step, 3);
    EXPECT_EQ(resumed.trainer->state().sequences, 12);
    for (int i = 3; i < 6; ++i) resumed.Step(i);
    EXPECT_EQ(whole.Weights(), resumed.Weights());
    // Moments, averages and counters too.
    ASSERT_TRUE(Save(whole, folder + "-whole").ok());
    ASSERT_TRUE(Save(resumed, folder + "-resumed").ok());
    for (const char* file : {"model.safetensors", "optimizer.safetensors", "trainer_state.json"}) {
      EXPECT_EQ(*ReadFile(JoinPath(folder + "-whole", file)), *ReadFile(JoinPath(folder + "-resumed", file)))
          << file;
    }
  }
}

TEST_F(CheckpointTest, CarriesTokenizerAndChatTemplateIntoItsExport) {
  Training t(Config());
  const std::string folder = scratch_.path("chat"), exported = scratch_.path("exported");
  const absl::Status saved = SaveCheckpoint(folder, *t.trainer,
                                            {.tokenizer_json = "{\"a\": 1}",
                                             .tokenizer_config_json = "{\"b\": 2}",
                                             .chat_template_jinja = "{{ messages }}\n",
                                             .instruction_set = "SET"});
  ASSERT_TRUE(saved.ok()) << saved;
  ASSERT_TRUE(ConvertCheckpoint(folder, exported, {.dtype = std::nullopt}).ok());
  for (const std::string& where : {folder, exported}) {
    EXPECT_EQ(ReadRaw(JoinPath(where, "tokenizer.json")), "{\"a\": 1}") << where;
    EXPECT_EQ(ReadRaw(JoinPath(where, "tokenizer_config.json")), "{\"b\": 2}") << where;
    EXPECT_EQ(ReadRaw(JoinPath(where, "chat_template.jinja")), "{{ messages }}\n") << where;
  }
  // The manifest knows it.
  WriteRaw(JoinPath(folder, "chat_template.jinja"), "{{ message }}\n");
  EXPECT_TRUE(Contains(VerifyCheckpoint(folder), "chat_template.jinja"));
}

TEST_F(CheckpointTest, RefusesEveryDamagedFileAndNamesIt) {
  Training t(Config());
  t.Step(0);
  const std::string folder = scratch_.path("c");
  ASSERT_TRUE(Save(t, folder).ok());
  for (const char* name :
       {"model.safetensors", "optimizer.safetensors", "trainer_state.json", "config.json", "manifest.json"}) {
    const std::string path = JoinPath(folder, name);
    const std::string good = *ReadFile(path);
    std::string bad = good;
    bad[bad.size() / 2] ^= 1;
    ASSERT_TRUE(WriteFileAtomically(path, bad).ok());
    const absl::Status status = Load(t, folder, &warning_);
    EXPECT_EQ(ExitCode(status), kExitDamaged) << name;
    EXPECT_NE(std::string(status.message()).find(name), std::string::npos) << status.message();
    ASSERT_TRUE(WriteFileAtomically(path, good.substr(0, good.size() / 2)).ok());
    EXPECT_EQ(ExitCode(Load(t, folder, &warning_)), kExitDamaged) << name;
    ASSERT_TRUE(RemoveTree(path).ok());
    const absl::Status lost = Load(t, folder, &warning_);
    EXPECT_EQ(ExitCode(lost), kExitDamaged) << name;
    EXPECT_NE(std::string(lost.message()).find(name), std::string::npos) << lost.message();
    ASSERT_TRUE(WriteFileAtomically(path, good).ok());
  }
  EXPECT_TRUE(Load(t, folder, &warning_).ok());
}

TEST_F(CheckpointTest, RefusesFilesThatTheManifestHasLost) {
  Training t(Config());
  const std::string folder = scratch_.path("lost"), path = JoinPath(folder, "manifest.json");
  ASSERT_TRUE(Save(t, folder).ok());
  const std::string good = *ReadFile(path);
  for (const char* name : {"model.safetensors", "optimizer.safetensors", "trainer_state.json"}) {
    nlohmann::json manifest = nlohmann::json::parse(good);
    ASSERT_EQ(manifest["files"].erase(name), 1u);
    WriteRaw(path, manifest.dump());
    const absl::Status status = Load(t, folder, &warning_);
    EXPECT_EQ(ExitCode(status), kExitDamaged) << name;
    EXPECT_TRUE(Contains(status, name)) << status;
    // Who reads the model alone does not look at the rest.
    EXPECT_EQ(VerifyCheckpoint(folder, CheckpointPart::kModel).ok(),
              std::string_view(name) != "model.safetensors");
  }
}

TEST_F(CheckpointTest, RanksReadEveryFileBetweenThem) {
  Training t(Config());
  const std::string folder = scratch_.path("shared");
  ASSERT_TRUE(Save(t, folder).ok());
  const nlohmann::json manifest = nlohmann::json::parse(*ReadFile(JoinPath(folder, "manifest.json")));
  for (const auto& [name, entry] : manifest["files"].items()) {
    const std::string path = JoinPath(folder, name), good = *ReadFile(path);
    std::string bad = good;
    bad[bad.size() / 2] ^= 1;
    WriteRaw(path, bad);
    for (const int ranks : {1, 2, 5, 20}) {
      int found = 0;
      for (int rank = 0; rank < ranks; ++rank)
        found += !VerifyCheckpoint(folder, CheckpointPart::kAll, rank, ranks).ok();
      EXPECT_EQ(found, 1) << name << " and " << ranks << " ranks";
    }
    WriteRaw(path, good);
  }
}

TEST_F(CheckpointTest, SaysThatAnotherInstructionSetIsNotBitExact) {
  Training t(Config());
  const std::string folder = scratch_.path("d");
  ASSERT_TRUE(Save(t, folder).ok());
  ASSERT_TRUE(LoadCheckpoint(folder, *t.trainer, "OTHER", &warning_).ok());
  EXPECT_NE(warning_.find("OTHER"), std::string::npos);
}

TEST_F(CheckpointTest, LeavesAnEarlierCheckpointUntouchedWhenItCannotWrite) {
  Training t(Config());
  EXPECT_EQ(ExitCode(Save(t, scratch_.path("missing/folder/e"))), kExitCannotWrite);
  const std::string folder = scratch_.path("e");
  ASSERT_TRUE(Save(t, folder).ok());
  const std::string manifest = ReadRaw(JoinPath(folder, "manifest.json"));
  t.Step(0);
  {
    const SmallFiles limit(4096);
    const absl::Status status = Save(t, folder);
    EXPECT_EQ(ExitCode(status), kExitCannotWrite) << status;
  }
  EXPECT_EQ(ReadRaw(JoinPath(folder, "manifest.json")), manifest);
  EXPECT_TRUE(VerifyCheckpoint(folder).ok());
  EXPECT_EQ(ListDir(scratch_.path(""))->size(), 1u) << "nothing is left of the one that failed";
  ASSERT_TRUE(Save(t, folder).ok());
  EXPECT_NE(ReadRaw(JoinPath(folder, "manifest.json")), manifest);
}

TEST_F(CheckpointTest, ExportsTheAveragedWeights) {
  Training t(Config());
  for (int i = 0; i < 3; ++i) t.Step(i);
  const std::string from = scratch_.path("f"), to = scratch_.path("averaged");
  ASSERT_TRUE(Save(t, from).ok());
  const absl::StatusOr<TensorReader> averages = AveragedWeights(from);
  ASSERT_TRUE(averages.ok()) << averages.status();
  ASSERT_TRUE(ConvertCheckpoint(from, to, {.dtype = std::nullopt, .weights = *averages}).ok());

  const auto stored = SafetensorsFolder::Open(from, "optimizer"), weights = SafetensorsFolder::Open(from),
             written = SafetensorsFolder::Open(to);
  int averaged = 0;
  for (const std::string& name : written->names()) {
    const auto values = ReadTensorF32(*written, to, name);
    const std::string original = name.ends_with(".embed_tokens.weight")       ? "model.embed_tokens.weight"
                                 : name.ends_with(".shared_head.head.weight") ? "lm_head.weight"
                                                                              : name;
    if (stored->Has("ema." + original)) {
      EXPECT_EQ(*values, *ReadTensorF32(*stored, from, "ema." + original)) << name;
      if (*values != *ReadTensorF32(*weights, from, original)) ++averaged;
    } else if (weights->Has(name)) {
      EXPECT_EQ(*values, *ReadTensorF32(*weights, from, name)) << name;
    }
  }
  EXPECT_GT(averaged, 20);
}

TEST_F(CheckpointTest, SaysThatARunKeptNoAverages) {
  TrainConfig config = Config();
  config.optimizer.ema_decay = 0;
  Training t(config);
  ASSERT_TRUE(Save(t, scratch_.path("g")).ok());
  EXPECT_EQ(ExitCode(AveragedWeights(scratch_.path("g")).status()), kExitUsage);
  ASSERT_TRUE(ConvertCheckpoint(scratch_.path("g"), scratch_.path("plain"), {.dtype = std::nullopt}).ok());
  const absl::Status none = AveragedWeights(scratch_.path("plain")).status();
  EXPECT_EQ(ExitCode(none), kExitUsage);
  EXPECT_NE(std::string(none.message()).find("has no averaged weights"), std::string::npos) << none;
}

}  // namespace
}  // namespace moebius
