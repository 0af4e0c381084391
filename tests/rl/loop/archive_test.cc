// Every sample of a step, read back.
#include "rl/loop/archive.h"

#include <cmath>

#include "core/io/hdf5_file.h"
#include "gtest/gtest.h"
#include "tests/core/io/scratch.h"
#include "tests/rl/loop/samples.h"

namespace moebius {
namespace {

template <typename T>
std::vector<T> ReadAll(const Hdf5File& file, const char* name) {
  std::vector<T> out((*file.Find(name)).length);
  EXPECT_TRUE(file.Read(name, 0, std::span<T>(out)).ok()) << name;
  return out;
}

TEST(ArchiveTest, HoldsEverySample) {
  const Scratch scratch;
  std::vector<RolloutGroup> groups = MakeSamples({{1, 0, std::nullopt}, {0, 1}});
  const std::vector<double> advantages = {1, -1, NAN, -0.5, 0.5};
  const std::string path = ArchivePath(scratch.folder(), 12);
  EXPECT_TRUE(path.ends_with("rollout-00000012.h5"));
  ASSERT_TRUE(WriteArchive(path, groups, advantages, 77).ok());
  const Hdf5File file = *Hdf5File::Open(path);
  EXPECT_EQ(*file.IntAttribute("seed"), 77);
  EXPECT_FALSE(file.Has("proximal")) << "the run has none";
  const auto tokens = ReadAll<int32_t>(file, "tokens"), prompts = ReadAll<int32_t>(file, "prompt_tokens");
  const auto logprobs = ReadAll<float>(file, "logprobs"), reference = ReadAll<float>(file, "reference"),
             sampling = ReadAll<float>(file, "sampling_logprobs");
  const auto ends = ReadAll<int64_t>(file, "token_ends"), prompt_ends = ReadAll<int64_t>(file, "prompt_ends"),
             text_ends = ReadAll<int64_t>(file, "text_ends"),
             verdict_ends = ReadAll<int64_t>(file, "verdict_ends"),
             problem = ReadAll<int64_t>(file, "problem");
  const auto reward = ReadAll<double>(file, "reward"), correct = ReadAll<double>(file, "correct"),
             advantage = ReadAll<double>(file, "advantage");
  const auto finished = ReadAll<uint8_t>(file, "finished");
  const std::string text = *file.ReadBytes("text"), verdict = *file.ReadBytes("verdict");
  ASSERT_EQ(ends.size(), 5u);
  size_t i = 0;
  for (const RolloutGroup& g : groups) {
    for (const RolloutSample& s : g.samples) {
      const auto part = [&](const auto& all, const std::vector<int64_t>& of) {
        using All = std::decay_t<decltype(all)>;
        return All(all.begin() + (i == 0 ? 0 : of[i - 1]), all.begin() + of[i]);
      };
      EXPECT_EQ(part(tokens, ends), s.tokens);
      EXPECT_EQ(part(logprobs, ends), s.logprobs);
      EXPECT_EQ(part(sampling, ends), s.sampling_logprobs);
      EXPECT_EQ(part(reference, ends), s.reference);
      EXPECT_EQ(part(prompts, prompt_ends), g.prompt);
      EXPECT_EQ(part(text, text_ends), s.text);
      EXPECT_EQ(part(verdict, verdict_ends), s.score.verdict);
      EXPECT_EQ(problem[i], static_cast<int64_t>(g.problem));
      EXPECT_EQ(std::isnan(reward[i]), !s.score.reward.has_value());
      EXPECT_EQ(std::isnan(correct[i]), !s.score.correct.has_value());
      EXPECT_TRUE(std::isnan(reward[i]) || reward[i] == *s.score.reward);
      EXPECT_TRUE(std::isnan(advantages[i]) ? std::isnan(advantage[i]) : advantage[i] == advantages[i]);
      EXPECT_EQ(finished[i] != 0, s.finished);
      ++i;
    }
  }
}

}  // namespace
}  // namespace moebius
