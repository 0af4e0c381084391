#include "rl/evaluation/evaluate.h"

#include <gtest/gtest.h>

#include "core/model/score.h"
#include "rl/evaluation/ask.h"
#include "tests/launch/temp_folder.h"
#include "tests/rl/evaluation/tiny_folder.h"

namespace moebius {
namespace {

std::unique_ptr<LanguageModel> LoadTiny(const std::string& folder, TinyChat chat) {
  WriteTinyFolder(folder, chat);
  auto chosen = ChatTemplateOfFlag(folder, "auto");
  EXPECT_TRUE(chosen.ok()) << chosen.status();
  EXPECT_EQ(chosen->has_value(), chat == TinyChat::kChatMl);
  auto model = LanguageModel::Load(folder, {.device = {.threads = 1}, .compute = "fp32", .chat = *chosen});
  EXPECT_TRUE(model.ok()) << model.status();
  return *std::move(model);
}

std::vector<Sample> Samples(LanguageModel& model, const Benchmark& benchmark,
                            const EvaluateOptions& options) {
  std::vector<Sample> samples;
  EvaluationEvents events;
  events.on_sample = [&](const Sample& sample) {
    samples.push_back(sample);
    return absl::OkStatus();
  };
  const auto result = Evaluate(model, benchmark, options, events);
  EXPECT_TRUE(result.ok()) << result.status();
  return samples;
}

TEST(OptionLogProbs, AreThoseOfScoringWholeSequences) {
  const TempFolder folder;
  const auto model = LoadTiny(folder.path(), TinyChat::kNone);
  std::vector<OptionTokens> options;
  for (const char* option : {" the", " A", " a longer option", " A"})
    options.push_back(*SplitOption(*model, "Question: which?\nAnswer:", option));
  options.push_back(*SplitOption(*model, "Another prompt", " B"));
  const std::vector<double> got = OptionLogProbs(*model, options);
  ASSERT_EQ(got.size(), options.size());
  Arena scratch(model->backend());
  Microbatch microbatch(model->backend(), model->model().num_slots());
  for (size_t i = 0; i < options.size(); ++i) {
    std::vector<int32_t> ids = options[i].before;
    ids.insert(ids.end(), options[i].option.begin(), options[i].option.end());
    const auto rows = ScoreSequences(model->model(), {model->backend(), model->stream(), scratch}, microbatch,
                                     ids, std::vector<int32_t>{0, static_cast<int32_t>(ids.size())});
    double want = 0;
    for (size_t t = options[i].before.size() - 1; t < rows[0].size(); ++t) want += rows[0][t];
    EXPECT_NEAR(got[i], want, 1e-4 * options[i].option.size()) << i;
  }
  EXPECT_NE(got[0], got[1]);
}

TEST(WriteAnswers, EndAtAStopTextThatTokensSplit) {
  const TempFolder folder;
  const auto model = LoadTiny(folder.path(), TinyChat::kNone);
  const std::vector<AnswerRequest> request = {{.prompt = *model->TextPrompt("x"), .max_new = 60}};
  const AnswerOptions free = {.sampling = {.temperature = 1, .seed = 3}};
  const auto whole = WriteAnswers(*model, request, free);
  ASSERT_TRUE(whole.ok()) << whole.status();
  const std::string text = (*whole)[0].text;
  ASSERT_GT(text.size(), 20u);
  AnswerOptions stopped = free;
  stopped.stops = {"never", text.substr(10, 4)};
  const auto cut = WriteAnswers(*model, request, stopped);
  ASSERT_TRUE(cut.ok()) << cut.status();
  EXPECT_EQ((*cut)[0].text, text.substr(0, text.find(stopped.stops[1])));
  EXPECT_TRUE((*cut)[0].finished);
  EXPECT_LT((*cut)[0].tokens, (*whole)[0].tokens);
}

TEST(Evaluate, DrawsTheSameSamplesWhateverTheLimitAndTheBatch) {
  const TempFolder folder;
  const auto model = LoadTiny(folder.path(), TinyChat::kChatMl);
  const auto run = [&](int64_t limit, int64_t batch) {
    const auto benchmark =
        MakeBenchmark("gsm8k", {.data = kEvalData, .asking = Asking::kChat, .limit = limit});
    EXPECT_TRUE(benchmark.ok()) << benchmark.status();
    return Samples(
        *model, *benchmark,
        {.sampling = {.temperature = 1, .seed = 5}, .samples = 3, .max_new = 20, .max_batch = batch});
  };
  const std::vector<Sample> all = run(3, 32), few = run(2, 1);
  ASSERT_EQ(all.size(), 9u);
  ASSERT_EQ(few.size(), 6u);
  for (size_t i = 0; i < few.size(); ++i) {
    EXPECT_EQ(few[i].answer, all[i].answer) << i;
    EXPECT_EQ(few[i].index, static_cast<int64_t>(i % 3));
  }
  EXPECT_NE(all[0].answer, all[1].answer) << "samples of one question differ";
  EXPECT_EQ(all[0].prompt.find("<|im_start|>user\nAda has 3 pens"), 0u) << all[0].prompt;
}

TEST(Evaluate, DropsExamplesThatDoNotFitAndThenSaysTooLong) {
  const TempFolder folder;
  const auto model = LoadTiny(folder.path(), TinyChat::kNone);
  Benchmark benchmark = *MakeBenchmark("add", {.limit = 2});
  benchmark.shots = 3;
  benchmark.examples[0].examples = {
      {std::string(200, 'a'), "1"}, {std::string(200, 'b'), "2"}, {std::string(200, 'c'), "3"}};
  const EvaluateOptions options = {.sampling = {.temperature = 0}, .max_new = 200};
  auto result = Evaluate(*model, benchmark, options, {});
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->fewer_shots, 2);
  EXPECT_EQ(result->too_long, 0);
  EXPECT_EQ(Samples(*model, benchmark, options)[0].prompt.find(std::string(200, 'c')), std::string::npos);

