// Problems from tasks: wording, splits, golds, and worked answers that are what they claim.
#include <algorithm>
#include <map>
#include <set>

#include "core/base/strings.h"
#include "gtest/gtest.h"
#include "rl/problems/problem.h"
#include "rl/problems/problems.pb.h"
#include "rl/problems/search_trace.h"

namespace moebius {
namespace {

std::unique_ptr<ProblemSet> Make(const proto::Problems& problems, TaskSplit split = TaskSplit::kTrain) {
  absl::StatusOr<std::unique_ptr<ProblemSet>> set = MakeProblemSet(problems, split);
  EXPECT_TRUE(set.ok()) << set.status();
  return *std::move(set);
}

proto::Problems OfKind(const std::string& kind) {
  proto::Problems problems;
  problems.set_kind(kind);
  return problems;
}

std::string MessageOf(const proto::Problems& problems) {
  const auto set = MakeProblemSet(problems, TaskSplit::kTrain);
  return set.ok() ? "" : std::string(set.status().message());
}

TEST(ProceduralTest, DefaultsAreThoseOfTheTasks) {
  const proto::Problems p;
  const TaskOptions o;
  EXPECT_EQ(p.kind(), o.kind);
  EXPECT_EQ(p.seed(), o.seed);
  EXPECT_EQ(p.held_out(), o.held_out);
  EXPECT_EQ(p.sort_length(), o.sort_length);
  EXPECT_EQ(p.add_digits(), o.add_digits);
  EXPECT_EQ(p.multiply_low(), o.multiply_low);
  EXPECT_EQ(p.multiply_high(), o.multiply_high);
  EXPECT_EQ(p.countdown_numbers(), o.countdown_numbers);
  EXPECT_EQ(p.countdown_highest(), o.countdown_highest);
  EXPECT_EQ(p.countdown_target(), o.countdown_target);
  EXPECT_EQ(p.countdown_division(), o.countdown_division);
  EXPECT_EQ(p.maze_rows(), o.maze_rows);
  EXPECT_EQ(p.maze_cols(), o.maze_cols);
  EXPECT_EQ(p.maze_walls(), o.maze_walls);
  EXPECT_EQ(p.maze_distance(), o.maze_distance);
  EXPECT_EQ(p.maze_shortest(), o.maze_shortest);
  EXPECT_EQ(p.logic_persons(), o.logic_persons);
  EXPECT_EQ(p.logic_statements(), o.logic_statements);
}

TEST(ProceduralTest, AsksWhatTheTaskAsksAndJudgesAsItGrades) {
  const auto set = Make(OfKind("sort"));
  const auto task = *MakeTask({.kind = "sort"});
  EXPECT_EQ(set->size(), 0);
  EXPECT_TRUE(set->has_dense());
  for (const uint64_t index : {0u, 7u, 1000u}) {
    const TaskItem item = task->Item(index);
    const Problem problem = set->At(index);
    ASSERT_EQ(problem.messages.size(), 1u);
    EXPECT_EQ(problem.messages[0].role, "user");
    EXPECT_EQ(problem.messages[0].content, item.prompt);
    EXPECT_EQ(problem.gold, item.gold);
    EXPECT_EQ(problem.id, Concat("sort/train/", index));
    for (const std::string& answer : {item.gold, std::string("12"), std::string("99999")}) {
      const Judgement judged = *set->Judge(problem, answer);
      const TaskScore score = task->Grade(item, answer);
      EXPECT_EQ(judged.correct, score.correct);
      EXPECT_EQ(judged.dense, score.dense);
      EXPECT_EQ(judged.verdict, score.correct == 1 ? "equal" : "different");
      EXPECT_FALSE(judged.depends_on_time);
    }
  }
}

TEST(ProceduralTest, EveryKnobReachesItsTask) {
  proto::Problems problems = OfKind("maze");
  problems.set_maze_rows(3);
  problems.set_maze_cols(4);
  const std::string maze = Make(problems)->At(0).messages[0].content;
  EXPECT_EQ(std::count(maze.begin(), maze.end(), '\n'), 3);
  EXPECT_EQ(maze.find('\n'), 4u);
  problems = OfKind("add");
  problems.set_add_digits(1);
  EXPECT_EQ(Make(problems)->At(3).messages[0].content.size(), 4u);
  problems = OfKind("logic");
  problems.set_logic_persons(2);
  EXPECT_EQ(Make(problems)->At(0).gold.size(), 2u);
  problems = OfKind("sort");
  problems.set_sort_length(9);
  problems.set_style(proto::Problems::SENTENCE);
  problems.set_seed(5);
  const Problem sort = Make(problems)->At(2);
  EXPECT_EQ(sort.gold.size(), 9u);
  EXPECT_TRUE(sort.messages[0].content.starts_with("Sort the digits "));
  problems.set_seed(6);
  EXPECT_NE(Make(problems)->At(2).gold, sort.gold);
}

TEST(ProceduralTest, APromptOfOnesOwnIsFilledIn) {
  proto::Problems problems = OfKind("multiply");
  problems.set_multiply_high(12);
  problems.set_prompt("What is {a} * {b}? Answer with the number only.");
  problems.set_system("Be brief.");
  const auto set = Make(problems);
  for (uint64_t i = 0; i < 50; ++i) {
    const Problem problem = set->At(i);
    ASSERT_EQ(problem.messages.size(), 2u);
    EXPECT_EQ(problem.messages[0].role, "system");
    EXPECT_EQ(problem.messages[0].content, "Be brief.");
    int a = 0, b = 0;
    const std::string& asked = problem.messages[1].content;
    ASSERT_EQ(std::sscanf(asked.c_str(), "What is %d * %d?", &a, &b), 2) << asked;
    EXPECT_EQ(asked, Concat("What is ", a, " * ", b, "? Answer with the number only."));
    EXPECT_EQ(problem.gold, Concat(a * b));
    EXPECT_TRUE(2 <= std::min(a, b) && std::max(a, b) <= 12) << asked;
  }
  problems.set_prompt("{question} Put it in \\boxed{}: {a}");
  const std::string asked = Make(problems)->At(0).messages[1].content;
  EXPECT_NE(asked.find("= Put it in \\boxed{}: "), std::string::npos) << asked;
}

TEST(ProceduralTest, HeldOutProductsShareNoUnorderedPairWithTraining) {
  proto::Problems problems = OfKind("multiply");
  problems.set_multiply_high(12);
  problems.set_prompt("{a} {b}");
  problems.set_held_out(0.3);
  std::set<std::pair<int, int>> pairs[2];
  for (const TaskSplit split : {TaskSplit::kTrain, TaskSplit::kHeldOut}) {
    problems.set_seed(split == TaskSplit::kTrain ? 1 : 2);
    const auto set = Make(problems, split);
    for (uint64_t i = 0; i < 2000; ++i) {
      int a = 0, b = 0;
      std::sscanf(set->At(i).messages[0].content.c_str(), "%d %d", &a, &b);
      pairs[split == TaskSplit::kHeldOut].insert({std::min(a, b), std::max(a, b)});
    }
  }
  EXPECT_EQ(pairs[0].size() + pairs[1].size(), 66u);  // all pairs of 2 to 12
  for (const auto& pair : pairs[1]) EXPECT_FALSE(pairs[0].contains(pair)) << pair.first << " " << pair.second;
}

TEST(ProceduralTest, MistakesNameTheirField) {
  EXPECT_NE(MessageOf(OfKind("sorts")).find("did you mean \"sort\"?"), std::string::npos);
  proto::Problems problems = OfKind("sort");
  problems.set_sort_length((int64_t{1} << 32) + 5);
  EXPECT_NE(MessageOf(problems).find("sort_length"), std::string::npos);
  problems = OfKind("sort");
  problems.set_held_out(1);
  EXPECT_NE(MessageOf(problems).find("held_out"), std::string::npos);
  problems = OfKind("sort");
  problems.set_prompt("Sort {a} {b}");
  EXPECT_NE(MessageOf(problems).find("problems.prompt"), std::string::npos);
  problems = OfKind("multiply");
  problems.set_prompt("What is {a}?");
  EXPECT_NE(MessageOf(problems).find("problems.prompt"), std::string::npos);
  problems = OfKind("maze");
  problems.set_countdown_scratchpad(true);
  EXPECT_NE(MessageOf(problems).find("problems.countdown_scratchpad"), std::string::npos);
  problems = OfKind("countdown");
  problems.set_countdown_scratchpad(true);
  problems.set_scratchpad_tries(0);
  EXPECT_NE(MessageOf(problems).find("problems.scratchpad_tries"), std::string::npos);
  problems.set_scratchpad_tries(4);
  problems.set_scratchpad_patient(1.5);
  EXPECT_NE(MessageOf(problems).find("problems.scratchpad_patient"), std::string::npos);
  problems = OfKind("sort");
  problems.set_jsonl("x.jsonl");
  EXPECT_NE(MessageOf(problems).find("both kind"), std::string::npos);
}

TEST(ProceduralTest, WorkedAnswersOfTasksAreRight) {
  for (const char* kind : {"sort", "add", "multiply", "countdown", "maze", "logic"}) {
    const auto set = Make(OfKind(kind));
    for (uint64_t i = 0; i < 100; ++i) {
      const Problem problem = set->At(i);
      const WorkedAnswer worked = set->Demonstration(problem, i);
      EXPECT_EQ(worked.thoughts, "");
      EXPECT_EQ((*set->Judge(problem, worked.answer)).correct, 1) << problem.id;
    }
  }
}

}  // namespace
}  // namespace moebius
