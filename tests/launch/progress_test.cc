#include "launch/progress.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <pty.h>
#include <unistd.h>

#include <cmath>
#include <cstdlib>

#include "tests/launch/temp_folder.h"

namespace moebius {
namespace {

Progress::Step At(int64_t step, double loss) {
  return {.step = step, .loss = loss, .grad_norm = 0.5, .lr = 1e-3, .tokens_per_s = 12345, .step_s = 0.5};
}

std::string RunInto(const TempFolder& folder, Terminal terminal) {
  const int fd = open(folder.File("out").c_str(), O_CREAT | O_TRUNC | O_WRONLY, 0644);
  {
    Progress progress({.terminal = terminal,
                       .fd = fd,
                       .first_step = 0,
                       .last_step = 25,
                       .log_every_steps = 10,
                       .log_path = folder.File("log")});
    for (int step = 1; step <= 25; ++step) {
      progress.Update(At(step, 5.0 - 0.1 * step));
      if (step == 20) progress.Print("val/loss 3.1");
    }
  }
  close(fd);
  return folder.Read("out");
}

TEST(Progress, PrintsOnePlainLineAnIntervalWhereNobodyWatches) {
  const TempFolder folder;
  const std::string out = RunInto(folder, {});
  EXPECT_EQ(out,
            "step  1/25  loss 4.9000  grad_norm 0.500  lr 1.00e-03  12.3k tokens/s  ETA 12s\n"
            "step 10/25  loss 4.0000  grad_norm 0.500  lr 1.00e-03  12.3k tokens/s  ETA 7.5s\n"
            "step 20/25  loss 3.0000  grad_norm 0.500  lr 1.00e-03  12.3k tokens/s  ETA 2.5s\n"
            "val/loss 3.1\n"
            "step 25/25  loss 2.5000  grad_norm 0.500  lr 1.00e-03  12.3k tokens/s  done\n");
  EXPECT_EQ(folder.Read("log"), out);
}

// Columns a terminal needs for the text: characters, without escape sequences.
int Columns(const std::string& text) {
  int columns = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\033') {
      while (i < text.size() && !std::isalpha(static_cast<unsigned char>(text[i]))) ++i;
    } else if ((text[i] & 0xC0) != 0x80) {
      ++columns;
    }
  }
  return columns;
}

TEST(Progress, DrawsABarThatFitsAnyTerminal) {
  for (const int columns : {200, 80, 60, 45, 20, 8}) {
    const TempFolder folder;
    const std::string out = RunInto(folder, {.interactive = true, .colour = true, .columns = columns});
    EXPECT_NE(out.find("25/25"), std::string::npos);
    size_t begin = 0;
    for (size_t at; (at = out.find('\r', begin)) != std::string::npos; begin = at + 1) {
      const std::string line = out.substr(begin, at - begin);
      if (line.find("\033[K") == 0 && line.find('\n') == std::string::npos) {
        EXPECT_LT(Columns(line), columns) << line;
      }
    }
    EXPECT_EQ(out.back(), '\n') << "the last state stays as a line";
    EXPECT_EQ(folder.Read("log").find('\033'), std::string::npos);
  }
}

TEST(Progress, UsesNoColourWhenToldSo) {
  const TempFolder folder;
  const std::string out = RunInto(folder, {.interactive = true, .colour = false, .columns = 80});
  EXPECT_EQ(out.find("\033[3"), std::string::npos);
}

class DetectedTerminal : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_EQ(openpty(&master_, &slave_, nullptr, nullptr, nullptr), 0);
    setenv("TERM", "xterm", 1);
    unsetenv("NO_COLOR");
    unsetenv("OMPI_COMM_WORLD_SIZE");
  }
  void TearDown() override {
    close(master_);
    close(slave_);
    unsetenv("OMPI_COMM_WORLD_SIZE");
    unsetenv("NO_COLOR");
  }
  int master_ = -1, slave_ = -1;
};

TEST_F(DetectedTerminal, IsInteractiveOnAPtyOnly) {
  EXPECT_TRUE(DetectTerminal(slave_).interactive);
  const TempFolder folder;
  const int fd = open(folder.File("f").c_str(), O_CREAT | O_WRONLY, 0644);
  EXPECT_FALSE(DetectTerminal(fd).interactive);
  close(fd);
}

TEST_F(DetectedTerminal, IsNotTrustedUnderMpirun) {
  setenv("OMPI_COMM_WORLD_SIZE", "2", 1);
  EXPECT_FALSE(DetectTerminal(slave_).interactive);
}

TEST_F(DetectedTerminal, ObeysNoColorAndDumbTerminals) {
  setenv("NO_COLOR", "1", 1);
  EXPECT_TRUE(DetectTerminal(slave_).interactive);
  EXPECT_FALSE(DetectTerminal(slave_).colour);
  setenv("TERM", "dumb", 1);
  EXPECT_FALSE(DetectTerminal(slave_).interactive);
}

TEST(Sparkline, ShowsTheCourseFromLowToHigh) {
  EXPECT_EQ(Sparkline({1, 2, 3, 4, 5, 6, 7, 8}, 8), "▁▂▃▄▅▆▇█");
  EXPECT_EQ(Sparkline({8, 8, 1, 1}, 2), "█▁");
  EXPECT_EQ(Sparkline({1, NAN, 2}, 3), "▁ █");
  EXPECT_EQ(Sparkline({}, 5), "");
  EXPECT_EQ(Sparkline({NAN}, 5), " ");
}

}  // namespace
}  // namespace moebius
