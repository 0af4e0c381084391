#include "launch/run_folder.h"

#include <gtest/gtest.h>
#include <sys/wait.h>

#include "core/base/status.h"
#include "core/io/file.h"
#include "tests/launch/temp_folder.h"

namespace moebius {
namespace {

TEST(RunFolder, MakesTheFoldersOfTheContract) {
  const TempFolder temp;
  const auto run = RunFolder::Open(temp.File("runs/tiny"));
  ASSERT_TRUE(run.ok()) << run.status();
  for (const char* name : {"tensorboard", "samples", "checkpoints", "log"})
    EXPECT_TRUE(FolderExists(run->File(name)));
  EXPECT_EQ(run->checkpoint_path(1000), temp.File("runs/tiny/checkpoints/step-00001000"));
  EXPECT_EQ(run->log_path(3), temp.File("runs/tiny/log/rank-3.log"));
}

TEST(RunFolder, RefusesASecondProcessAndNamesTheFirst) {
  const TempFolder temp;
  auto first = RunFolder::Open(temp.path());
  ASSERT_TRUE(first.ok());
  const auto second = RunFolder::Open(temp.path());
  EXPECT_EQ(ExitCode(second.status()), kExitCannotWrite);
  EXPECT_NE(std::string(second.status().message()).find("process " + std::to_string(getpid())),
            std::string::npos)
      << second.status();
}

TEST(RunFolder, IsFreeAgainAfterItsProcessWasKilled) {
  const TempFolder temp;
  int pipe_fds[2];
  ASSERT_EQ(pipe(pipe_fds), 0);
  const pid_t child = fork();
  if (child == 0) {
    const auto run = RunFolder::Open(temp.path());
    const char ok = run.ok() ? 'y' : 'n';
    (void)!write(pipe_fds[1], &ok, 1);
    pause();
  }
  char ok = 0;
  ASSERT_EQ(read(pipe_fds[0], &ok, 1), 1);
  ASSERT_EQ(ok, 'y');
  EXPECT_FALSE(RunFolder::Open(temp.path()).ok());
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  EXPECT_TRUE(RunFolder::Open(temp.path()).ok());
}

TEST(RunFolder, LeavesNothingOfAStartThatFailed) {
  const TempFolder temp;
  RunFolder::Open(temp.File("runs/tiny"))->DiscardIfUnused();
  EXPECT_FALSE(FolderExists(temp.File("runs"))) << "made for the run alone";
  ASSERT_TRUE(MakeDirs(temp.File("runs/other")).ok());
  RunFolder::Open(temp.File("runs/tiny"))->DiscardIfUnused();
  EXPECT_FALSE(FolderExists(temp.File("runs/tiny")));
  EXPECT_TRUE(FolderExists(temp.File("runs/other")));
  RunFolder::Open(temp.File("runs/other"))->DiscardIfUnused();
  EXPECT_TRUE(FolderExists(temp.File("runs/other"))) << "it was there before";
  EXPECT_TRUE(ListDir(temp.File("runs/other"))->empty()) << "as it was";
  EXPECT_EQ(ExitCode(RunFolder::Open("").status()), kExitUsage);
}

TEST(RunFolder, KeepsWhatARunHasDone) {
  const TempFolder temp;
  const auto saved = RunFolder::Open(temp.File("saved")), logged = RunFolder::Open(temp.File("logged"));
  temp.Write("saved/checkpoints/" + StepName(0) + "/config.json", "{}");
  temp.Write("logged/metrics.jsonl", "{\"step\":1}\n");
  saved->DiscardIfUnused();
  logged->DiscardIfUnused();
  EXPECT_TRUE(FileExists(temp.File("saved/checkpoints/" + StepName(0) + "/config.json")));
  EXPECT_TRUE(FileExists(temp.File("logged/metrics.jsonl")));
}

TEST(RunFolder, SaysWhyAFolderCannotBeUsed) {
  const TempFolder temp;
  temp.Write("file", "x");
  const auto run = RunFolder::Open(temp.File("file/run"));
  EXPECT_EQ(ExitCode(run.status()), kExitCannotWrite);
  EXPECT_NE(std::string(run.status().message()).find("--out"), std::string::npos);
  EXPECT_EQ(ExitCode(RunFolder::OpenForReading(temp.File("none")).status()), kExitMissing);
  EXPECT_EQ(ExitCode(RunFolder::OpenForReading(temp.path()).status()), kExitMissing);
}

class Checkpoints : public testing::Test {
 protected:
  Checkpoints() : run_(*RunFolder::Open(temp_.path())) {
    for (int step : {100, 200, 300, 400}) {
      temp_.Write("checkpoints/" + StepName(step) + "/config.json", "{}");
    }
  }
  TempFolder temp_;
  RunFolder run_;
};

TEST_F(Checkpoints, LatestIsFoundThroughItsLink) {
  EXPECT_EQ(**run_.LatestCheckpoint(), run_.checkpoint_path(400)) << "the last one, where the link was lost";
  ASSERT_TRUE(run_.MarkLatest(300).ok());
  EXPECT_EQ(**run_.LatestCheckpoint(), run_.checkpoint_path(300));
  ASSERT_TRUE(run_.MarkLatest(400).ok());
  EXPECT_EQ(**run_.LatestCheckpoint(), run_.checkpoint_path(400));
  EXPECT_EQ(ExitCode(run_.MarkLatest(500)), kExitDamaged);
  std::filesystem::remove_all(run_.checkpoint_path(400));
  EXPECT_EQ(ExitCode(run_.LatestCheckpoint().status()), kExitDamaged);
}

TEST_F(Checkpoints, OneThatIsDamagedNamesTheWayBackToAnother) {
  const absl::Status damaged = DamagedError("model.safetensors: cut short");
  const std::string latest = run_.checkpoint_path(400);
  EXPECT_EQ(WithWayBack(damaged, latest).message(),
            "model.safetensors: cut short; to go on from step 300: ln -sfn step-00000300 " +
                run_.File("checkpoints/latest"));
  EXPECT_EQ(ExitCode(WithWayBack(damaged, latest)), kExitDamaged);
  EXPECT_EQ(WithWayBack(damaged, latest, true).message(),
            "model.safetensors: cut short; to fork from step 300: --set fork.step=300");
  EXPECT_EQ(WithWayBack(damaged, run_.checkpoint_path(100)), damaged) << "later ones are no way back";
  EXPECT_EQ(WithWayBack(UsageError("no"), latest), UsageError("no"));
  EXPECT_EQ(WithWayBack(damaged, "elsewhere/step-00000003"), damaged);
}

int64_t NoReference(const std::string&) { return -1; }

TEST_F(Checkpoints, PruningKeepsTheNewestAndTheMarkedOnes) {
  ASSERT_TRUE(run_.MarkBest(100).ok());
  ASSERT_TRUE(run_.MarkLatest(400).ok());
  ASSERT_TRUE(run_.PruneCheckpoints(1, -1, NoReference).ok());
  EXPECT_EQ(*run_.CheckpointSteps(), (std::vector<int64_t>{100, 400}));
  ASSERT_TRUE(run_.PruneCheckpoints(7, -1, NoReference).ok());
  EXPECT_EQ(run_.CheckpointSteps()->size(), 2u);
}

TEST_F(Checkpoints, PruningKeepsTheLastThatAStepHasProven) {
  ASSERT_TRUE(run_.MarkLatest(400).ok());
  ASSERT_TRUE(run_.PruneCheckpoints(1, 200, NoReference).ok());
  EXPECT_EQ(*run_.CheckpointSteps(), (std::vector<int64_t>{200, 400}));
}

// Who goes back to one that is kept needs the policy that it compares with.
TEST_F(Checkpoints, PruningKeepsTheReferencesOfThoseThatStay) {
  const auto reference = [&](const std::string& folder) {
    return folder.ends_with("400") ? 300 : folder.ends_with("300") ? 100 : -1;
  };
  ASSERT_TRUE(run_.MarkLatest(400).ok());
  ASSERT_TRUE(run_.PruneCheckpoints(2, -1, reference).ok());
  EXPECT_EQ(*run_.CheckpointSteps(), (std::vector<int64_t>{100, 300, 400}));
  ASSERT_TRUE(run_.PruneCheckpoints(1, -1, reference).ok());
  // 300 stays for 400 alone; what it compares with is not kept for its sake, or all would be.
  EXPECT_EQ(*run_.CheckpointSteps(), (std::vector<int64_t>{300, 400}));
}

// A run that went back to an earlier checkpoint: those beyond it do not push out the ones of its course.
TEST_F(Checkpoints, KeepingCountsNoneBeyondTheLatest) {
  ASSERT_TRUE(run_.MarkLatest(200).ok());
  ASSERT_TRUE(run_.MarkBest(200).ok());
  ASSERT_TRUE(run_.PruneCheckpoints(2, -1, NoReference).ok());
  const std::vector<int64_t> kept = *run_.CheckpointSteps();
  EXPECT_EQ(std::count(kept.begin(), kept.end(), 100), 1) << "the one before";
  EXPECT_EQ(std::count(kept.begin(), kept.end(), 200), 1);
  EXPECT_EQ(std::count(kept.begin(), kept.end(), 400), 0) << "of a course that was given up";
  EXPECT_TRUE(FolderExists(run_.File("checkpoints/given-up-step-00000400")));
}

TEST_F(Checkpoints, CuttingBackForgetsLaterMetricsLoadsAndSamples) {
  temp_.Write("metrics.jsonl", "{\"step\":1}\n{\"step\":2}\n{\"step\":3}\n");
  temp_.Write("expert_load.jsonl", "{\"step\":1,\"load\":[]}\n{\"step\":3,\"load\":[]}\n");
  ASSERT_TRUE(run_.WriteSamples(2, {{2, "a", "b"}}).ok());
  ASSERT_TRUE(run_.WriteSamples(3, {{3, "a", "b"}}).ok());
  ASSERT_TRUE(run_.CutBackTo(2).ok());
  EXPECT_EQ(temp_.Read("metrics.jsonl"), "{\"step\":1}\n{\"step\":2}\n");
  EXPECT_EQ(temp_.Read("expert_load.jsonl"), "{\"step\":1,\"load\":[]}\n");
  EXPECT_EQ(ReadSamples(run_.samples_path())->size(), 1u);
}

TEST_F(Checkpoints, CuttingBackForgetsABestOneOfTheCourseThatWasGivenUp) {
  temp_.Write("metrics.jsonl", "");
  temp_.Write("expert_load.jsonl", "");
  ASSERT_TRUE(run_.MarkBest(200).ok());
  ASSERT_TRUE(run_.CutBackTo(200).ok());
  EXPECT_EQ(std::filesystem::read_symlink(run_.File("checkpoints/best")), "step-00000200");
  ASSERT_TRUE(run_.MarkBest(400).ok());
  ASSERT_TRUE(run_.CutBackTo(300).ok());
  EXPECT_FALSE(std::filesystem::is_symlink(run_.File("checkpoints/best")));
  ASSERT_TRUE(run_.RestoreBest(-1).ok() && run_.RestoreBest(250).ok());
  EXPECT_FALSE(std::filesystem::is_symlink(run_.File("checkpoints/best")));
  ASSERT_TRUE(run_.RestoreBest(200).ok());
  EXPECT_EQ(std::filesystem::read_symlink(run_.File("checkpoints/best")), "step-00000200");
}

TEST(RunFolder, ReadsStepsFromNames) {
  EXPECT_EQ(StepOfName("step-00001000"), 1000);
  EXPECT_EQ(StepName(123456789012), "step-123456789012");
  for (const char* name :
       {"step-", "step-1x", "latest", "step--1", ".step-00000001", "step-99999999999999999999"}) {
    EXPECT_EQ(StepOfName(name), std::nullopt) << name;
  }
}

TEST(RunFolder, StandsForItsLatestCheckpointWhereAModelIsAsked) {
  const TempFolder temp;
  EXPECT_EQ(ModelFolderOf("no/such/model"), "no/such/model");
  const auto run = RunFolder::Open(temp.path());
  ASSERT_TRUE(run.ok()) << run.status();
  EXPECT_EQ(ModelFolderOf(temp.path()), temp.path()) << "nothing of a run in it yet";
  ASSERT_TRUE(run->WriteRecipe("name: \"tiny\"").ok());
  EXPECT_EQ(ModelFolderOf(temp.path()), temp.File("checkpoints/latest"));
  EXPECT_EQ(ModelFolderOf(run->checkpoint_path(7)), run->checkpoint_path(7));
  ASSERT_TRUE(MakeDirs(run->checkpoint_path(7)).ok());
  EXPECT_EQ(ModelFolderOf(temp.path()), run->checkpoint_path(7)) << "a copy that lost its links";
}

TEST(RunFolder, OfAPipelineStandsForTheLastStageThatSaved) {
  const TempFolder temp;
  EXPECT_TRUE(StageFoldersIn(temp.path()).empty());
  EXPECT_EQ(ModelFolderOf(temp.path()), temp.path());
  for (const char* stage : {"01-sft", "02-grpo", "10-again"}) {
    const auto run = RunFolder::Open(temp.File(stage));
    ASSERT_TRUE(run.ok() && run->WriteRecipe("").ok()) << run.status();
    if (stage[1] == '0') continue;  // 10-again has not saved
    ASSERT_TRUE(MakeDirs(run->checkpoint_path(3)).ok());
    ASSERT_TRUE(run->MarkLatest(3).ok());
  }
  ASSERT_TRUE(MakeDirs(temp.File("03-notes")).ok());
  EXPECT_EQ(StageFoldersIn(temp.path()),
            (std::vector<std::string>{temp.File("01-sft"), temp.File("02-grpo"), temp.File("10-again")}));
  EXPECT_EQ(ModelFolderOf(temp.path()), temp.File("02-grpo/checkpoints/latest"));
  EXPECT_TRUE(StageFoldersIn(temp.File("01-sft")).empty()) << "a run of its own";
}

}  // namespace
}  // namespace moebius