  benchmark.questions[0].ask = std::string(kTinyPositions, 'x');
  result = Evaluate(*model, benchmark, options, {});
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->too_long, 1);
  EXPECT_EQ(Samples(*model, benchmark, options)[0].graded.verdict, "too long");
  benchmark.questions[1].ask = benchmark.questions[0].ask;
  EXPECT_EQ(ExitCode(Evaluate(*model, benchmark, options, {}).status()), kExitUsage);
}

// Golds moved to what the model prefers must all be right, and away from it all wrong.
TEST(Evaluate, TakesTheMostProbableLetterAndTheBestOptionTextByCharacter) {
  const TempFolder folder;
  const auto model = LoadTiny(folder.path(), TinyChat::kNone);
  for (const MmluMode mode : {MmluMode::kLetter, MmluMode::kCloze}) {
    Benchmark benchmark = *MakeBenchmark("mmlu", {.data = kEvalData, .shots = 0, .mmlu = mode});
    std::vector<Sample> samples = Samples(*model, benchmark, {});
    ASSERT_EQ(samples.size(), 4u);
    for (size_t q = 0; q < samples.size(); ++q) {
      size_t best = 0;
      std::vector<double> scores;
      for (size_t o = 0; o < 4; ++o) {
        scores.push_back(samples[q].logprobs[o] / (benchmark.questions[q].options[o].size() - 1.0));
        if (scores[o] > scores[best]) best = o;
      }
      EXPECT_EQ(samples[q].graded.extracted, std::string(1, 'A' + best));
      benchmark.questions[q].gold = samples[q].graded.extracted;
    }
    EXPECT_EQ(Evaluate(*model, benchmark, {}, {})->tally.right, 4);
    for (Question& question : benchmark.questions) question.gold = question.gold == "A" ? "B" : "A";
    EXPECT_EQ(Evaluate(*model, benchmark, {}, {})->tally.right, 0);
  }
}

}  // namespace
}  // namespace moebius
