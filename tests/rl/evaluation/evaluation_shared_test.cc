// The public files themselves: all rows are read, and their own solutions are right.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "core/base/strings.h"
#include "rl/evaluation/benchmark.h"
#include "rl/evaluation/sources.h"

namespace moebius {
namespace {

const std::string kShared = MOEBIUS_SHARED_DIR "/data";

std::vector<std::string> Texts(const std::string& path, const std::string& field) {
  std::vector<std::string> out;
  SourceReader reader(kShared, "test");
  EXPECT_TRUE(reader
                  .ReadJsonRows(path,
                                [&](const nlohmann::json& object, const std::string&) {
                                  out.push_back(object.at(field).get<std::string>());
                                  return absl::OkStatus();
                                })
                  .ok());
  return out;
}

// Answers to questions 0, 1, ... that must all be right.
void ExpectAllRight(const Benchmark& benchmark, const std::vector<std::string>& answers) {
  std::vector<Attempt> attempts;
  for (size_t i = 0; i < answers.size(); ++i) attempts.push_back({i, answers[i]});
  const auto graded = benchmark.grader->Grade(attempts);
  ASSERT_TRUE(graded.ok()) << graded.status();
  for (size_t i = 0; i < graded->size(); ++i) {
    EXPECT_EQ((*graded)[i].outcome, Outcome::kRight)
        << benchmark.questions[i].id << ": " << (*graded)[i].verdict << ", " << (*graded)[i].extracted;
  }
}

TEST(SharedData, Gsm8kSolutionsAreRight) {
  const auto benchmark = MakeBenchmark("gsm8k", {.data = kShared});
  ASSERT_TRUE(benchmark.ok()) << benchmark.status();
  ASSERT_EQ(benchmark->questions.size(), 1319u);
  ExpectAllRight(*benchmark, Texts(kShared + "/gsm8k/test.jsonl", "answer"));
}

TEST(SharedData, MmluIsWhole) {
  const auto benchmark = MakeBenchmark("mmlu", {.data = kShared});
  ASSERT_TRUE(benchmark.ok()) << benchmark.status();
  EXPECT_EQ(benchmark->questions.size(), 14042u);
  EXPECT_EQ(benchmark->examples.size(), 57u);
  for (const ExampleSet& set : benchmark->examples) EXPECT_EQ(set.examples.size(), 5u);
}

TEST(SharedData, HumanEvalAndMbppSolutionsPassTheirTests) {
  auto sandbox = sandbox::Sandbox::Start({.runner = {.slots = 2, .without = {}}});
  ASSERT_TRUE(sandbox.ok()) << sandbox.status();
  for (const Asking asking : {Asking::kText, Asking::kChat}) {
    const auto humaneval =
        MakeBenchmark("humaneval", {.data = kShared, .asking = asking, .sandbox = sandbox->get()});
    ASSERT_TRUE(humaneval.ok()) << humaneval.status();
    ASSERT_EQ(humaneval->questions.size(), 164u);
    std::vector<std::string> answers = Texts(kShared + "/humaneval/HumanEval.jsonl.gz", "canonical_solution");
    for (std::string& answer : answers)
      answer = asking == Asking::kText ? "\n" + answer : Concat("```python\n", answer, "```");
    ExpectAllRight(*humaneval, answers);
  }
  const auto mbpp = MakeBenchmark("mbpp", {.data = kShared, .sandbox = sandbox->get()});
  ASSERT_TRUE(mbpp.ok()) << mbpp.status();
  ASSERT_EQ(mbpp->questions.size(), 500u);
  std::vector<std::string> programs = Texts(kShared + "/mbpp/mbpp.jsonl", "code");
  programs = {programs.begin() + 10, programs.begin() + 510};  // task_id 11 to 510
  ExpectAllRight(*mbpp, programs);
}

}  // namespace
}  // namespace moebius
