#include "launch/tensorboard.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>

#include "core/base/status.h"
#include "core/io/file.h"
#include "tests/launch/temp_folder.h"

namespace moebius {
namespace {

TEST(Tensorboard, UsesTheCastagnoliPolynomial) { EXPECT_EQ(Crc32c("123456789"), 0xE3069283u); }

// Payloads of all records, with both checksums of each one checked as a reader does.
std::vector<std::string> Records(const std::string& bytes) {
  std::vector<std::string> records;
  const auto u32 = [&](size_t at) {
    uint32_t value;
    std::memcpy(&value, bytes.data() + at, 4);
    return value;
  };
  const auto masked = [](std::string_view text) { return std::rotr(Crc32c(text), 15) + 0xA282EAD8u; };
  size_t at = 0;
  while (at < bytes.size()) {
    uint64_t length;
    std::memcpy(&length, bytes.data() + at, 8);
    EXPECT_EQ(u32(at + 8), masked(std::string_view(bytes).substr(at, 8)));
    records.push_back(bytes.substr(at + 12, length));
    EXPECT_EQ(u32(at + 12 + length), masked(records.back()));
    at += 16 + length;
  }
  return records;
}

TEST(Tensorboard, WritesCheckedRecordsWithTheFileVersionFirst) {
  const TempFolder folder;
  auto writer = TensorboardWriter::Open(folder.path(), 0);
  ASSERT_TRUE(writer.ok()) << writer.status();
  MetricsRow row{.step = 300, .values = {{"train/loss", 2.5}, {"train/grad_norm", NAN}}};
  ASSERT_TRUE(writer->AddScalars(row, 1.0).ok());
  ASSERT_TRUE(writer->AddText("sample", 300, "Once upon", 2.0).ok());
  ASSERT_TRUE(writer->Flush().ok());
  const auto records = Records(*ReadFile(writer->path()));
  ASSERT_EQ(records.size(), 3u);
  EXPECT_NE(records[0].find("brain.Event:2"), std::string::npos);
  // wall_time 1.0, step 300, summary { value { tag: "train/loss" simple_value: 2.5 } }; NaN is left out.
  const std::string expected = std::string(
      "\x09\0\0\0\0\0\0\xF0\x3F\x10\xAC\x02\x2A\x13\x0A\x11\x0A\x0Atrain/loss\x15\0\0\x20\x40", 33);
  EXPECT_EQ(records[1], expected);
  EXPECT_NE(records[2].find("Once upon"), std::string::npos);
}

TEST(Tensorboard, OpensANewFileEachTimeInTheOrderOfTheRuns) {
  const TempFolder folder;
  const auto first = TensorboardWriter::Open(folder.path(), 0);
  const auto second = TensorboardWriter::Open(folder.path(), 40);
  ASSERT_TRUE(first.ok() && second.ok());
  EXPECT_LT(first->path(), second->path());
  EXPECT_EQ(Records(*ReadFile(second->path())).size(), 2u) << "version, then the start of a new session";
}

TEST(Tensorboard, SaysWhenItCannotWrite) {
  const TempFolder folder;
  folder.Write("file", "");
  EXPECT_EQ(ExitCode(TensorboardWriter::Open(folder.File("file/tb"), 0).status()), kExitCannotWrite);
}

}  // namespace
}  // namespace moebius
