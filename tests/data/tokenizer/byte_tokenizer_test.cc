#include "data/tokenizer/byte_tokenizer.h"

#include <gtest/gtest.h>

#include "core/base/status.h"
#include "data/special_tokens.h"
#include "tests/core/io/scratch.h"

namespace moebius {
namespace {

std::string AllBytes() {
  std::string bytes;
  for (int byte = 0; byte < 256; ++byte) bytes += static_cast<char>(byte);
  return bytes;
}

TEST(ByteTokenizer, IdsAreTheBytesAndThenTheSpecialTokens) {
  const auto tokenizer =
      Tokenizer::FromJson(ByteTokenizerJson({"<|endoftext|>", "<think>", "</think>"}), "bytes");
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ(tokenizer->vocab_size(), 259);
  EXPECT_EQ(FindEndOfDocument(*tokenizer), 256);
  EXPECT_EQ(tokenizer->TokenToId("</think>"), 258);
  EXPECT_TRUE(tokenizer->IsSpecial(257));
  std::vector<int32_t> wanted(256);
  for (int32_t id = 0; id < 256; ++id) wanted[id] = id;
  EXPECT_EQ(tokenizer->Encode(AllBytes()), wanted);
  EXPECT_EQ(tokenizer->Decode(wanted), AllBytes());
  EXPECT_EQ(tokenizer->Encode("a<think>"), (std::vector<int32_t>{'a', 257}));
  EXPECT_EQ(tokenizer->Encode("<|endoftext|>", {.parse_special = false}).size(), 13u);
}

TEST(ByteTokenizer, EncodesLongTextByteByByte) {
  const auto tokenizer = MakeTokenizer("bytes");
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  std::string text;
  for (int i = 0; i < 500; ++i) text += AllBytes();
  const std::vector<int32_t> ids = tokenizer->Encode(text, {.parse_special = false});
  ASSERT_EQ(ids.size(), text.size());
  EXPECT_EQ(tokenizer->Decode(ids), text);
}

TEST(SymbolTokenizer, HasTheGivenSymbolsInTheirOrder) {
  const auto tokenizer = MakeTokenizer("symbols:0123456789+-*= \n");
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ(tokenizer->vocab_size(), 17);
  EXPECT_EQ(FindEndOfDocument(*tokenizer), 16);
  const std::vector<int32_t> ids = tokenizer->Encode("12+ 3\n");
  EXPECT_EQ(ids, (std::vector<int32_t>{1, 2, 10, 14, 3, 15}));
  EXPECT_EQ(tokenizer->Decode(ids), "12+ 3\n");
}

TEST(SymbolTokenizer, SaysWhatItWouldLeaveOut) {
  const auto tokenizer = MakeTokenizer("symbols:0123456789+-*= \n");
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_TRUE(tokenizer->CheckNothingIsLost("12+ 3\n").ok());
  const absl::Status lost = tokenizer->CheckNothingIsLost("1 / 3");
  EXPECT_EQ(ExitCode(lost), kExitUsage);
  EXPECT_NE(lost.message().find("no token for \"/\" in \"1 / 3\""), std::string::npos) << lost;
  // A marker is a token where it is parsed, else text.
  EXPECT_TRUE(tokenizer->CheckNothingIsLost("1<|endoftext|>", {.parse_special = true}).ok());
  EXPECT_FALSE(tokenizer->CheckNothingIsLost("1<|endoftext|>", {.parse_special = false}).ok());
  EXPECT_TRUE(MakeTokenizer("bytes")->CheckNothingIsLost("\xFF any text \xC3\xA9").ok());
}

TEST(SymbolTokenizer, HasNumbersOfTwoDigitsByTheirValue) {
  const auto tokenizer = MakeTokenizer("numbers:+= ");
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ(tokenizer->vocab_size(), 104);
  EXPECT_EQ(FindEndOfDocument(*tokenizer), 103);
  const std::vector<int32_t> ids = tokenizer->Encode("7+ 10=99+05");
  EXPECT_EQ(ids, (std::vector<int32_t>{7, 100, 102, 10, 101, 99, 100, 0, 5}));
  EXPECT_EQ(tokenizer->Decode(ids), "7+ 10=99+05");
  EXPECT_EQ(tokenizer->Decode(tokenizer->Encode("1234")), "1234");
}

TEST(SymbolTokenizer, RefusesWhatIsNoListOfSymbols) {
  for (const char* what :
       {"numbers:", "numbers:+3", "symbols:", "symbols:011", "symbols:0\x01", "symbols:\xC3\xA9"}) {
    const auto tokenizer = MakeTokenizer(what);
    EXPECT_EQ(ExitCode(tokenizer.status()), kExitUsage) << what;
    EXPECT_NE(tokenizer.status().message().find("write every symbol once"), std::string::npos);
  }
}

TEST(MakeTokenizer, ReadsAnyOtherNameAsAPath) {
  const Scratch scratch;
  WriteRaw(scratch.path("tokenizer.json"), ByteTokenizerJson({"<eos>"}));
  const auto tokenizer = MakeTokenizer(scratch.folder());
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ(FindEndOfDocument(*tokenizer), 256);
  const absl::Status absent = MakeTokenizer(scratch.path("absent")).status();
  EXPECT_EQ(ExitCode(absent), kExitMissing);
  EXPECT_NE(absent.message().find("or a tokenizer.json"), std::string::npos) << absent;
}

}  // namespace
}  // namespace moebius
