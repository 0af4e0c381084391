// Properties that every task has: golds are right, other answers are not, splits are apart, items are pure
// functions of their index.
#include <algorithm>
#include <cctype>
#include <set>

#include "core/base/strings.h"
#include "gtest/gtest.h"
#include "rl/tasks/distinct.h"
#include "rl/tasks/task.h"

namespace moebius {
namespace {

std::vector<TaskOptions> EveryTask() {
  return {
      {.kind = "sort"},
      {.kind = "add"},
      {.kind = "multiply"},
      {.kind = "countdown"},
      {.kind = "countdown",
       .style = PromptStyle::kSentence,
       .countdown_numbers = 6,
       .countdown_division = true},
      {.kind = "maze"},
      {.kind = "maze", .style = PromptStyle::kSentence, .maze_rows = 8, .maze_cols = 6, .maze_distance = 5},
      {.kind = "maze", .maze_shortest = false},
      {.kind = "logic", .logic_persons = 2, .logic_statements = 2},
      {.kind = "logic"},
      {.kind = "logic", .style = PromptStyle::kSentence, .logic_persons = 4}};
}

std::unique_ptr<Task> Make(const TaskOptions& options) {
  absl::StatusOr<std::unique_ptr<Task>> task = MakeTask(options);
  EXPECT_TRUE(task.ok()) << task.status();
  return *std::move(task);
}

// What the splits promise to keep apart, computed here from prompts alone. Logic's renaming of persons is
// left out: its prompts must differ at least.
std::string CanonicalOf(const TaskOptions& options, const TaskItem& item) {
  if (options.kind == "sort") return item.gold;
  if (options.kind == "add" || options.kind == "multiply") {
    const size_t sign = item.prompt.find_first_of("+*");
    std::string a = item.prompt.substr(0, sign);
    std::string b = item.prompt.substr(sign + 1, item.prompt.find('=') - sign - 1);
    return Concat(std::min(a, b), "&", std::max(a, b));
  }
  if (options.kind == "countdown") {
    std::vector<int64_t> sorted(item.data.begin() + 1, item.data.end());
    std::sort(sorted.begin(), sorted.end());
    std::string text = Concat(item.data[0], ":");
    for (const int64_t number : sorted) text += Concat(" ", number);
    return text;
  }
  return item.prompt;
}

TEST(TasksTest, EveryGoldIsRightAndBlanksAroundItAreForgiven) {
  for (const TaskOptions& options : EveryTask()) {
    const auto task = Make(options);
    for (uint64_t i = 0; i < 200; ++i) {
      const TaskItem item = task->Item(i);
      for (const std::string& answer : {item.gold, " " + item.gold + "\n"}) {
        const TaskScore score = task->Grade(item, answer);
        ASSERT_EQ(score.correct, 1) << options.kind << ": " << item.prompt << answer;
        ASSERT_EQ(score.dense, 1) << options.kind << ": " << item.prompt << answer;
      }
    }
  }
}

TEST(TasksTest, AChangedGoldIsWrongAndItsDenseScoreIsBelowOne) {
  for (const TaskOptions& options : EveryTask()) {
    if (options.kind == "countdown" || !options.maze_shortest)
      continue;  // several answers may be right there
    const auto task = Make(options);
    for (uint64_t i = 0; i < 100; ++i) {
      const TaskItem item = task->Item(i);
      std::vector<std::string> wrong = {
          item.gold.substr(1), item.gold + item.gold.back(), item.gold + " ?", "0" + item.gold, "", " "};
      std::string changed = item.gold;
      changed.back() = std::isdigit(changed.back()) ? '0' + (changed.back() - '0' + 1) % 10 : 'X';
      wrong.push_back(changed);
      for (const std::string& answer : wrong) {
        const TaskScore score = task->Grade(item, answer);
        ASSERT_EQ(score.correct, 0) << options.kind << ": " << item.prompt << answer;
        ASSERT_GE(score.dense, 0) << options.kind << ": " << item.prompt << answer;
        ASSERT_LT(score.dense, 1) << options.kind << ": " << item.prompt << answer;
      }
    }
  }
}

TEST(TasksTest, SplitsShareNoItemWhateverTheirSeeds) {
  for (TaskOptions options : EveryTask()) {
    if (options.style == PromptStyle::kSentence) continue;
    const int64_t count = options.kind == "maze" || options.kind == "logic" ? 1000 : 5000;
    const auto train = Make(options);
    options.split = TaskSplit::kHeldOut;
    options.seed = 1;
    const auto held_out = Make(options);
    std::set<std::string> seen;
    for (int64_t i = 0; i < count; ++i) seen.insert(CanonicalOf(options, train->Item(i)));
    for (int64_t i = 0; i < count / 5; ++i) {
      const TaskItem item = held_out->Item(i);
      ASSERT_FALSE(seen.contains(CanonicalOf(options, item))) << options.kind << ": " << item.prompt;
    }
  }
}

TEST(TasksTest, TenThousandPairsOfASplitKeepApart) {
  const auto train = Make({.kind = "multiply"});
  const auto held_out = Make({.kind = "multiply", .split = TaskSplit::kHeldOut});
  std::set<std::string> in_train, in_held_out, both;
  for (uint64_t i = 0; i < 10000; ++i) {
    in_train.insert(CanonicalOf({.kind = "multiply"}, train->Item(i)));
    in_held_out.insert(CanonicalOf({.kind = "multiply"}, held_out->Item(i)));
  }
  std::set_intersection(in_train.begin(), in_train.end(), in_held_out.begin(), in_held_out.end(),
                        std::inserter(both, both.end()));
  EXPECT_TRUE(both.empty());
  // 98 * 99 / 2 unordered pairs; 10,000 draws reach nearly all of the tenth that is held out.
  EXPECT_GT(in_held_out.size(), 400u);
  EXPECT_LT(in_held_out.size(), 570u);
}

TEST(TasksTest, AnItemDependsOnItsIndexAloneAndNotOnTheOrder) {
  for (const TaskOptions& options : EveryTask()) {
    const auto forward = Make(options), backward = Make(options);
    std::vector<TaskItem> items;
    for (uint64_t i = 0; i < 50; ++i) items.push_back(forward->Item(i));
    std::set<std::string> prompts;
    for (uint64_t i = 50; i-- > 0;) {
      const TaskItem item = backward->Item(i);
      ASSERT_EQ(item.prompt, items[i].prompt);
      ASSERT_EQ(item.gold, items[i].gold);
      ASSERT_EQ(item.data, items[i].data);
      prompts.insert(item.prompt);
    }
    EXPECT_GT(prompts.size(), 40u) << options.kind;
    TaskOptions other = options;
    other.seed = 7;
    EXPECT_NE(Make(other)->Item(0).prompt, items[0].prompt) << options.kind;
  }
}

TEST(TasksTest, KnobsOutOfRangeNameTheNearestValidOne) {
  const auto message = [](const TaskOptions& options) {
    const auto task = MakeTask(options);
    return task.ok() ? std::string("ok") : std::string(task.status().message());
  };
  EXPECT_EQ(message({.kind = "sort", .sort_length = 1}),
            "task knob sort_length is 1; it must lie in [2, 100]; set sort_length to 2");
  EXPECT_EQ(message({.kind = "add", .add_digits = 19}),
            "task knob add_digits is 19; it must lie in [1, 18]; set add_digits to 18");
  EXPECT_NE(message({.kind = "multiply", .multiply_low = 5, .multiply_high = 5}).find("multiply_high to 6"),
            std::string::npos);
  EXPECT_NE(message({.kind = "countdown", .countdown_numbers = 7}).find("[2, 6]"), std::string::npos);
  EXPECT_NE(message({.kind = "maze", .maze_distance = 9}).find("[1, 8]"), std::string::npos);
  EXPECT_NE(message({.kind = "maze", .maze_walls = 0.9}).find("0.4"), std::string::npos);
  EXPECT_NE(message({.kind = "logic", .logic_persons = 5}).find("[2, 4]"), std::string::npos);
  EXPECT_NE(message({.kind = "sort", .held_out = 1}).find("held_out"), std::string::npos);
  EXPECT_NE(message({.kind = "sorted"}).find("did you mean \"sort\"?"), std::string::npos);
  // Three pairs, all of them in one split.
  const auto train = MakeTask({.kind = "multiply", .held_out = 1e-9, .multiply_low = 2, .multiply_high = 3});
  EXPECT_TRUE(train.ok()) << train.status();
  EXPECT_NE(message({.kind = "multiply",
                     .split = TaskSplit::kHeldOut,
                     .held_out = 1e-9,
                     .multiply_low = 2,
                     .multiply_high = 3})
                .find("no item in its held-out split"),
            std::string::npos);
}

TEST(DistinctDrawsTest, LeavesOutRepetitionsAndEndsWhereThereAreNoMore) {
  const auto thirds = [](uint64_t draw) { return Concat(draw / 3 % 4); };
  EXPECT_EQ(DistinctDraws(2, thirds), (std::vector<uint64_t>{0, 3}));
  EXPECT_EQ(DistinctDraws(100, thirds), (std::vector<uint64_t>{0, 3, 6, 9}));
  EXPECT_TRUE(DistinctDraws(0, thirds).empty());
}

}  // namespace
}  // namespace moebius
