// Readers of text, on small inputs made here; the real packages, where they are unpacked, in
// packages_test.cc.
#include <gtest/gtest.h>
#include <zlib.h>
#include <zstd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>

#include "core/base/status.h"
#include "core/base/strings.h"
#include "data/corpora/bible_text.h"
#include "data/corpora/corpus.h"
#include "data/corpora/document.h"
#include "data/corpora/jsonl.h"
#include "data/corpora/packaged_text.h"
#include "data/corpora/rdata.h"
#include "data/corpora/text_tree.h"
#include "tests/data/corpora/documents.h"

namespace moebius {
namespace {

namespace fs = std::filesystem;

class CorporaTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "moebius-corpora-XXXXXX").string();
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
  }
  void TearDown() override { fs::remove_all(folder_); }
  std::string Write(const std::string& name, const std::string& content) {
    const fs::path path = fs::path(folder_) / name;
    fs::create_directories(path.parent_path());
    std::ofstream(path, std::ios::binary) << content;
    return path.string();
  }
  std::string folder_;
};

std::string Message(const absl::Status& status) { return std::string(status.message()); }

std::string Gzip(const std::string& text) {
  z_stream stream = {};
  EXPECT_EQ(deflateInit2(&stream, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
  std::string out(text.size() + 1000, '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
  stream.avail_in = static_cast<uInt>(text.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  EXPECT_EQ(deflate(&stream, Z_FINISH), Z_STREAM_END);
  out.resize(stream.total_out);
  deflateEnd(&stream);
  return out;
}

std::string Zlib(const std::string& text) {
  uLongf size = compressBound(text.size());
  std::string out(size, '\0');
  EXPECT_EQ(compress(reinterpret_cast<Bytef*>(out.data()), &size, reinterpret_cast<const Bytef*>(text.data()),
                     text.size()),
            Z_OK);
  out.resize(size);
  return out;
}

std::string BigEndian(uint32_t value) {
  std::string out;
  for (int shift = 24; shift >= 0; shift -= 8) out.push_back(static_cast<char>(value >> shift));
  return out;
}

// ---- UTF-8

TEST(MakeValidUtf8, KeepsTextOfEveryLength) {
  Document document{.name = "d",
                    .text = "plain, \xC3\xA9, \xE2\x82\xAC, \xF0\x9F\x98\x80 and a long ASCII end",
                    .origin = "f"};
  const std::string before = document.text;
  const auto runs = MakeValidUtf8(InvalidText::kRefuse, &document);
  ASSERT_TRUE(runs.ok()) << runs.status();
  EXPECT_EQ(*runs, 0);
  EXPECT_EQ(document.text, before);
}

TEST(MakeValidUtf8, RefusesBadBytesNamingFileAndPosition) {
  for (const std::string bad : {"\xFF", "\xC0\xAF", "\xED\xA0\x80", "\xF4\x90\x80\x80", "\xE2\x82", "\x80"}) {
    Document document{.name = "d", .text = "0123456789" + bad, .origin = "dir/file.txt"};
    const auto runs = MakeValidUtf8(InvalidText::kRefuse, &document);
    ASSERT_FALSE(runs.ok());
    EXPECT_EQ(ExitCode(runs.status()), kExitDamaged);
    EXPECT_NE(Message(runs.status()).find("dir/file.txt: byte 10"), std::string::npos) << runs.status();
  }
}

TEST(MakeValidUtf8, CallsNulBytesBinary) {
  Document document{.name = "d", .text = std::string("0123456789abcdef\0x", 18), .origin = "f"};
  const auto runs = MakeValidUtf8(InvalidText::kRefuse, &document);
  ASSERT_FALSE(runs.ok());
  EXPECT_NE(Message(runs.status()).find("byte 16"), std::string::npos) << runs.status();
  EXPECT_NE(Message(runs.status()).find("binary"), std::string::npos);
}

TEST(MakeValidUtf8, ReplacesEachBadRunByOneMark) {
  Document document{.name = "d", .text = "a\xFF\xFE\xC0z\x80", .origin = "f"};
  const auto runs = MakeValidUtf8(InvalidText::kReplace, &document);
  ASSERT_TRUE(runs.ok());
  EXPECT_EQ(*runs, 2);
  EXPECT_EQ(document.text, "a\xEF\xBF\xBDz\xEF\xBF\xBD");
}

// ---- JSONL

TEST_F(CorporaTest, ReadsJsonlPlainAndCompressed) {
  const std::string lines = "{\"text\": \"first\\nline\"}\n\n{\"id\": 7, \"text\": \"second \\u00e9\"}\n";
  std::string zst(ZSTD_compressBound(lines.size()), '\0');
  zst.resize(ZSTD_compress(zst.data(), zst.size(), lines.data(), lines.size(), 3));
  for (const auto& [name, content] : {std::pair<std::string, std::string>{"a.jsonl", lines},
                                      {"a.jsonl.gz", Gzip(lines)},
                                      {"a.jsonl.zst", zst}}) {
    const auto documents = All(*ReadJsonl({Write(name, content)}, "web", "text", InvalidText::kRefuse));
    ASSERT_EQ(documents.size(), 2u) << name;
    EXPECT_EQ(documents[0].text, "first\nline");
    EXPECT_EQ(documents[1].text, "second \xC3\xA9");
    EXPECT_EQ(documents[1].name, "web/" + name + ":3");
  }
}

// JSON itself must be UTF-8, so what is bad is replaced before it is read.
TEST_F(CorporaTest, JsonlWithBadTextIsReplacedWhereAsked) {
  const std::string path = Write("bad.jsonl",
                                 "{\"text\": \"a \xFF b\"}\n{\"text\": \"\\ud800 \\ud83d\\ude00 \\\\ud800 "
                                 "\\udc00\"}\n{\"text\": \"good\"}\n");
  absl::Status status;
  EXPECT_EQ(All(*ReadJsonl({path}, "web", "text", InvalidText::kRefuse), &status).size(), 0u);
  EXPECT_EQ(ExitCode(status), kExitDamaged) << status;
  const auto documents = All(*ReadJsonl({path}, "web", "text", InvalidText::kReplace));
  ASSERT_EQ(documents.size(), 3u);
  EXPECT_EQ(documents[0].text, "a \xEF\xBF\xBD b");
  EXPECT_EQ(documents[0].replaced, 1);
  EXPECT_EQ(documents[1].text, "\xEF\xBF\xBD \xF0\x9F\x98\x80 \\ud800 \xEF\xBF\xBD");
  EXPECT_EQ(documents[1].replaced, 2);
  EXPECT_EQ(documents[2].replaced, 0);
}

TEST_F(CorporaTest, BadJsonlLinesAreNamed) {
  const std::pair<const char*, const char*> cases[] = {{"not json", "line 2"},
                                                       {"[\"text\"]", "line 2"},
                                                       {"{\"txt\": \"a\"}", "\"text\""},
                                                       {"{\"text\": 5}", "\"text\""},
                                                       {"{\"text\": null}", "\"text\""}};
  for (const auto& [line, expected] : cases) {
    const std::string path = Write("bad.jsonl", Concat("{\"text\": \"fine\"}\n", line, "\n"));
    absl::Status status;
    EXPECT_EQ(All(*ReadJsonl({path}, "web", "text", InvalidText::kRefuse), &status).size(), 1u) << line;
    EXPECT_EQ(ExitCode(status), kExitDamaged) << line;
    EXPECT_NE(Message(status).find(path), std::string::npos) << status;
    EXPECT_NE(Message(status).find("line 2"), std::string::npos) << status;
    EXPECT_NE(Message(status).find(expected), std::string::npos) << status;
  }
}

TEST_F(CorporaTest, CutShortArchivesAreDamaged) {
  std::string lines;
  for (int i = 0; i < 3000; ++i) lines += Concat("{\"text\": \"line ", i * 7919 % 3001, "\"}\n");
  std::string zst(ZSTD_compressBound(lines.size()), '\0');
  zst.resize(ZSTD_compress(zst.data(), zst.size(), lines.data(), lines.size(), 3));
  const std::string gz = Gzip(lines);
  for (const auto& [name, content] :
       {std::pair<std::string, std::string>{"a.jsonl.gz", gz.substr(0, gz.size() / 2)},
        {"a.jsonl.zst", zst.substr(0, zst.size() / 2)}}) {
    const std::string path = Write(name, content);
    absl::Status status;
    EXPECT_LT(All(*ReadJsonl({path}, "web", "text", InvalidText::kRefuse), &status).size(), 3000u);
    EXPECT_EQ(ExitCode(status), kExitDamaged) << name;
    EXPECT_NE(Message(status).find(path), std::string::npos) << status;
  }
}

// ---- R data

std::string RChar(const std::string& text) {
  return BigEndian(0x00040009) + BigEndian(static_cast<uint32_t>(text.size())) + text;
}
std::string RStrings(const std::vector<std::string>& strings) {
  std::string out = BigEndian(16) + BigEndian(static_cast<uint32_t>(strings.size()));
  for (const std::string& text : strings) out += RChar(text);
  return out;
}
std::string RNames(const std::vector<std::string>& names, bool first) {
  // A tagged pairlist cell with the symbol `names`, spelt out at its first use, then by reference.
  const std::string symbol = first ? BigEndian(1) + RChar("names") : BigEndian(0x1FF);
  return BigEndian(0x402) + symbol + RStrings(names) + BigEndian(254);
}
std::string RHeader() {
  return "X\n" + BigEndian(3) + BigEndian(0x040201) + BigEndian(0x030500) + BigEndian(5) + "UTF-8";
}

// .rdx and .rdb of a package with these character vectors.
std::pair<std::string, std::string> LazyLoad(
    const std::vector<std::pair<std::string, std::vector<std::string>>>& objects) {
  std::string data, places;
  std::vector<std::string> names;
  for (const auto& [name, strings] : objects) {
    const std::string plain = RHeader() + RStrings(strings);
    const std::string record = BigEndian(static_cast<uint32_t>(plain.size())) + Zlib(plain);
    places += BigEndian(13) + BigEndian(2) + BigEndian(static_cast<uint32_t>(data.size())) +
              BigEndian(static_cast<uint32_t>(record.size()));
    data += record;
    names.push_back(name);
  }
  const std::string variables =
      BigEndian(0x213) + BigEndian(static_cast<uint32_t>(objects.size())) + places + RNames(names, true);
  const std::string references = BigEndian(0x213) + BigEndian(0) + RNames({}, false);
  const std::string root = BigEndian(0x213) + BigEndian(3) + variables + references + BigEndian(10) +
                           BigEndian(1) + BigEndian(1) +
                           RNames({"variables", "references", "compressed"}, false);
  return {Gzip(RHeader() + root), data};
}

TEST(LazyLoadStrings, GivesVectorsByName) {
  const auto [index, data] =
      LazyLoad({{"emma", {"EMMA", "", "By Jane Austen"}}, {"persuasion", {"Persuasion"}}});
  const auto objects = ReadLazyLoadStrings(index, data);
  ASSERT_TRUE(objects.ok()) << objects.status();
  ASSERT_EQ(objects->size(), 2u);
  EXPECT_EQ((*objects)[0].first, "emma");
  EXPECT_EQ((*objects)[0].second, (std::vector<std::string>{"EMMA", "", "By Jane Austen"}));
  EXPECT_EQ((*objects)[1].second, (std::vector<std::string>{"Persuasion"}));
}

TEST(LazyLoadStrings, DamageEndsInAnErrorWherever) {
  const auto [index, data] = LazyLoad({{"emma", {"EMMA", "", "By Jane Austen"}}});
  for (size_t i = 0; i < data.size(); ++i) {
    EXPECT_FALSE(ReadLazyLoadStrings(index, data.substr(0, i)).ok()) << "cut at " << i;
    std::string changed = data;
    changed[i] ^= 0x55;
    if (i < 4) continue;  // the length, which zlib data do not need
    EXPECT_FALSE(ReadLazyLoadStrings(index, changed).ok()) << "changed at " << i;
  }
  const auto missing = ReadLazyLoadStrings(index, "");
  EXPECT_NE(Message(missing.status()).find("emma"), std::string::npos) << missing.status();
}

TEST(LazyLoadStrings, UncompressedRubbishNeverCrashes) {
  const std::string good = RHeader() + RStrings({"abc", "de"});
  for (size_t i = 0; i < good.size(); ++i) {
    for (const unsigned char mask : {0x01, 0x80, 0xFF}) {
      std::string changed = good;
      changed[i] = static_cast<char>(changed[i] ^ mask);
      (void)UnserializeR(changed).status();
    }
    EXPECT_FALSE(UnserializeR(good.substr(0, i)).ok());
  }
}

// ---- the Bible's data file

// LZW as compress(1) writes it, without its header.
std::string EncodeLzw(const std::string& text) {
  std::map<std::string, int> table;
  std::string out;
  uint64_t buffer = 0;
  int filled = 0, width = 9, in_group = 0, next = 257;
  const auto emit = [&](int code) {
    buffer |= static_cast<uint64_t>(code) << filled;
    for (filled += width; filled >= 8; filled -= 8, buffer >>= 8) out.push_back(static_cast<char>(buffer));
    in_group = (in_group + 1) % 8;
  };
  const auto code_of = [&](const std::string& s) {
    return s.size() == 1 ? static_cast<unsigned char>(s[0]) : table.at(s);
  };
  std::string current;
  int emitted = 0;
  for (const char c : text) {
    if (current.empty() || table.count(current + c) > 0) {
      current += c;
      continue;
    }
    emit(code_of(current));
    // The decoder's table is one entry behind the encoder's.
    if (emitted++ > 0 && next - 1 >= (1 << width) - 1 && width < 16) {
      while (in_group != 0) emit(0);
      ++width;
    }
    table[current + c] = next++;
    current = c;
  }
  if (!current.empty()) emit(code_of(current));
  if (filled > 0) out.push_back(static_cast<char>(buffer));
  return out;
}

std::string BibleData(const std::string& text, size_t window) {
  std::vector<std::string> parts;
  for (size_t i = 0; i < text.size(); i += window) parts.push_back(EncodeLzw(text.substr(i, window)));
  parts[0] = "\x1F\x9D\x90" + parts[0];
  std::string out = "EC02Compressed Data File";
  out.resize(84);
  out += BigEndian(static_cast<uint32_t>(window)) + BigEndian(static_cast<uint32_t>(parts.size()));
  size_t offset = out.size() + 4 * parts.size();
  for (const std::string& part : parts) {
    out += BigEndian(static_cast<uint32_t>(offset));
    offset += part.size();
  }
  for (const std::string& part : parts) out += part;
  return out;
}

TEST(BibleText, WindowsOfLzwBecomeBooks) {
  std::string text =
      "Holy Bible, test.\nGe1:1 In the beginning.\nGe1:2 And the earth.\nGe2:1 Thus.\n1Jn3:14 We know.\n";
  // Enough for codes of 10 bits and more in one window.
  for (int i = 0; i < 600; ++i)
    text += Concat("1Jn", 4 + i / 20, ":", i % 20 + 1, " verse ", i * 7919 % 611, "\n");
  const auto decoded = DecodeBibleData(BibleData(text, 5000));
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  EXPECT_EQ(*decoded, text);
  const auto books = BibleBooks(*decoded, "bible.data");
  ASSERT_TRUE(books.ok()) << books.status();
  ASSERT_EQ(books->size(), 2u);
  EXPECT_EQ((*books)[0].name, "bible/Ge");
  EXPECT_EQ((*books)[0].text, "In the beginning.\nAnd the earth.\n\nThus.\n");
  EXPECT_EQ((*books)[1].name, "bible/1Jn");
}

TEST(BibleText, DamageEndsInAnErrorOrOtherTextNeverACrash) {
  std::string text = "Holy Bible\n";
  for (int i = 0; i < 100; ++i) text += Concat("Ge1:", i + 1, " verse ", i, "\n");
  const std::string data = BibleData(text, 1000);
  for (size_t i = 0; i < data.size(); ++i) {
    std::string changed = data;
    changed[i] ^= 0x41;
    const auto decoded = DecodeBibleData(changed);
    if (decoded.ok()) (void)BibleBooks(*decoded, "f").status();
    (void)DecodeBibleData(data.substr(0, i)).status();
  }
  EXPECT_FALSE(BibleBooks("Holy Bible\nno reference here\n", "f").ok());
  EXPECT_FALSE(BibleBooks("", "f").ok());
}

// ---- dictionaries, fortunes, WordNet

TEST(DictionaryEntries, FollowTheIndexOnceForEachEntry) {
  const std::string text =
      "about this file\nABATIS, n.  Rubbish in front of a fort.\nABRUPT, adj.  {Sudden}.\n   [1913 "
      "Webster]\n";
  // Offsets 0, 16, 56 and lengths 16, 40, 42 in dictfmt's base 64.
  const std::string index = "00databaseinfo\tA\tQ\nabatis\tQ\to\nrubbish\tQ\to\nabrupt\t4\tq\n";
  const auto entries = DictionaryEntries(index, text, "devil", "devil");
  ASSERT_TRUE(entries.ok()) << entries.status();
  ASSERT_EQ(entries->size(), 2u);
  EXPECT_EQ((*entries)[0].name, "devil/abatis");
  EXPECT_EQ((*entries)[0].text, "ABATIS, n.  Rubbish in front of a fort.\n");
  EXPECT_EQ((*entries)[1].text, "ABRUPT, adj.  Sudden.\n");
  const auto outside = DictionaryEntries("abatis\tQ\t///\n", text, "devil", "x/devil");
  EXPECT_EQ(ExitCode(outside.status()), kExitDamaged);
  EXPECT_NE(Message(outside.status()).find("x/devil.index: line 1"), std::string::npos) << outside.status();
  EXPECT_FALSE(DictionaryEntries("abatis\n", text, "devil", "x").ok());
  EXPECT_FALSE(DictionaryEntries("abatis\tQ\t!\n", text, "devil", "x").ok());
}

TEST(FortuneItems, AreWhatLiesBetweenPercentSigns) {
  const auto items = FortuneItems("one\nline\n%\n%\n100% sure\n%\nlast", "wisdom", "f");
  ASSERT_EQ(items.size(), 3u);
  EXPECT_EQ(items[0].text, "one\nline\n");
  EXPECT_EQ(items[1].name, "fortunes/wisdom:3");
  EXPECT_EQ(items[1].text, "100% sure\n");
  EXPECT_EQ(items[2].text, "last\n");
}

TEST(WordnetGlosses, JoinWordsAndGloss) {
  const std::string text =
      "  1 This software and database\n"
      "00004475 03 n 02 living_thing 0 being 0 002 @ 00004258 n 0000 + 02614181 v 0201 | a thing; \"a | b\"  "
      "\n";
  const auto glosses = WordnetGlosses(text, "data.noun");
  ASSERT_TRUE(glosses.ok()) << glosses.status();
  ASSERT_EQ(glosses->size(), 1u);
  EXPECT_EQ((*glosses)[0].name, "wordnet/n00004475");
  EXPECT_EQ((*glosses)[0].text, "living thing, being: a thing; \"a | b\"\n");
  for (const char* count : {"zz", "8000000000000000", "ff", "0"}) {
    const std::string line = Concat("00004475 03 n ", count, " living_thing 0 003 | gloss\n");
    EXPECT_NE(Message(WordnetGlosses(line, "data.noun").status()).find("data.noun: line 1"),
              std::string::npos)
        << count;
  }
}

// ---- named corpora

TEST_F(CorporaTest, AMissingPackageSaysHowToGetIt) {
  const auto corpus = OpenNamedCorpus("austen", {folder_});
  EXPECT_EQ(ExitCode(corpus.status()), kExitMissing);
  EXPECT_NE(Message(corpus.status()).find("r-cran-janeaustenr"), std::string::npos);
  EXPECT_NE(Message(corpus.status()).find("launch/fetch_corpora.sh austen"), std::string::npos);
}

TEST_F(CorporaTest, AnUnknownCorpusGetsTheNearestName) {
  const auto corpus = OpenNamedCorpus("austin", {folder_});
  EXPECT_EQ(ExitCode(corpus.status()), kExitUsage);
  EXPECT_NE(Message(corpus.status()).find("did you mean 'austen'"), std::string::npos) << corpus.status();
}

TEST_F(CorporaTest, NovelsAreReadFromAnUnpackedPackageWithItsVersion) {
  const auto [index, data] = LazyLoad({{"emma", {"EMMA", "", "By Jane Austen"}}});
  Write("r-cran-janeaustenr/usr/lib/R/site-library/janeaustenr/data/Rdata.rdx", index);
  Write("r-cran-janeaustenr/usr/lib/R/site-library/janeaustenr/data/Rdata.rdb", data);
  Write("r-cran-janeaustenr/moebius-package.txt", "r-cran-janeaustenr 1.0.0-1\n");
  const auto corpus = OpenNamedCorpus("austen", {folder_ + "/nowhere", folder_});
  ASSERT_TRUE(corpus.ok()) << corpus.status();
  EXPECT_EQ(corpus->version, "1.0.0-1");
  const auto documents = All(*corpus->reader);
  ASSERT_EQ(documents.size(), 1u);
  EXPECT_EQ(documents[0].name, "austen/emma");
  EXPECT_EQ(documents[0].text, "EMMA\n\nBy Jane Austen\n");
}

TEST_F(CorporaTest, TheInstalledSystemTellsVersionsFromDpkg) {
  Write("usr/share/dictd/devil.index", "abatis\tA\tE\n");
  Write("usr/share/dictd/devil.dict.dz", Gzip("word"));
  Write("var/lib/dpkg/status",
        "Package: x\nVersion: 9\n\nPackage: dict-devil\nStatus: ok\nVersion: 1.0-13\n\nPackage: y\n");
  const auto corpus = OpenNamedCorpus("devil", {folder_});
  ASSERT_TRUE(corpus.ok()) << corpus.status();
  EXPECT_EQ(corpus->version, "1.0-13");
  EXPECT_EQ(All(*corpus->reader).size(), 1u);
}

TEST(NamedCorpora, AreTheOnesThatTheFetchScriptKnows) {
  std::ifstream file(MOEBIUS_SOURCE_DIR "/launch/fetch_corpora.sh");
  std::stringstream script;
  script << file.rdbuf();
  for (const CorpusInfo& info : NamedCorpora()) {
    EXPECT_NE(script.str().find(Concat(info.name, " ", info.package)), std::string::npos) << info.name;
  }
}

}  // namespace
}  // namespace moebius
