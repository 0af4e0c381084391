// Verdicts kept across restarts.
#include "rl/loop/journal.h"

#include <algorithm>

#include "core/base/strings.h"
#include "core/io/hash.h"
#include "gtest/gtest.h"
#include "tests/core/io/scratch.h"

namespace moebius {
namespace {

Judgement Verdict(const std::string& verdict, std::optional<double> correct,
                  std::optional<double> dense = {}) {
  return {.correct = correct, .dense = dense, .verdict = verdict, .depends_on_time = true};
}

void ExpectFound(const Journal& journal, const std::string& problem, const std::string& answer,
                 const Judgement& want) {
  const std::optional<Judgement> found = journal.Find(problem, answer);
  ASSERT_TRUE(found.has_value()) << answer;
  EXPECT_EQ(found->verdict, want.verdict);
  EXPECT_EQ(found->correct, want.correct);
  EXPECT_EQ(found->dense, want.dense);
  EXPECT_EQ(found->visible, want.visible);
  EXPECT_TRUE(found->depends_on_time);
}

// As a run that has saved nothing yet makes step 1, or makes it again.
absl::StatusOr<std::unique_ptr<Journal>> OpenAt(const std::string& folder, int rank) {
  ASSIGN_OR_RETURN(std::unique_ptr<Journal> journal, Journal::Open(folder, rank, 0));
  journal->Begin(1);
  return journal;
}

TEST(JournalTest, FindsVerdictsAgainAfterReopening) {
  const Scratch scratch;
  const std::string folder = scratch.path("journal"), odd = std::string("a\0\n\"\xff", 5);
  Judgement third = Verdict("WRONG", 0, 1.0 / 3);
  third.visible = 1;
  {
    const auto journal = *OpenAt(folder, 0);
    EXPECT_FALSE(journal->Find("p1", "print(1)").has_value());
    ASSERT_TRUE(journal->Add("p1", "print(1)", Verdict("OK", 1, 1)).ok());
    ASSERT_TRUE(journal->Add("p2", "print(1)", third).ok());
    ASSERT_TRUE(journal->Add("p7", odd, Verdict("WALL", 0)).ok());
    ExpectFound(*journal, "p2", "print(1)", third);
  }
  for (int again = 0; again < 2; ++again) {
    const auto journal = *OpenAt(folder, 0);
    ExpectFound(*journal, "p1", "print(1)", Verdict("OK", 1, 1));
    ExpectFound(*journal, "p2", "print(1)", third);
    ExpectFound(*journal, "p7", odd, Verdict("WALL", 0));
    EXPECT_FALSE(journal->Find("p3", "print(1)").has_value());
    EXPECT_FALSE(journal->Find("p1", "print(1) ").has_value());
  }
}

TEST(JournalTest, TheFirstVerdictStays) {
  const Scratch scratch;
  for (int again = 0; again < 2; ++again) {
    const auto journal = *OpenAt(scratch.folder(), 0);
    const absl::StatusOr<Judgement> kept =
        journal->Add("p1", "a", again == 0 ? Verdict("OK", 1) : Verdict("WALL", 0));
    ASSERT_TRUE(kept.ok());
    EXPECT_EQ(kept->verdict, "OK");
    EXPECT_EQ(journal->Add("p1", "a", Verdict("WRONG", 0))->verdict, "OK");
    ExpectFound(*journal, "p1", "a", Verdict("OK", 1));
  }
  const std::string text = ReadRaw(scratch.path("verdicts-0.jsonl"));
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 1);
}

// Two ranks have judged one answer differently; each goes on with what it said itself.
TEST(JournalTest, ARanksOwnVerdictComesBeforeTheOthers) {
  const Scratch scratch;
  const Judgement verdicts[] = {Verdict("WALL", 0), Verdict("OK", 1), Verdict("WRONG", 0)};
  std::vector<std::unique_ptr<Journal>> journals;
  for (int rank = 0; rank < 3; ++rank) journals.push_back(*OpenAt(scratch.folder(), rank));
  for (int rank = 0; rank < 3; ++rank) ASSERT_TRUE(journals[rank]->Add("p", "a", verdicts[rank]).ok());
  journals.clear();
  for (int rank = 0; rank < 3; ++rank)
    ExpectFound(**OpenAt(scratch.folder(), rank), "p", "a", verdicts[rank]);
  ExpectFound(**OpenAt(scratch.folder(), 3), "p", "a", verdicts[0]);
}

TEST(JournalTest, AVerdictIsOfItsStep) {
  const Scratch scratch;
  for (int again = 0; again < 2; ++again) {
    const auto journal = *OpenAt(scratch.folder(), 0);
    for (int step = 1; step <= 3; ++step) {
      journal->Begin(step);
      if (again == 0) {
        EXPECT_FALSE(journal->Find("p", "a").has_value()) << step;
        ASSERT_TRUE(journal->Add("p", "a", Verdict(Concat("of ", step), 1)).ok());
      }
      ExpectFound(*journal, "p", "a", Verdict(Concat("of ", step), 1));
    }
  }
}

TEST(JournalTest, ForgetsStepsThatAreNotMadeAgain) {
  const Scratch scratch;
  for (int rank = 0; rank < 2; ++rank) {
    const auto journal = *OpenAt(scratch.folder(), rank);
    for (int step = 1; step <= 4; ++step) {
      journal->Begin(step);
      ASSERT_TRUE(journal->Add(Concat("p", rank), "a", Verdict(Concat("of ", step), 1)).ok());
    }
  }
  for (int step = 1; step <= 4; ++step) {
    SCOPED_TRACE(step);
    // Begin forgets what is behind it: a journal of its own for each.
    const auto at = *Journal::Open(scratch.folder(), 0, 2);
    at->Begin(step);
    for (const char* problem : {"p0", "p1"}) {
      if (step > 2)
        ExpectFound(*at, problem, "a", Verdict(Concat("of ", step), 1));
      else
        EXPECT_FALSE(at->Find(problem, "a").has_value());
    }
  }
  const auto lines = [&](int rank) {
    const std::string text = ReadRaw(scratch.path(Concat("verdicts-", rank, ".jsonl")));
    return std::count(text.begin(), text.end(), '\n');
  };
  EXPECT_EQ(lines(0), 2);
  EXPECT_EQ(lines(1), 4) << "another rank's file is its own";
}

TEST(JournalTest, DropsALineThatWasCutShort) {
  const Scratch scratch;
  const std::string path = scratch.path("verdicts-0.jsonl");
  {
    const auto journal = *OpenAt(scratch.folder(), 0);
    ASSERT_TRUE(journal->Add("p1", "a", Verdict("OK", 1)).ok());
    ASSERT_TRUE(journal->Add("p2", "b", Verdict("WRONG", 0)).ok());
  }
  const std::string text = ReadRaw(path);
  WriteRaw(path, text.substr(0, text.size() - 9));
  {
    const auto journal = *OpenAt(scratch.folder(), 0);
    ExpectFound(*journal, "p1", "a", Verdict("OK", 1));
    EXPECT_FALSE(journal->Find("p2", "b").has_value());
    ASSERT_TRUE(journal->Add("p2", "b", Verdict("WALL", 0)).ok());
  }
  ExpectFound(**OpenAt(scratch.folder(), 0), "p2", "b", Verdict("WALL", 0));
}

TEST(JournalTest, ReadsTheFilesOfAllRanks) {
  const Scratch scratch;
  for (int rank = 0; rank < 3; ++rank) {
    const auto journal = *OpenAt(scratch.folder(), rank);
    ASSERT_TRUE(journal->Add(Concat("p", rank), "x", Verdict(Concat("of ", rank), 1)).ok());
  }
  for (const int rank : {0, 2, 5}) {
    const auto journal = *OpenAt(scratch.folder(), rank);
    for (int of = 0; of < 3; ++of) ExpectFound(*journal, Concat("p", of), "x", Verdict(Concat("of ", of), 1));
  }
}

// As earlier versions wrote them.
TEST(JournalTest, ForgetsVerdictsThatDoNotNameTheirStep) {
  const Scratch scratch;
  WriteRaw(scratch.path("verdicts-0.jsonl"),
           "{\"problem\":1,\"answer\":\"a\",\"verdict\":\"OK\",\"correct\":1}\n");
  const auto journal = OpenAt(scratch.folder(), 0);
  ASSERT_TRUE(journal.ok()) << journal.status();
  EXPECT_FALSE((*journal)->Find("1", "a").has_value());
}

TEST(JournalTest, NamesADamagedLine) {
  const Scratch scratch;
  WriteRaw(scratch.path("verdicts-0.jsonl"), "{\"step\":1,\"problem\":\"p1\",\"answer\":\"\"}\n");
  const auto journal = OpenAt(scratch.folder(), 0);
  ASSERT_FALSE(journal.ok());
  EXPECT_TRUE(Contains(journal.status(), "verdicts-0.jsonl line 1")) << MessageOf(journal.status());
  EXPECT_TRUE(Contains(journal.status(), "verdict"));
}

}  // namespace
}  // namespace moebius
