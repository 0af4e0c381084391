#include "launch/metrics.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <cmath>
#include <csignal>
#include <limits>

#include "core/base/status.h"
#include "tests/launch/temp_folder.h"

namespace moebius {
namespace {

MetricsRow Row(int64_t step, double loss) {
  MetricsRow row{.step = step, .values = {}};
  row.Set("tokens", 100000.0 * static_cast<double>(step));
  row.Set("train/loss", loss);
  return row;
}

TEST(Metrics, WritesOneObjectALineWithExactNumbersAndNullForNan) {
  EXPECT_EQ(MetricsLine(Row(3, 2.5)), R"({"step":3,"tokens":300000,"train/loss":2.5})");
  EXPECT_EQ(MetricsLine(Row(3, 0.1)), R"({"step":3,"tokens":300000,"train/loss":0.1})");
  EXPECT_EQ(MetricsLine(Row(3, NAN)), R"({"step":3,"tokens":300000,"train/loss":null})");
  EXPECT_EQ(MetricsLine(Row(3, INFINITY)), R"({"step":3,"tokens":300000,"train/loss":null})");
}

TEST(Metrics, ReadsBackWhatItWrote) {
  const TempFolder folder;
  const std::string path = folder.File("metrics.jsonl");
  auto writer = JsonLinesWriter::Open(path);
  ASSERT_TRUE(writer.ok()) << writer.status();
  const double odd = 0.1 + 0.2;
  ASSERT_TRUE(writer->Append(MetricsLine(Row(1, odd))).ok());
  ASSERT_TRUE(writer->Append(MetricsLine(Row(2, NAN))).ok());
  const auto rows = ReadMetrics(path);
  ASSERT_TRUE(rows.ok()) << rows.status();
  ASSERT_EQ(rows->size(), 2u);
  EXPECT_EQ((*rows)[0].Get("train/loss"), odd);
  EXPECT_TRUE(std::isnan(*(*rows)[1].Get("train/loss")));
  EXPECT_EQ((*rows)[1].step, 2);
  EXPECT_EQ((*rows)[0].Get("val/loss"), std::nullopt);
}

TEST(Metrics, LeavesOutATornLastLineAndRepairsItBeforeAppending) {
  const TempFolder folder;
  const std::string path = folder.Write("m.jsonl", "{\"step\":1}\n{\"step\":2,\"trai");
  EXPECT_EQ(ReadMetrics(path)->size(), 1u);
  auto writer = JsonLinesWriter::Open(path);
  ASSERT_TRUE(writer.ok());
  ASSERT_TRUE(writer->Append("{\"step\":2}").ok());
  EXPECT_EQ(folder.Read("m.jsonl"), "{\"step\":1}\n{\"step\":2}\n");
}

TEST(Metrics, RepairsATornLineLongerThanAReadBlock) {
  const TempFolder folder;
  const std::string path = folder.Write("m.jsonl", "{\"step\":1}\n" + std::string(20000, 'x'));
  ASSERT_TRUE(JsonLinesWriter::Open(path).ok());
  EXPECT_EQ(folder.Read("m.jsonl"), "{\"step\":1}\n");
  folder.Write("m.jsonl", std::string(20000, 'x'));
  ASSERT_TRUE(JsonLinesWriter::Open(path).ok());
  EXPECT_EQ(folder.Read("m.jsonl"), "");
}

TEST(Metrics, CutsBackToACheckpointWithoutTouchingEarlierBytes) {
  const TempFolder folder;
  const std::string path =
      folder.Write("m.jsonl", "{\"step\": 1, \"x\":  0.10}\n{\"step\":2}\n{\"step\":3}\n{\"st");
  ASSERT_TRUE(CutJsonLines(path, 2).ok());
  EXPECT_EQ(folder.Read("m.jsonl"), "{\"step\": 1, \"x\":  0.10}\n{\"step\":2}\n");
  ASSERT_TRUE(CutJsonLines(path, 0).ok());
  EXPECT_EQ(folder.Read("m.jsonl"), "");
  EXPECT_TRUE(CutJsonLines(folder.File("none"), 5).ok());
}

TEST(Metrics, NamesFileAndLineOfDamage) {
  const TempFolder folder;
  for (const char* bad : {"{\"step\":1}\nnonsense\n", "{\"step\":1}\n[1]\n",
                          "{\"step\":1}\n{\"step\":\"x\"}\n", "{\"step\":1}\n{}\n"}) {
    const auto rows = ReadMetrics(folder.Write("m.jsonl", bad));
    EXPECT_EQ(ExitCode(rows.status()), kExitDamaged) << bad;
    EXPECT_NE(rows.status().message().find("m.jsonl, line 2"), absl::string_view::npos) << rows.status();
  }
  EXPECT_EQ(ExitCode(ReadMetrics(folder.File("none")).status()), kExitMissing);
}

TEST(Metrics, KeepsEarlierLinesWholeWhenTheDiskIsFull) {
  const TempFolder folder;
  const std::string path = folder.File("m.jsonl");
  auto writer = JsonLinesWriter::Open(path);
  ASSERT_TRUE(writer->Append("{\"step\":1}").ok());
  // A file size limit stands for the full disk: the write is cut short the same way.
  signal(SIGXFSZ, SIG_IGN);
  struct rlimit old;
  getrlimit(RLIMIT_FSIZE, &old);
  const struct rlimit small = {30, old.rlim_max};
  setrlimit(RLIMIT_FSIZE, &small);
  const absl::Status status = writer->Append("{\"step\":2,\"text\":\"" + std::string(100, 'x') + "\"}");
  setrlimit(RLIMIT_FSIZE, &old);
  EXPECT_EQ(ExitCode(status), kExitCannotWrite);
  EXPECT_EQ(folder.Read("m.jsonl"), "{\"step\":1}\n");
  EXPECT_TRUE(writer->Append("{\"step\":2}").ok());
  EXPECT_EQ(folder.Read("m.jsonl"), "{\"step\":1}\n{\"step\":2}\n");
}

TEST(Metrics, ReadsBackExpertLoadsAndSamples) {
  const TempFolder folder;
  folder.Write("e.jsonl", ExpertLoadLine({.step = 7, .load = {{0.25, 0.75}, {1.0 / 3, 2.0 / 3}}}) + "\n");
  const auto loads = ReadExpertLoad(folder.File("e.jsonl"));
  ASSERT_TRUE(loads.ok()) << loads.status();
  ASSERT_EQ((*loads)[0].load.size(), 2u);
  EXPECT_NEAR((*loads)[0].load[1][0], 1.0 / 3, 1e-4);
  folder.Write("samples/step-00000020.jsonl", SampleLine({20, "Once", " up\"on\n\xff"}) + "\n");
  folder.Write("samples/step-00000010.jsonl", SampleLine({10, "A", "b"}) + "\n");
  const auto samples = ReadSamples(folder.File("samples"));
  ASSERT_TRUE(samples.ok()) << samples.status();
  ASSERT_EQ(samples->size(), 2u);
  EXPECT_EQ((*samples)[0].step, 10);
  EXPECT_EQ((*samples)[1].text, " up\"on\n\xEF\xBF\xBD");
}

}  // namespace
}  // namespace moebius
