// Searches are read back here by their grammar alone: every step is true, every mark is, and a search that
// says it has hit has an answer that the grader accepts.
#include "rl/problems/search_trace.h"

#include <algorithm>
#include <cstdio>
#include <map>
#include <set>
#include <span>

#include "core/base/strings.h"
#include "gtest/gtest.h"
#include "rl/problems/problems.pb.h"
#include "rl/tasks/expression.h"

namespace moebius {
namespace {

// Checks one try ("3+5=8,8*2=16") and gives its last value: a step joins two of the numbers that are left.
int64_t CheckTry(const std::string& text, std::span<const int64_t> given) {
  std::multiset<int64_t> left(given.begin(), given.end());
  int64_t value = -1;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find(',', begin), text.size());
    long long x = 0, y = 0, z = 0;
    char op = 0, rest = 0;
    const std::string step = text.substr(begin, end - begin);
    EXPECT_EQ(std::sscanf(step.c_str(), "%lld%c%lld=%lld%c", &x, &op, &y, &z, &rest), 4) << text;
    EXPECT_EQ(z, op == '+' ? x + y : op == '-' ? x - y : op == '*' ? x * y : x % y == 0 ? x / y : -1) << text;
    EXPECT_GT(z, 0) << text;
    for (const int64_t used : {x, y}) {
      const auto at = left.find(used);
      EXPECT_NE(at, left.end()) << text;
      if (at != left.end()) left.erase(at);
    }
    left.insert(z);
    value = z;
    begin = end + 1;
  }
  return value;
}

// The tries with their heads: "3+5=8,8*2=16:16!".
std::vector<std::string> TriesOf(const std::string& thoughts) {
  std::vector<std::string> tries;
  std::string head;
  for (size_t at = 0; at < thoughts.size();) {
    const size_t end = thoughts.find_first_of("!?", at);
    EXPECT_NE(end, std::string::npos) << thoughts;
    if (end == std::string::npos) break;
    const size_t semicolon = thoughts.find(';', at);
    if (semicolon < end) {
      EXPECT_NE(head, thoughts.substr(at, semicolon - at)) << thoughts;
      head = thoughts.substr(at, semicolon - at);
      at = semicolon + 1;
    }
    tries.push_back(Concat(head, head.empty() ? "" : ",", thoughts.substr(at, end + 1 - at)));
    at = end + 1;
  }
  return tries;
}

proto::Problems Countdown(int64_t tries) {
  proto::Problems problems;
  problems.set_kind("countdown");
  problems.set_countdown_numbers(3);
  problems.set_countdown_highest(9);
  problems.set_countdown_scratchpad(true);
  problems.set_scratchpad_tries(tries);
  return problems;
}

TEST(SearchTraceTest, EveryStepIsTrueAndEveryMarkIs) {
  for (const bool division : {false, true}) {
    for (uint64_t seed = 0; seed < 400; ++seed) {
      std::vector<int64_t> numbers;
      for (uint64_t i = 0; i < 2 + seed % 5; ++i)
        numbers.push_back(1 + static_cast<int64_t>((seed * 7 + i * i * 5) % 20));
      const int64_t target = 1 + static_cast<int64_t>(seed % 90);
      const WorkedAnswer worked = SearchTrace(numbers, target, {.tries = 8, .division = division}, seed);
      const std::vector<std::string> tries = TriesOf(worked.thoughts);
      ASSERT_TRUE(1 <= tries.size() && tries.size() <= 8) << worked.thoughts;
      int64_t last = 0;
      std::set<std::string> different;
      for (size_t i = 0; i < tries.size(); ++i) {
        const std::string steps = tries[i].substr(0, tries[i].find(':'));
        EXPECT_EQ(tries[i].substr(steps.size(), tries[i].size() - 1 - steps.size()), Concat(':', target));
        last = CheckTry(steps, numbers);
        EXPECT_EQ(tries[i].back() == '!', last == target) << tries[i] << " for " << target;
        if (last == target) {
          EXPECT_EQ(i + 1, tries.size()) << worked.thoughts;
        }
        EXPECT_TRUE(different.insert(tries[i]).second) << worked.thoughts;
      }
      const auto value = EvaluateExpression(worked.answer, {.numbers = numbers, .division = division});
      ASSERT_TRUE(value) << worked.answer;
      EXPECT_EQ(value->den, 1);
      EXPECT_EQ(static_cast<int64_t>(value->num), last) << worked.thoughts << " " << worked.answer;
    }
  }
}

