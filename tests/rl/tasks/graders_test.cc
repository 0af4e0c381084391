// Each grader against answers worked out by hand, and the expressions with which other countdown graders are
// deceived.
#include <algorithm>

#include "gtest/gtest.h"
#include "rl/tasks/expression.h"
#include "rl/tasks/task.h"

namespace moebius {
namespace {

TaskScore GradeOf(const TaskOptions& options, const TaskItem& item, std::string_view answer) {
  return (*MakeTask(options))->Grade(item, answer);
}

TEST(SortGraderTest, DenseIsTheShareOfRightPlaces) {
  const TaskItem item{.prompt = "", .gold = "11345", .data = {}};
  EXPECT_DOUBLE_EQ(GradeOf({}, item, "11354").dense, 0.6);
  EXPECT_DOUBLE_EQ(GradeOf({}, item, "113").dense, 0.6);
  EXPECT_DOUBLE_EQ(GradeOf({}, item, "1134511345").dense, 0.5);
  EXPECT_EQ(GradeOf({}, item, "1 1 3 4 5").correct, 0);
  EXPECT_EQ(GradeOf({}, item, std::string(5000, '1')).dense, 0);
}

TEST(NumberGraderTest, DensePlacesCountFromTheLastDigit) {
  const TaskItem item{.prompt = "", .gold = "1204", .data = {}};
  const TaskOptions add{.kind = "add"};
  EXPECT_DOUBLE_EQ(GradeOf(add, item, "204").dense, 0.75);
  EXPECT_DOUBLE_EQ(GradeOf(add, item, "1205").dense, 0.75);
  for (const char* answer : {"01204", "1,204", "1204.0", "+1204", "1204 or 1205"})
    EXPECT_EQ(GradeOf(add, item, answer).correct, 0) << answer;
}

TEST(CountdownGraderTest, AnyLegalExpressionOfTheTargetIsRight) {
  const TaskItem item{.prompt = "", .gold = "3*4*5", .data = {60, 3, 4, 5, 10}};
  const TaskOptions whole{.kind = "countdown"};
  TaskOptions division = whole;
  division.countdown_division = true;
  for (const char* answer : {"3*4*5", "5*(4*3)", " ( 10 + 5 ) * 4 ", "((3))*((4*5))"})
    EXPECT_EQ(GradeOf(whole, item, answer).correct, 1) << answer;
  EXPECT_EQ(GradeOf(division, item, "4*10/(5/3)").correct, 0);
  EXPECT_EQ(GradeOf(division, item, "10/(5/(3*4))").correct, 0);
  // By way of a third.
  EXPECT_EQ(GradeOf(division, {.prompt = "", .gold = "", .data = {24, 8, 3, 8, 3}}, "8/(3-8/3)").correct, 1);
  EXPECT_EQ(GradeOf(whole, {.prompt = "", .gold = "", .data = {24, 8, 3, 8, 3}}, "8/(3-8/3)").correct, 0);
  EXPECT_DOUBLE_EQ(GradeOf(whole, item, "3*4*5-10").dense, 0.1 + 0.4 / 11);
  EXPECT_DOUBLE_EQ(GradeOf(whole, item, "3-4").dense, 0.1 + 0.4 / 62);
}

TEST(CountdownGraderTest, TricksScoreNothing) {
  // Each would reach 17, 60 or 8 under a looser reading.
  const TaskOptions options{.kind = "countdown", .countdown_division = true};
  const std::vector<std::pair<std::vector<int64_t>, std::vector<const char*>>> cases = {
      {{17, 3, 4, 5}, {"3.4*5", "3,4*5", "3.4*5 ", "5*3.4"}},
      {{8, 2, 3}, {"2**3", "2^3", "2* *3", "2***3", "2(3)+2", "(2)(3)"}},
      {{3, 7, 2}, {"7//2", "7/ /2", "7%2+2", "7>>1"}},
      {{4, 3, 7}, {"-3+7", "+7-3", "7-+3", "7--3", "(-3)+7", "7+(-3)", "~3+8"}},
      {{34, 3, 4, 9}, {"34", "3 4", "3_4", "3\t4", "34+9-9", "034"}},
      {{60, 3, 4, 5},
       {"3*4*5=60",
        "60",
        "60*3/3",
        "3*4*5;",
        "3*4*5#",
        "3*4*5+0",
        "03*4*5",
        "3*4*5*1",
        "3*4*(5",
        "3*4*5)",
        "()3*4*5",
        "3*4*5\n+0",
        "3*4*5, 60",
        "3*4+3*4+3*4+3*4+3*4",
        "5*4*3*4/4",
        "3x4x5",
        "3\xc3\x97"
        "4\xc3\x97"
        "5",
        "0x3*4*5",
        "3e0*4*5",
        "3*4*5if 1else 0",
        "abs(3*4*5)"}},
      {{1, 3, 4}, {"3/(4-4)", "(4-3)/(3-3)", "1"}}};
  for (const auto& [data, answers] : cases)
    for (const char* answer : answers)
      EXPECT_EQ(GradeOf(options, {.prompt = "", .gold = "", .data = data}, answer).dense, 0) << answer;
}

TEST(ExpressionTest, ValuesAreExactAndNestingIsBounded) {
  const std::vector<int64_t> numbers = {999, 998, 997, 996, 995, 994};
  const auto product = EvaluateExpression("999*998*997*996*995*994", {.numbers = numbers});
  ASSERT_TRUE(product);
  EXPECT_EQ(static_cast<int64_t>(product->num), 999ll * 998 * 997 * 996 * 995 * 994);
  const auto sum = EvaluateExpression("999/998+997/996-995/994", {.numbers = numbers, .division = true});
  ASSERT_TRUE(sum);
  const __int128 num = __int128{999} * 996 * 994 + __int128{997} * 998 * 994 - __int128{995} * 998 * 996;
  EXPECT_TRUE(num * sum->den == sum->num * (__int128{998} * 996 * 994));
  EXPECT_FALSE(EvaluateExpression("999/(998-998)", {.numbers = numbers, .division = true}));
  const auto nested = [&](int depth) {
    return EvaluateExpression(std::string(depth, '(') + "999" + std::string(depth, ')'),
                              {.numbers = numbers});
  };
  EXPECT_TRUE(nested(50));
  EXPECT_FALSE(nested(51));
  EXPECT_FALSE(EvaluateExpression(std::string(1 << 20, '('), {.numbers = numbers}));
}

TEST(MazeGraderTest, WalksUntilItFails) {
  // S..    start 0, goal 8; the middle is a wall.
  // .#.
  // ..G
  const TaskItem item{.prompt = "", .gold = "RRDD", .data = {3, 3, 0, 8, 0, 0, 0, 0, 1, 0, 0, 0, 0}};
  const TaskOptions shortest{.kind = "maze"};
  TaskOptions any = shortest;
  any.maze_shortest = false;
  EXPECT_EQ(GradeOf(shortest, item, "DDRR").correct, 1);
  EXPECT_EQ(GradeOf(shortest, item, "RLRRDD").correct, 0);
  EXPECT_DOUBLE_EQ(GradeOf(shortest, item, "RLRRDD").dense, 4.0 / 6);
  EXPECT_EQ(GradeOf(any, item, "RLRRDD").correct, 1);
  for (const TaskOptions& options : {shortest, any}) {
    EXPECT_DOUBLE_EQ(GradeOf(options, item, "RR").dense, 0.5);
    EXPECT_DOUBLE_EQ(GradeOf(options, item, "RDDR").dense, 0.25 * 0.25);    // the wall
    EXPECT_DOUBLE_EQ(GradeOf(options, item, "RRDDD").dense, 0.8);           // out of the maze from the goal
    EXPECT_DOUBLE_EQ(GradeOf(options, item, "RRDDU").dense, 0.75);          // past the goal
    EXPECT_DOUBLE_EQ(GradeOf(options, item, "RR D D").dense, 0.5 * 2 / 6);  // a blank is no move
    for (const char* answer : {"RRDDD", "RRDDU", "rrdd", "RRRDD", "UUDD", "RR D D"})
      EXPECT_EQ(GradeOf(options, item, answer).correct, 0) << answer;
  }
}

TEST(LogicGraderTest, OneLetterAPersonInOrder) {
  const TaskItem item{.prompt = "", .gold = "TLT", .data = {}};
  const TaskOptions options{.kind = "logic"};
  EXPECT_DOUBLE_EQ(GradeOf(options, item, "TLL").dense, 2.0 / 3);
  for (const char* answer : {"tlt", "T L T", "TLTL", "TL", "TLT or TLL", "TTT"})
    EXPECT_EQ(GradeOf(options, item, answer).correct, 0) << answer;
}

TEST(LogicTest, TheGoldIsTheOnlySolutionOfThePromptAsWritten) {
  // A second reading of the prompt's sentences, by their words.
  for (int persons = 2; persons <= 4; ++persons) {
    const TaskOptions options{.kind = "logic", .logic_persons = persons, .logic_statements = 2};
    const auto task = *MakeTask(options);
    for (uint64_t i = 0; i < 100; ++i) {
      const TaskItem item = task->Item(i);
      std::vector<std::string> solutions;
      for (int mask = 0; mask < 1 << persons; ++mask) {
        std::string kinds;
        for (int p = 0; p < persons; ++p) kinds += mask >> p & 1 ? 'T' : 'L';
        bool fits = true;
        for (size_t at = 0; item.prompt.compare(at, 7, "kinds: ") != 0;) {
          const size_t end = item.prompt.find(". ", at);
          const std::string said = item.prompt.substr(at + 3, end - at - 3);
          const bool truthful = kinds[item.prompt[at] - 'A'] == 'T';
          const auto knight = [&](size_t place) { return kinds[said[place] - 'A'] == 'T'; };
          const int count = std::count(kinds.begin(), kinds.end(), 'T');
          bool holds = false;
          if (said.starts_with("the number"))
            holds = said.back() - '0' == count;
          else if (said.starts_with("if "))
            holds = !knight(3) || knight(said.size() - 1);
          else if (said.ends_with("same kind"))
            holds = knight(0) == knight(6);
          else if (said.ends_with("different kinds"))
            holds = knight(0) != knight(6);
          else if (said.find(" or ") == 1)
            holds = !knight(0) || !knight(5);
          else if (said.ends_with("is a knave"))
            holds = !knight(0);
          else if (said.ends_with("is a knight"))
            holds = knight(0);
          else
            ADD_FAILURE() << said;
          fits = fits && holds == truthful;
          at = end + 2;
        }
        if (fits) solutions.push_back(kinds);
      }
      ASSERT_EQ(solutions, std::vector<std::string>{item.gold}) << item.prompt;
    }
  }
}

}  // namespace
}  // namespace moebius
