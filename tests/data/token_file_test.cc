#include "data/token_file.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <numeric>

#include "core/base/status.h"
#include "core/base/strings.h"
#include "core/io/hash.h"
#include "data/token_view.h"
#include "tests/core/io/scratch.h"

namespace moebius {
namespace {

// Documents of the given lengths with tokens 0, 1, 2, ... modulo the vocabulary.
FileHash WriteTokens(const std::string& path, const std::vector<int64_t>& lengths, int64_t vocab_size) {
  auto writer = TokenFileWriter::Create(path, vocab_size);
  EXPECT_TRUE(writer.ok()) << writer.status();
  int64_t next = 0;
  for (const int64_t length : lengths) {
    std::vector<int32_t> tokens;
    for (int64_t i = 0; i < length; ++i) tokens.push_back(static_cast<int32_t>(next++ % vocab_size));
    EXPECT_TRUE((*writer)->AddDocument(tokens).ok());
  }
  const auto hash = (*writer)->Finish({.vocab_size = vocab_size,
                                       .bytes = 3 * next,
                                       .tokenizer_sha256 = Sha256Hex("{}"),
                                       .tokenizer_json = "{}"});
  EXPECT_TRUE(hash.ok()) << hash.status();
  return hash.value_or(FileHash());
}

TEST(TokenFile, GivesBackWhatWasWritten) {
  const Scratch scratch;
  for (const int64_t vocab_size : {100, 65536, 65537, 129280}) {
    const std::string path = scratch.path("t.h5");
    // More than a chunk of the HDF5 layout, so that reads cross stretches.
    WriteTokens(path, {5, 1, 1'500'000, 0, 1'000'000}, vocab_size);
    const auto file = TokenFile::Open(path);
    ASSERT_TRUE(file.ok()) << file.status();
    EXPECT_EQ((*file)->num_tokens(), 2'500'006);
    EXPECT_EQ((*file)->info().vocab_size, vocab_size);
    EXPECT_EQ((*file)->info().bytes, 3 * 2'500'006);
    EXPECT_EQ((*file)->info().tokenizer_json, "{}");
    const auto starts = (*file)->document_starts();
    EXPECT_EQ(std::vector<int64_t>(starts.begin(), starts.end()), (std::vector<int64_t>{0, 5, 6, 1'500'006}));
    for (const int64_t begin : {int64_t{0}, int64_t{1'048'570}, int64_t{2'097'140}, int64_t{2'499'986}}) {
      std::vector<int32_t> tokens(20);
      ASSERT_TRUE((*file)->Read(begin, tokens).ok());
      for (int64_t i = 0; i < 20; ++i) EXPECT_EQ(tokens[i], (begin + i) % vocab_size);
    }
  }
}

TEST(TokenFile, SameDocumentsGiveTheSameBytes) {
  const Scratch scratch;
  EXPECT_EQ(WriteTokens(scratch.path("a.h5"), {5, 70}, 100).sha256,
            WriteTokens(scratch.path("b.h5"), {5, 70}, 100).sha256);
}

TEST(TokenFile, AnEmptyOneIsRefusedAndLeavesNoFile) {
  const Scratch scratch;
  auto writer = TokenFileWriter::Create(scratch.path("t.h5"), 100);
  ASSERT_TRUE(writer.ok());
  EXPECT_EQ(
      ExitCode((*writer)
                   ->Finish({.vocab_size = 100, .bytes = 0, .tokenizer_sha256 = "", .tokenizer_json = ""})
                   .status()),
      kExitDamaged);
  writer->reset();
  EXPECT_EQ(ExitCode(TokenFile::Open(scratch.path("t.h5")).status()), kExitMissing);
}

struct Flaw {
  const char* what;  // named in the message
  std::vector<int64_t> starts = {0, 3};
  std::vector<uint16_t> tokens = {1, 2, 3, 4, 5};
  int64_t format_version = kTokenFileVersion, vocab_size = 10, bytes = 5;
  const char* sha256 = "";
  bool with_tokens = true, with_starts = true, with_vocab_size = true, wide_starts = true,
       text_vocab_size = false;
};

std::string WriteFlawed(const Scratch& scratch, const Flaw& flaw) {
  auto writer = Hdf5Writer::Create(scratch.path("flaw.h5"));
  EXPECT_TRUE(writer.ok());
  if (flaw.with_tokens) {
    EXPECT_TRUE(writer->CreateDataset("tokens", DType::kU16).ok());
    EXPECT_TRUE(writer->Append("tokens", std::span<const uint16_t>(flaw.tokens)).ok());
  }
  if (flaw.with_starts && flaw.wide_starts) {
    EXPECT_TRUE(writer->CreateDataset("document_starts", DType::kI64).ok());
    EXPECT_TRUE(writer->Append("document_starts", std::span<const int64_t>(flaw.starts)).ok());
  } else if (flaw.with_starts) {
    EXPECT_TRUE(writer->CreateDataset("document_starts", DType::kI32).ok());
    const std::vector<int32_t> starts(flaw.starts.begin(), flaw.starts.end());
    EXPECT_TRUE(writer->Append("document_starts", std::span<const int32_t>(starts)).ok());
  }
  EXPECT_TRUE(writer->SetAttribute("format_version", flaw.format_version).ok());
  if (flaw.with_vocab_size) {
    EXPECT_TRUE((flaw.text_vocab_size ? writer->SetAttribute("vocab_size", "ten")
                                      : writer->SetAttribute("vocab_size", flaw.vocab_size))
                    .ok());
  }
  EXPECT_TRUE(writer->SetAttribute("bytes", flaw.bytes).ok());
  EXPECT_TRUE(writer->SetAttribute("tokenizer_sha256", flaw.sha256).ok());
  EXPECT_TRUE(writer->WriteBytes("tokenizer_json", "{}").ok());
  EXPECT_TRUE(writer->Commit().ok());
  return scratch.path("flaw.h5");
}

TEST(TokenFile, FlawsAreNamedWithFileAndField) {
  const Scratch scratch;
  EXPECT_TRUE(TokenFile::Open(WriteFlawed(scratch, {.what = ""})).ok());
  const Flaw flaws[] = {
      {.what = "tokens", .with_tokens = false},
      {.what = "/tokens is empty", .tokens = {}},
      {.what = "holds token 10", .tokens = {1, 2, 10, 4, 5}},
      {.what = "document_starts", .with_starts = false},
      {.what = "/document_starts is not of type int64", .wide_starts = false},
      {.what = "/document_starts begins with 1", .starts = {1, 3}},
      {.what = "/document_starts[1]", .starts = {0, 0}},
      {.what = "/document_starts[2]", .starts = {0, 3, 2}},
      {.what = "/document_starts[1]", .starts = {0, 5}},
      {.what = "/document_starts[1]", .starts = {0, -1}},
      {.what = "/document_starts has 0 entries", .starts = {}},
      {.what = "format_version is 2", .format_version = 2},
      {.what = "vocab_size", .with_vocab_size = false},
      {.what = "vocab_size", .text_vocab_size = true},
      {.what = "vocab_size is 0", .vocab_size = 0},
      {.what = "bytes is negative", .bytes = -1},
      {.what = "/tokenizer_json does not have the hash", .sha256 = "00"},
  };
  for (const Flaw& flaw : flaws) {
    const std::string path = WriteFlawed(scratch, flaw);
    const auto file = TokenFile::Open(path);
    ASSERT_FALSE(file.ok()) << flaw.what;
    EXPECT_EQ(ExitCode(file.status()), kExitDamaged) << file.status();
    EXPECT_NE(MessageOf(file.status()).find(path), std::string::npos) << file.status();
    EXPECT_NE(MessageOf(file.status()).find(flaw.what), std::string::npos) << file.status();
  }
}

TEST(TokenFile, DamageAnywhereNeverCrashesAndTheManifestFindsIt) {
  const Scratch scratch;
  const std::string path = scratch.path("t.h5");
  const FileHash hash = WriteTokens(path, {50, 70, 200}, 300);
  const std::string good = ReadRaw(path);
  const std::string manifest =
      Concat("{\"outputs\": {\"t.h5\": {\"bytes\": ", hash.bytes, ", \"sha256\": \"", hash.sha256, "\"}}}");
  for (size_t i = 0; i < good.size(); i += 1 + good.size() / 150) {
    std::string changed = good;
    changed[i] = static_cast<char>(changed[i] ^ 0xFF);
    WriteRaw(path, changed);
    const auto file = TokenFile::Open(path);
    if (file.ok()) {
      std::vector<int32_t> tokens((*file)->num_tokens());
      (void)(*file)->Read(0, tokens);
    }
    WriteRaw(scratch.path("manifest.json"), manifest);
    const auto checked = TokenFile::Open(path);
    EXPECT_EQ(ExitCode(checked.status()), kExitDamaged) << "byte " << i;
    std::filesystem::remove(scratch.path("manifest.json"));
  }
  WriteRaw(path, good.substr(0, good.size() - 1));
  EXPECT_FALSE(TokenFile::Open(path).ok());
  WriteRaw(scratch.path("manifest.json"), manifest);
  const auto cut = TokenFile::Open(path);
  EXPECT_NE(MessageOf(cut.status()).find(Concat(hash.bytes)), std::string::npos) << cut.status();
  WriteRaw(path, good);
  EXPECT_TRUE(TokenFile::Open(path).ok());
  WriteRaw(scratch.path("manifest.json"), "{\"outputs\": {\"t.h5\": {\"bytes\": \"many\"}}}");
  const auto bad = TokenFile::Open(path);
  EXPECT_EQ(ExitCode(bad.status()), kExitDamaged);
  EXPECT_NE(MessageOf(bad.status()).find("manifest.json"), std::string::npos) << bad.status();
}

TEST(TokenView, RearrangesDocumentsWithoutLosingTokens) {
  const Scratch scratch;
  const std::string path = scratch.path("t.h5");
  {
    auto writer = TokenFileWriter::Create(path, 1000);
    ASSERT_TRUE(writer.ok());
    for (int d = 0; d < 40; ++d) {
      std::vector<int32_t> tokens(d % 9);
      std::iota(tokens.begin(), tokens.end(), 10);
      tokens.push_back(1);  // end of document
      ASSERT_TRUE((*writer)->AddDocument(tokens).ok());
    }
    ASSERT_TRUE((*writer)
                    ->Finish({.vocab_size = 1000, .bytes = 1, .tokenizer_sha256 = "", .tokenizer_json = ""})
                    .ok());
  }
  const FimTokens fim{.begin = 900, .hole = 901, .end = 902};
  auto view = TokenView::WithFim(*TokenFile::Open(path), 0.7, 5, fim, 1);
  ASSERT_TRUE(view.ok()) << view.status();
  std::vector<int32_t> all(view->num_tokens());
  ASSERT_TRUE(view->Read(0, all).ok());
  int rearranged = 0;
  const auto starts = view->document_starts();
  for (size_t d = 0; d < starts.size(); ++d) {
    const int64_t end = d + 1 < starts.size() ? starts[d + 1] : view->num_tokens();
    std::vector<int32_t> document(all.begin() + starts[d], all.begin() + end);
    ASSERT_EQ(document.back(), 1) << "the end of the document stays last";
    document.pop_back();
    if (!document.empty() && document[0] == fim.begin) {
      ++rearranged;
      const auto hole = std::find(document.begin(), document.end(), fim.hole);
      const auto middle = std::find(hole, document.end(), fim.end);
      std::vector<int32_t> restored(document.begin() + 1, hole);
      restored.insert(restored.end(), middle + 1, document.end());
      restored.insert(restored.end(), hole + 1, middle);
      document = restored;
    }
    ASSERT_EQ(document.size(), d % 9);
    for (size_t i = 0; i < document.size(); ++i) EXPECT_EQ(document[i], 10 + static_cast<int>(i));
  }
  EXPECT_GT(rearranged, 15);
  EXPECT_LT(rearranged, 35);
  // Any window equals that part of the whole.
  for (int64_t begin = 0; begin + 7 <= view->num_tokens(); ++begin) {
    std::vector<int32_t> window(7);
    ASSERT_TRUE(view->Read(begin, window).ok());
    EXPECT_TRUE(std::equal(window.begin(), window.end(), all.begin() + begin)) << begin;
  }
}

}  // namespace
}  // namespace moebius
