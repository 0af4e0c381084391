#include "parallel/pipeline/schedule_text.h"

#include <gtest/gtest.h>

#include <random>
#include <string>

#include "parallel/pipeline/lower.h"
#include "parallel/pipeline/validate.h"
#include "tests/parallel/pipeline/pipelines.h"

namespace moebius {
namespace {

std::string Error(const std::string& text) {
  const auto schedule = ScheduleFromText(text, "my.schedule");
  return schedule.ok() ? "accepted" : std::string(schedule.status().message());
}

const char kHead[] = "schedule mine\nranks 2\nstages 2\nmicrobatches 3\nholders 0 1\n";

TEST(ScheduleTextTest, EveryScheduleComesBackExactlyLoweredOrNot) {
  for (const std::string& name : ScheduleNames()) {
    for (const auto& [ranks, microbatches] : {std::pair{2, 4}, {4, 8}, {6, 24}}) {
      const Schedule schedule = Generate(name, ranks, microbatches);
      const Schedule lowered = *Lower(schedule, {.shared_embedding = true});
      for (const Schedule& each : {schedule, lowered}) {
        const auto back = ScheduleFromText(ToText(each), "text");
        ASSERT_TRUE(back.ok()) << back.status();
        EXPECT_TRUE(*back == each) << ToText(each);
        EXPECT_EQ(ToText(*back), ToText(each));
      }
    }
  }
}

TEST(ScheduleTextTest, CommentsBlanksAndAnyOrderOfHeaderLinesAreRead) {
  const auto schedule = ScheduleFromText(
      "# mine\n\n  microbatches 1 # one\r\nstages\t2\nranks 2\nholders 0  1\nschedule a-b_c.1\n"
      "1:F1.0 B1.0\n0:  F0.0\t B0.0   # done",
      "text");
  ASSERT_TRUE(schedule.ok()) << schedule.status();
  EXPECT_EQ(ToText(*schedule),
            "schedule a-b_c.1\nranks 2\nstages 2\nmicrobatches 1\nholders 0 1\n0: F0.0 B0.0\n1: F1.0 B1.0\n");
  EXPECT_TRUE(Validate(*schedule).ok());
}

TEST(ScheduleTextTest, ErrorsNameLineColumnAndWhatWasExpected) {
  const std::string head = kHead;
  EXPECT_EQ(Error(""),
            "my.schedule: line 1, column 1: expected a line \"schedule NAME\", found the end of the text");
  EXPECT_EQ(Error("schedule ;\n"),
            "my.schedule: line 1, column 10: expected a name of 1 to 64 letters, digits, '_', '-' and '.', "
            "found \";\"");
  EXPECT_EQ(
      Error("rank 2\n"),
      "my.schedule: line 1, column 1: expected schedule, ranks, stages, microbatches, holders or \"RANK: "
      "actions\", found \"rank\"");
  EXPECT_EQ(Error("ranks 99999\n"),
            "my.schedule: line 1, column 7: expected the number of ranks from 1 to 256, found \"99999\"");
  EXPECT_EQ(Error("ranks 2\nranks 2\n"),
            "my.schedule: line 2, column 1: expected no further line \"ranks\", found \"ranks\"");
  EXPECT_EQ(Error("ranks 2\n0: F0.0\n"),
            "my.schedule: line 2, column 1: expected a line \"stages N\" before this, found \"0:\"");
  EXPECT_EQ(Error("schedule a\nranks 2\nstages 2\nmicrobatches 3\nholders 0\n"),
            "my.schedule: line 5, column 10: expected the rank of stage 1 (of 2), found the end of the line");
  EXPECT_EQ(Error(head + "0: F0.0 F0.3\n"),
            "my.schedule: line 6, column 12: expected a microbatch from 0 to 2, found \"3\"");
  EXPECT_EQ(Error(head + "0: F0.0 G0.1\n"),
            "my.schedule: line 6, column 9: expected an action (F, I, W or B, (a|b), SEND_F ... "
            "UPDATE_BIAS), found "
            "\"G0.1\"");
  EXPECT_EQ(Error(head + "0: (F0.0|B0.1\n"),
            "my.schedule: line 6, column 14: expected ')', found the end of the line");
  EXPECT_EQ(Error(head + "0: (F0.0|SEND_F0.1>1)\n"),
            "my.schedule: line 6, column 10: expected F, I, W or B, found \"SEND_F0.1>1)\"");
  EXPECT_EQ(Error(head + "0: SEND_F0.1<1\n"),
            "my.schedule: line 6, column 13: expected '>' and the receiving rank, found \"<1\"");
  EXPECT_EQ(Error(head + "0: F0.0F0.1\n"),
            "my.schedule: line 6, column 8: expected a blank after an action, found \"F0.1\"");
  EXPECT_EQ(Error(head + "0: F0.01\n"),
            "my.schedule: line 6, column 7: expected a microbatch from 0 to 2, found \"01\"");
  EXPECT_EQ(Error(head + "0: F0.0\n0: F0.1\n"),
            "my.schedule: line 7, column 1: expected no second line for rank 0, found \"0:\"");
  EXPECT_EQ(Error(head + "0: F0.0\n"),
            "my.schedule: line 7, column 1: expected a line \"1: ...\" with the actions of rank 1, found the "
            "end of "
            "the text");
  EXPECT_EQ(Error(head),
            "my.schedule: line 6, column 1: expected a line \"0: ...\" with the actions of rank 0, found the "
            "end of the text");
}

TEST(ScheduleTextTest, HostileTextIsRefusedWithoutHarm) {
  EXPECT_EQ(Error("stages 16384\nmicrobatches 65536\n"),
            "my.schedule: line 2: stages times microbatches is 1073741824, more than 4194304");
  std::string many = std::string("schedule a\nranks 1\nstages 1\nmicrobatches 1\nholders 0\n0:");
  for (int i = 0; i < 1000; ++i) many += " F0.0";
  EXPECT_NE(Error(many).find("no more actions than a schedule of this size can have"), std::string::npos);
  EXPECT_EQ(Error(std::string(kMaxScheduleTextBytes + 1, ' ')),
            "my.schedule: 67108865 bytes; a schedule has at most 67108864");
  const std::string binary("\0\xff\x1b[2J", 6);
  EXPECT_EQ(Error(binary).find("\\x00\\xFF\\x1B"), Error(binary).find('"', Error(binary).rfind("found")) + 1);
  // Any bytes: a valid text with random damage is read or refused, never more.
  std::mt19937 random(1);
  const std::string text = ToText(*Lower(Generate("dualpipe", 2, 4)));
  for (int round = 0; round < 3000; ++round) {
    std::string damaged = text;
    for (int k = 0; k < 3; ++k) damaged[random() % damaged.size()] = static_cast<char>(random());
    damaged.resize(damaged.size() - random() % 3 * random() % damaged.size());
    const auto schedule = ScheduleFromText(damaged, "damaged");
    if (schedule.ok()) (void)Validate(*schedule);
  }
}

}  // namespace
}  // namespace moebius
