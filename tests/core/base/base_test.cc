#include <cmath>
#include <cstdio>
#include <fstream>
#include <iterator>

#include "core/base/check.h"
#include "core/base/log.h"
#include "core/base/memory.h"
#include "core/base/nearest.h"
#include "core/base/random.h"
#include "core/base/status.h"
#include "core/base/strings.h"
#include "gtest/gtest.h"

namespace moebius {
namespace {

TEST(Philox, MatchesTheKnownAnswersOfTheReferenceImplementation) {
  // Random123's kat_vectors for philox4x32, 10 rounds.
  EXPECT_EQ(Philox4x32({0, 0, 0, 0}, {0, 0}),
            (std::array<uint32_t, 4>{0x6627e8d5u, 0xe169c58du, 0xbc57ac4cu, 0x9b00dbd8u}));
  EXPECT_EQ(Philox4x32({~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}),
            (std::array<uint32_t, 4>{0x408f276du, 0x41c83b0eu, 0xa20bc7c6u, 0x6d5451fdu}));
}

TEST(RandomStream, IsAPureFunctionOfSeedNameAndIndex) {
  const RandomStream a(1, "x"), b(1, "x"), c(1, "y"), d(2, "x");
  EXPECT_EQ(a.Bits(5), b.Bits(5));
  EXPECT_NE(a.Bits(5), a.Bits(6));
  EXPECT_NE(a.Bits(5), c.Bits(5));
  EXPECT_NE(a.Bits(5), d.Bits(5));
}

TEST(RandomStream, NormalHasTheMomentsOfAStandardNormal) {
  const RandomStream stream(7, "normal");
  double sum = 0, squares = 0, fourth = 0;
  const int n = 200000;
  for (int i = 0; i < n; ++i) {
    const double v = stream.Normal(i);
    sum += v;
    squares += v * v;
    fourth += v * v * v * v;
  }
  EXPECT_NEAR(sum / n, 0, 0.01);
  EXPECT_NEAR(squares / n, 1, 0.015);
  EXPECT_NEAR(fourth / n, 3, 0.1);
}

TEST(RandomStream, BelowStaysInRangeAndReachesEveryValue) {
  const RandomStream stream(3, "below");
  int counts[7] = {};
  for (int i = 0; i < 7000; ++i) {
    const uint64_t v = stream.Below(i, 7);
    ASSERT_LT(v, 7u);
    ++counts[v];
  }
  for (const int count : counts) EXPECT_NEAR(count, 1000, 150);
}

TEST(Status, EachConstructorHasItsExitCode) {
  EXPECT_EQ(ExitCode(absl::OkStatus()), 0);
  EXPECT_EQ(ExitCode(UsageError("x")), 64);
  EXPECT_EQ(ExitCode(DamagedError("x")), 65);
  EXPECT_EQ(ExitCode(MissingError("x")), 66);
  EXPECT_EQ(ExitCode(UnavailableError("x")), 69);
  EXPECT_EQ(ExitCode(absl::InternalError("x")), 70);
  EXPECT_EQ(ExitCode(ComparisonError("x")), 71);
  EXPECT_EQ(ExitCode(CannotWriteError("x")), 73);
  EXPECT_EQ(ExitCode(StoppedError("x")), 75);
  EXPECT_EQ(ExitCode(BadNumbersError("x")), 76);
  EXPECT_EQ(ExitCode(LostPeerError("x")), 79);
}

TEST(Nearest, FindsTheCloseNameAndRefusesDistantOnes) {
  EXPECT_EQ(Nearest("hiden_size", {"vocab_size", "hidden_size"}), "hidden_size");
  EXPECT_EQ(Nearest("zzzzzzzz", {"vocab_size", "hidden_size"}), "");
}

TEST(Check, EndsTheProcessWithExitCode70AndTheValues) {
  const int a = 3;
  EXPECT_EXIT(CHECK_EQ(a, 4) << "layer 2", testing::ExitedWithCode(70), "3 vs 4.*layer 2");
}

TEST(Strings, PrintableEscapesWhatATerminalMustNotSee) {
  EXPECT_EQ(Printable("a\x1b[2J\xff"
                      "b"),
            "a\\x1B[2J\\xFFb");
  EXPECT_EQ(Printable("h\xC3\xA9llo"), "h\xC3\xA9llo");
  EXPECT_EQ(Printable("\xE0\x80\x80"), "\\xE0\\x80\\x80") << "longer than it must be";
  EXPECT_EQ(Printable("\xED\xA0\x80"), "\\xED\\xA0\\x80") << "a surrogate";
  EXPECT_EQ(Printable("\xF4\x90\x80\x80"), "\\xF4\\x90\\x80\\x80") << "above U+10FFFF";
  EXPECT_EQ(Printable("\xED\x9F\xBF\xF4\x8F\xBF\xBF"), "\xED\x9F\xBF\xF4\x8F\xBF\xBF");
  EXPECT_EQ(Printable(std::string(200, 'x'), 10), "xxxxxxxxxx...");
}

TEST(Strings, FormatsNumbersForPeople) {
  EXPECT_EQ(WithCommas(671026419200), "671,026,419,200");
  EXPECT_EQ(WithCommas(-1234), "-1,234");
  EXPECT_EQ(HumanBytes(1536), "1.50 KiB");
  EXPECT_EQ(HumanSeconds(95.2), "1m 35s");
  EXPECT_EQ(HumanSeconds(315575000), "3652d 11h");
  EXPECT_EQ(HumanSeconds(8.76e13), "2,775,876 years");
}

TEST(LogLine, GoesToTheFileOfItsRank) {
  const std::string one = testing::TempDir() + "/rank-1.log", two = testing::TempDir() + "/rank-2.log";
  std::remove(one.c_str());
  std::remove(two.c_str());
  ASSERT_TRUE(AlsoLogTo(1, one));
  ASSERT_TRUE(AlsoLogTo(2, two));
  EXPECT_FALSE(AlsoLogTo(2, "/no/such/folder/x.log"));
  SetLogRank(1);
  LogLine("first");
  SetLogRank(2);
  LogLine("second");
  SetLogRank(-1);
  const auto text = [](const std::string& path) {
    std::ifstream file(path);
    return std::string(std::istreambuf_iterator<char>(file), {});
  };
  EXPECT_EQ(text(one), "[rank 1] first\n");
  EXPECT_EQ(text(two), "[rank 2] second\n");
}

TEST(MemoryTest, RunningOutOfItSaysWhatToDo) {
  EXPECT_EXIT(OutOfMemory(int64_t{3} << 20), testing::ExitedWithCode(kExitUnavailable),
              "error: out of memory; asked for 3.00 MiB; .* are free .* do less at a time");
  EXPECT_EXIT(OutOfMemory(0), testing::ExitedWithCode(kExitUnavailable),
              "error: out of memory; [0-9.]+ .iB of");
}

}  // namespace
}  // namespace moebius
