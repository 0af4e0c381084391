// The named corpora as Debian ships them: those that are unpacked on this machine (the test exists only where
// one is).
#include <gtest/gtest.h>

#include <cctype>
#include <iostream>
#include <map>
#include <vector>

#include "core/base/strings.h"
#include "core/io/file.h"
#include "data/corpora/corpus.h"
#include "data/corpora/document.h"

namespace moebius {
namespace {

struct Totals {
  int64_t documents = 0, bytes = 0;
  std::map<std::string, std::string> texts;
};

// Every document, checked: text, unique name.
Totals ReadEverything(const CorpusInfo& info) {
  Totals totals;
  const auto corpus = OpenNamedCorpus(info.name, DefaultCorpusRoots());
  EXPECT_TRUE(corpus.ok()) << corpus.status();
  if (!corpus.ok()) return totals;
  EXPECT_EQ(corpus->package, info.package);
  EXPECT_FALSE(corpus->version.empty()) << info.name;
  Document document;
  while (true) {
    const auto more = corpus->reader->Next(&document);
    EXPECT_TRUE(more.ok()) << more.status();
    if (!more.ok() || !*more) break;
    EXPECT_TRUE(document.name.starts_with(Concat(info.name, "/"))) << document.name;
    const auto replaced = MakeValidUtf8(InvalidText::kReplace, &document);
    EXPECT_TRUE(replaced.ok());
    EXPECT_EQ(*replaced, 0) << document.name;
    ++totals.documents;
    totals.bytes += static_cast<int64_t>(document.text.size());
    EXPECT_TRUE(totals.texts.emplace(document.name, document.text).second) << document.name << " twice";
  }
  std::cout << info.name << ": " << totals.documents << " documents, " << WithCommas(totals.bytes)
            << " bytes\n";
  return totals;
}

class Packages : public ::testing::TestWithParam<CorpusInfo> {};

TEST_P(Packages, GiveTextWithUniqueNames) {
  const Totals totals = ReadEverything(GetParam());
  EXPECT_GT(totals.bytes, 300'000);
  if (GetParam().name == "austen") {
    EXPECT_EQ(totals.documents, 6);
    EXPECT_TRUE(totals.texts.at("austen/emma").starts_with("EMMA\n\nBy Jane Austen\n"));
    EXPECT_TRUE(totals.texts.at("austen/sensesensibility").ends_with("THE END\n"));
  }
  if (GetParam().name == "bible") {
    EXPECT_EQ(totals.documents, 66);
    EXPECT_TRUE(
        totals.texts.at("bible/Ge").starts_with("In the beginning God created the heaven and the earth.\n"));
    EXPECT_TRUE(totals.texts.at("bible/Rev")
                    .ends_with("The grace of our Lord Jesus Christ be with you all. Amen.\n"));
  }
}

std::vector<CorpusInfo> Unpacked() {
  std::vector<CorpusInfo> infos;
  for (const CorpusInfo& info : NamedCorpora()) {
    if (FolderExists(JoinPath(DefaultCorpusRoots()[0], info.package))) infos.push_back(info);
  }
  return infos;
}

INSTANTIATE_TEST_SUITE_P(Named, Packages, ::testing::ValuesIn(Unpacked()), [](const auto& info) {
  std::string name(info.param.name);
  for (char& c : name) c = std::isalnum(static_cast<unsigned char>(c)) ? c : '_';
  return name;
});

}  // namespace
}  // namespace moebius