TEST(SearchTraceTest, ReadsAsTheHeaderSays) {
  const std::vector<int64_t> numbers = {3, 5, 2};
  const WorkedAnswer worked = SearchTrace(numbers, 16, {.patient = 1}, 0);
  EXPECT_EQ(worked.thoughts, "3+5=8;8+2=10:16?8*2=16:16!");
  EXPECT_EQ(worked.answer, "(3+5)*2");
  // A number that is met early ends the search and has no head.
  EXPECT_EQ(SearchTrace(numbers, 15, {.patient = 1}, 0).thoughts,
            "3+5=8;8+2=10:15?8*2=16:15?8-2=6:15?;3*5=15:15!");
}

TEST(SearchTraceTest, AHitIsJudgedCorrectAndAMissIsNot) {
  auto set = MakeProblemSet(Countdown(4), TaskSplit::kTrain);
  ASSERT_TRUE(set.ok()) << set.status();
  int hits = 0;
  size_t longest = 0;
  constexpr int kProblems = 2000;
  for (uint64_t i = 0; i < kProblems; ++i) {
    const Problem problem = (*set)->At(i);
    const WorkedAnswer worked = (*set)->Demonstration(problem, i);
    const bool hit = worked.thoughts.back() == '!';
    EXPECT_EQ((*(*set)->Judge(problem, worked.answer)).correct, hit ? 1 : 0)
        << worked.thoughts << worked.answer;
    hits += hit;
    longest = std::max(longest, worked.thoughts.size() + worked.answer.size());
  }
  std::printf("4 tries: %d of %d hit, longest %zu bytes\n", hits, kProblems, longest);
  EXPECT_GT(hits, kProblems / 5);
  EXPECT_LT(hits, kProblems * 3 / 4);
  EXPECT_LT(longest, 85u);
}

TEST(SearchTraceTest, MoreTriesFindMore) {
  double previous = 0;
  for (const int64_t tries : {1, 3, 6, 12, 1000}) {
    auto set = MakeProblemSet(Countdown(tries), TaskSplit::kTrain);
    ASSERT_TRUE(set.ok()) << set.status();
    double hits = 0, bytes = 0;
    for (uint64_t i = 0; i < 1000; ++i) {
      const WorkedAnswer worked = (*set)->Demonstration((*set)->At(i), i);
      hits += worked.thoughts.back() == '!';
      bytes += static_cast<double>(worked.thoughts.size() + worked.answer.size());
    }
    std::printf("%ld tries: %.0f of 1000 hit, %.1f bytes\n", static_cast<long>(tries), hits, bytes / 1000);
    EXPECT_GT(hits, previous);
    previous = hits;
  }
  EXPECT_GT(previous, 980);
}

TEST(SearchTraceTest, ThePatientFindEverything) {
  proto::Problems problems = Countdown(1);
  problems.set_scratchpad_patient(1);
  auto set = MakeProblemSet(problems, TaskSplit::kTrain);
  ASSERT_TRUE(set.ok()) << set.status();
  size_t longest = 0;
  for (uint64_t i = 0; i < 1000; ++i) {
    const WorkedAnswer worked = (*set)->Demonstration((*set)->At(i), i);
    ASSERT_EQ(worked.thoughts.back(), '!') << worked.thoughts;
    longest = std::max(longest, worked.thoughts.size());
  }
  std::printf("longest search: %zu bytes\n", longest);
}

TEST(SearchTraceTest, GivesUpAfterAnyNumberOfTries) {
  const std::vector<int64_t> numbers = {3, 5, 2};
  std::map<size_t, int> counts;
  constexpr int kTraces = 2000;
  for (uint64_t seed = 0; seed < kTraces; ++seed)
    ++counts[TriesOf(SearchTrace(numbers, 997, {.tries = 4, .patient = 0.2}, seed).thoughts).size()];
  ASSERT_EQ(counts.size(), 5u);
  const int all = static_cast<int>(counts.rbegin()->first);
  EXPECT_EQ(all, 24);  // three pairs, three joins of each, three of what is left, but 2-2, 5-5 and 3-3
  for (const auto& [tries, n] : counts) {
    EXPECT_NEAR(n, kTraces / 5, 80) << tries;
  }
}

TEST(SearchTraceTest, EqualNumbersRepeatNothing) {
  const std::vector<int64_t> numbers = {7, 7, 7, 7, 7, 7};
  const std::vector<std::string> tries =
      TriesOf(SearchTrace(numbers, 999983, {.patient = 1, .division = true}, 0).thoughts);
  EXPECT_EQ(tries.size(), 1000u);
  EXPECT_EQ(std::set(tries.begin(), tries.end()).size(), 1000u);
}

}  // namespace
}  // namespace moebius
