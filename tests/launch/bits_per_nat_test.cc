#include "launch/train/bits_per_nat.h"

#include <gtest/gtest.h>

#include <cmath>

#include "data/token_file.h"
#include "tests/launch/temp_folder.h"

namespace moebius {
namespace {

// `tokens` tokens that stand for `bytes` bytes.
std::string WriteTokens(const std::string& path, int64_t tokens, int64_t bytes) {
  auto writer = TokenFileWriter::Create(path, 300);
  EXPECT_TRUE(writer.ok()) << writer.status();
  EXPECT_TRUE((*writer)->AddDocument(std::vector<int32_t>(tokens, 7)).ok());
  const auto written =
      (*writer)->Finish({.vocab_size = 300, .bytes = bytes, .tokenizer_sha256 = "", .tokenizer_json = ""});
  EXPECT_TRUE(written.ok()) << written.status();
  return path;
}

double Of(const std::vector<LoaderOptions::Part>& parts) {
  const LoaderOptions options{.parts = parts, .sequence_length = 8};
  const auto loader = Loader::Open(options);
  EXPECT_TRUE(loader.ok()) << loader.status();
  return BitsPerNat(**loader, options);
}

// Every token of the mixture is drawn by the parts' weights, whatever the files' sizes.
TEST(BitsPerNat, OfAMixtureIsThatOfItsMeanToken) {
  const TempFolder folder;
  const std::string two = WriteTokens(folder.File("two.h5"), 1000, 2000),
                    four = WriteTokens(folder.File("four.h5"), 50, 200),
                    silent = WriteTokens(folder.File("silent.h5"), 50, 0);
  EXPECT_DOUBLE_EQ(Of({{two, 1}}), 1 / (2 * M_LN2));
  EXPECT_DOUBLE_EQ(Of({{four, 5}}), 1 / (4 * M_LN2));
  EXPECT_DOUBLE_EQ(Of({{two, 1}, {four, 3}}), 1 / (3.5 * M_LN2));
  EXPECT_EQ(Of({{two, 1}, {silent, 1}}), 0) << "not known";
}

}  // namespace
}  // namespace moebius
