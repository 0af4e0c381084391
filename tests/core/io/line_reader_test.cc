#include "core/io/line_reader.h"

#include <gtest/gtest.h>
#include <zlib.h>
#include <zstd.h>

#include <string>
#include <vector>

#include "core/base/status.h"
#include "tests/core/io/scratch.h"

namespace moebius {
namespace {

std::string Gzip(const std::string& text) {
  z_stream stream{};
  deflateInit2(&stream, 6, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY);
  std::string out(deflateBound(&stream, text.size()) + 64, '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
  stream.avail_in = text.size();
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = out.size();
  deflate(&stream, Z_FINISH);
  out.resize(stream.total_out);
  deflateEnd(&stream);
  return out;
}

std::string Zstd(const std::string& text) {
  std::string out(ZSTD_compressBound(text.size()), '\0');
  out.resize(ZSTD_compress(out.data(), out.size(), text.data(), text.size(), 3));
  return out;
}

std::string SomeText(int num_lines) {
  std::string text;
  for (int i = 0; i < num_lines; ++i)
    text += "line " + std::to_string(i * 7919) + std::string(i % 200, 'x') + "\n";
  return text;
}

// The lines, then "error: ..." if one ended the reading.
std::vector<std::string> Lines(const std::string& path, LineReader::Options options = {}) {
  std::vector<std::string> lines;
  auto reader = LineReader::Open(path, options);
  if (!reader.ok()) return {"error: " + std::string(reader.status().message())};
  std::string_view line;
  while (true) {
    const auto more = reader->Next(&line);
    if (!more.ok()) lines.push_back("error: " + std::string(more.status().message()));
    if (!more.ok() || !*more) return lines;
    lines.emplace_back(line);
    EXPECT_EQ(reader->line_number(), static_cast<int64_t>(lines.size()));
  }
}

std::string Content(const std::string& path, int64_t max_bytes = kNoByteLimit) {
  auto source = OpenByteSource(path, max_bytes);
  if (!source.ok()) return "error: " + std::string(source.status().message());
  const auto text = ReadAll(**source);
  EXPECT_TRUE(text.ok() || ExitCode(text.status()) == kExitDamaged) << text.status();
  return text.ok() ? *text : "error: " + std::string(text.status().message());
}

bool IsError(const std::string& text, const std::string& part) {
  return text.rfind("error: ", 0) == 0 && text.find(part) != std::string::npos;
}

TEST(ByteSource, ReadsPlainGzipAndZstdAlike) {
  const Scratch scratch;
  const std::string text = SomeText(20000);
  WriteRaw(scratch.path("a"), text);
  WriteRaw(scratch.path("a.gz"), Gzip(text));
  WriteRaw(scratch.path("a.zst"), Zstd(text));
  WriteRaw(scratch.path("unnamed"), Gzip(text));
  for (const char* name : {"a", "a.gz", "a.zst", "unnamed"})
    EXPECT_TRUE(Content(scratch.path(name)) == text) << name;
}

TEST(ByteSource, ReadsSeveralMembersAndPadding) {
  const Scratch scratch;
  WriteRaw(scratch.path("a.gz"), Gzip("one ") + Gzip("") + Gzip("two") + std::string(500, '\0'));
  EXPECT_EQ(Content(scratch.path("a.gz")), "one two");
  WriteRaw(scratch.path("a.zst"),
           std::string("\x51\x2a\x4d\x18\x02\0\0\0hi", 10) + Zstd("one ") + Zstd("two"));
  EXPECT_EQ(Content(scratch.path("a.zst")), "one two");
}

TEST(ByteSource, AnEmptyFileIsEmptyUnlessItsNameSaysThatItIsCompressed) {
  const Scratch scratch;
  WriteRaw(scratch.path("a"), "");
  EXPECT_EQ(Content(scratch.path("a")), "");
  for (const char* name : {"a.gz", "a.zst"}) {  // what an interrupted download leaves
    WriteRaw(scratch.path(name), "");
    EXPECT_TRUE(IsError(Content(scratch.path(name)), "although its name says so")) << name;
  }
}

TEST(ByteSource, NoticesEveryTruncation) {
  const Scratch scratch;
  const std::string text = SomeText(40);
  for (const std::string& whole : {Gzip(text), Zstd(text)}) {
    for (size_t size = 4; size < whole.size(); size += 1 + size / 20) {
      WriteRaw(scratch.path("a"), whole.substr(0, size));
      EXPECT_TRUE(IsError(Content(scratch.path("a")), "")) << size << " of " << whole.size();
    }
  }
}

TEST(ByteSource, NoticesDamageAndGarbage) {
  const Scratch scratch;
  std::string gzip = Gzip(SomeText(400));
  gzip[gzip.size() / 2] ^= 0x10;
  WriteRaw(scratch.path("a.gz"), gzip);
  EXPECT_TRUE(IsError(Content(scratch.path("a.gz")), "a.gz: gzip: "));
  WriteRaw(scratch.path("b.gz"), Gzip("text") + "garbage");
  EXPECT_TRUE(IsError(Content(scratch.path("b.gz")), "gzip"));
  std::string zstd = Zstd(SomeText(400));
  zstd.resize(zstd.size() - 1);
  zstd += "garbage";
  WriteRaw(scratch.path("a.zst"), zstd);
  EXPECT_TRUE(IsError(Content(scratch.path("a.zst")), "a.zst: zstd: "));
  WriteRaw(scratch.path("c.gz"), "plain text");
  EXPECT_TRUE(IsError(Content(scratch.path("c.gz")), "not gzip"));
  WriteRaw(scratch.path("c.zst"), "plain text");
  EXPECT_TRUE(IsError(Content(scratch.path("c.zst")), "not zstd"));
  EXPECT_TRUE(IsError(Content(scratch.folder()), "is a folder"));
  EXPECT_TRUE(IsError(Content(scratch.path("gone")), "No such file"));
}

TEST(ByteSource, StopsABombAtTheLimit) {
  const Scratch scratch;
  const std::string text(5 << 20, 'a');
  WriteRaw(scratch.path("a.gz"), Gzip(text));
  WriteRaw(scratch.path("a.zst"), Zstd(text));
  for (const char* name : {"a.gz", "a.zst"}) {
    EXPECT_TRUE(Content(scratch.path(name), text.size()) == text) << name;
    EXPECT_TRUE(IsError(Content(scratch.path(name), text.size() - 1), "limit of 5242879 bytes")) << name;
  }
}

TEST(LineReader, SplitsAtLineEndsOfBothKinds) {
  const Scratch scratch;
  WriteRaw(scratch.path("a"), "\xEF\xBB\xBFone\r\ntwo\n\n\rthree\nlast");
  EXPECT_EQ(Lines(scratch.path("a")), (std::vector<std::string>{"one", "two", "", "\rthree", "last"}));
  WriteRaw(scratch.path("b"), "");
  EXPECT_EQ(Lines(scratch.path("b")), std::vector<std::string>{});
  WriteRaw(scratch.path("c"), "\n\n");
  EXPECT_EQ(Lines(scratch.path("c")), (std::vector<std::string>{"", ""}));
  WriteRaw(scratch.path("d"), std::string("a\0b\nc", 5));
  EXPECT_EQ(Lines(scratch.path("d")), (std::vector<std::string>{std::string("a\0b", 3), "c"}));
}

TEST(LineReader, GivesTheSameLinesFromEveryCompression) {
  const Scratch scratch;
  const std::string text = SomeText(30000);
  WriteRaw(scratch.path("a"), text);
  WriteRaw(scratch.path("a.gz"), Gzip(text));
  WriteRaw(scratch.path("a.zst"), Zstd(text));
  const std::vector<std::string> lines = Lines(scratch.path("a"));
  std::string joined;
  for (const std::string& line : lines) joined += line + "\n";
  EXPECT_TRUE(joined == text);
  EXPECT_TRUE(Lines(scratch.path("a.gz")) == lines);
  EXPECT_TRUE(Lines(scratch.path("a.zst")) == lines);
}

TEST(LineReader, TakesALastLineWithoutItsEnd) {
  const Scratch scratch;
  WriteRaw(scratch.path("a"), "one\ntwo");
  auto reader = LineReader::Open(scratch.path("a"));
  ASSERT_TRUE(reader.ok());
  std::string_view line;
  ASSERT_TRUE(*reader->Next(&line));
  ASSERT_TRUE(*reader->Next(&line));
  EXPECT_EQ(reader->Where(), scratch.path("a") + " line 2");
  EXPECT_FALSE(*reader->Next(&line));
  EXPECT_FALSE(*reader->Next(&line));
  EXPECT_EQ(reader->line_number(), 2);
}

TEST(LineReader, NamesATooLongLineAndGoesOnBehindIt) {
  const Scratch scratch;
  WriteRaw(scratch.path("a"), "one\n" + std::string(3000000, 'x') + "\ntwo\n" + std::string(11, 'y') +
                                  "\nthree\n" + std::string(1000, 'z'));
  auto reader = LineReader::Open(scratch.path("a"), {.max_line_bytes = 10});
  ASSERT_TRUE(reader.ok());
  std::string seen;
  std::string_view line;
  for (int i = 0; i < 20; ++i) {
    const auto more = reader->Next(&line);
    if (more.ok() && !*more) break;
    if (!more.ok()) {
      EXPECT_EQ(ExitCode(more.status()), kExitDamaged);
      EXPECT_EQ(std::string(more.status().message()).rfind(reader->Where(), 0), 0u) << more.status();
    }
    seen += std::to_string(reader->line_number()) + (more.ok() ? std::string(line) : "!") + " ";
  }
  EXPECT_EQ(seen, "1one 2! 3two 4! 5three 6! ");
}

TEST(LineReader, ReportsTruncatedCompressionWithTheLineReached) {
  const Scratch scratch;
  const std::string whole = Gzip(SomeText(3000));
  WriteRaw(scratch.path("a.gz"), whole.substr(0, whole.size() / 2));
  const std::vector<std::string> lines = Lines(scratch.path("a.gz"));
  ASSERT_GT(lines.size(), 100u);
  EXPECT_TRUE(IsError(lines.back(), "end early")) << lines.back();
  EXPECT_TRUE(IsError(lines.back(), "after line " + std::to_string(lines.size() - 1) + ":")) << lines.back();
}

}  // namespace
}  // namespace moebius
