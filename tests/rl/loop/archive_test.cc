// Every sample of a step, read back.
#include "rl/loop/archive.h"

#include <cmath>

#include "core/io/hdf5_file.h"
#include "gtest/gtest.h"
#include "tests/core/io/scratch.h"
#include "tests/rl/loop/archived.h"
#include "tests/rl/loop/samples.h"

namespace moebius {
namespace {

TEST(ArchiveTest, HoldsEverySample) {
  const Scratch scratch;
  std::vector<RolloutGroup> groups = MakeSamples({{1, 0, std::nullopt}, {0, 1}});
  groups[0].samples[1].score.parts = {{"format", 0.25}, {"dense", 0.5}};
  groups[1].samples[0].score.parts = {{"dense", 1}};
  uint64_t number = 40;
  for (RolloutGroup& g : groups) {
    g.prompt_routes.assign(4 * g.prompt.size(), static_cast<Route>(++number));
    for (RolloutSample& s : g.samples) {
      s.sequence = ++number;
      s.routes.assign(4 * (s.tokens.size() - 1), static_cast<Route>(number));
    }
  }
  groups[0].prompt_routes[3] = kNoRoute;
  groups[0].samples[1].score.extracted = "12";
  groups[0].samples[1].score.visible = 1;
  groups[1].samples[0].score.differs = true;
  const std::vector<double> advantages = {1, -1, NAN};  // the second group made room for another
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
  EXPECT_EQ(*file.IntAttribute("route_size"), 4);
  const auto routes = ReadAll<uint16_t>(file, "routes");
  const auto route_ends = ReadAll<int64_t>(file, "route_ends"), sequence = ReadAll<int64_t>(file, "sequence");
  const auto dense = ReadAll<double>(file, "reward_dense"), format = ReadAll<double>(file, "reward_format");
  EXPECT_EQ(dense[1], 0.5);
  EXPECT_EQ(dense[3], 1);
  EXPECT_EQ(format[1], 0.25);
  for (const size_t none : {0, 2, 4}) EXPECT_TRUE(std::isnan(dense[none]) && std::isnan(format[none]));
  EXPECT_TRUE(std::isnan(format[3]));
  const auto visible = ReadAll<double>(file, "visible"), differs = ReadAll<double>(file, "differs");
  const auto extracted_ends = ReadAll<int64_t>(file, "extracted_ends");
  const std::string extracted = *file.ReadBytes("extracted");
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
      std::vector<Route> of_all = g.prompt_routes;
      of_all.insert(of_all.end(), s.routes.begin(), s.routes.end());
      EXPECT_EQ(part(routes, route_ends), of_all);
      EXPECT_EQ(sequence[i], static_cast<int64_t>(s.sequence));
      EXPECT_EQ(part(text, text_ends), s.text);
      EXPECT_EQ(part(verdict, verdict_ends), s.score.verdict);
      EXPECT_EQ(problem[i], static_cast<int64_t>(g.problem));
      EXPECT_EQ(std::isnan(reward[i]), !s.score.reward.has_value());
      EXPECT_EQ(std::isnan(correct[i]), !s.score.correct.has_value());
      EXPECT_TRUE(std::isnan(reward[i]) || reward[i] == *s.score.reward);
      EXPECT_TRUE(i >= 2 ? std::isnan(advantage[i]) : advantage[i] == advantages[i]);
      EXPECT_EQ(part(extracted, extracted_ends), s.score.extracted);
      EXPECT_EQ(visible[i] == 1, i == 1);
      EXPECT_EQ(differs[i] == 1, i == 3);
      EXPECT_EQ(finished[i] != 0, s.finished);
      ++i;
    }
  }
}

}  // namespace
}  // namespace moebius
