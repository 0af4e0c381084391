#include "data/corpora/corpus.h"

#include <cstdlib>
#include <utility>

#include "core/base/nearest.h"
#include "core/base/status.h"
#include "core/base/strings.h"
#include "core/io/byte_source.h"
#include "core/io/file.h"
#include "data/corpora/bible_text.h"
#include "data/corpora/packaged_text.h"
#include "data/corpora/rdata.h"
#include "data/corpora/text_tree.h"

namespace moebius {
namespace {

constexpr int64_t kMaxPackagedBytes = int64_t{1} << 30;  // unpacked; the largest, GCIDE, has 40 MB

using Reader = std::unique_ptr<DocumentReader>;

// `key` is what tells one corpus of a kind from another: a dictionary's name, the extension of files.
struct Corpus {
  CorpusInfo info;
  std::string_view path;  // file or folder below usr/ whose presence says that the package is there
  absl::StatusOr<Reader> (*open)(const std::string& path, const Corpus& corpus);
  std::string_view key = "";
};

absl::StatusOr<std::string> ReadUnpacked(const std::string& path) {
  ASSIGN_OR_RETURN(const std::unique_ptr<ByteSource> source, OpenByteSource(path, kMaxPackagedBytes));
  return ReadAll(*source);
}

Reader FromList(std::vector<Document> documents) {
  return std::make_unique<FunctionReader>([documents = std::move(documents), next = size_t{0}](
                                              Document* document) mutable -> absl::StatusOr<bool> {
    if (next == documents.size()) return false;
    *document = std::move(documents[next++]);
    return true;
  });
}

absl::StatusOr<Reader> OpenAusten(const std::string& path, const Corpus&) {
  ASSIGN_OR_RETURN(const std::string index, ReadFile(JoinPath(path, "Rdata.rdx"), kMaxPackagedBytes));
  ASSIGN_OR_RETURN(const std::string data, ReadFile(JoinPath(path, "Rdata.rdb"), kMaxPackagedBytes));
  auto novels = ReadLazyLoadStrings(index, data);
  if (!novels.ok()) return Annotate(novels.status(), JoinPath(path, "Rdata"));
  std::vector<Document> documents;
  for (const auto& [name, lines] : *novels) {
    Document document{.name = Concat("austen/", name), .text = "", .origin = JoinPath(path, "Rdata.rdb")};
    for (const std::string& line : lines) document.text.append(line).push_back('\n');
    documents.push_back(std::move(document));
  }
  return FromList(std::move(documents));
}

absl::StatusOr<Reader> OpenBible(const std::string& path, const Corpus&) {
  ASSIGN_OR_RETURN(const std::string data, ReadFile(path, kMaxPackagedBytes));
  auto text = DecodeBibleData(data);
  if (!text.ok()) return Annotate(text.status(), path);
  ASSIGN_OR_RETURN(std::vector<Document> books, BibleBooks(*text, path));
  return FromList(std::move(books));
}

absl::StatusOr<Reader> OpenDictionary(const std::string& path, const Corpus& corpus) {
  const std::string stem = JoinPath(path, corpus.key);
  ASSIGN_OR_RETURN(const std::string index, ReadFile(stem + ".index", kMaxPackagedBytes));
  ASSIGN_OR_RETURN(const std::string text, ReadUnpacked(stem + ".dict.dz"));
  ASSIGN_OR_RETURN(std::vector<Document> entries, DictionaryEntries(index, text, corpus.info.name, stem));
  // GCIDE as packaged has three entries with a stray byte.
  for (Document& entry : entries) RETURN_IF_ERROR(MakeValidUtf8(InvalidText::kReplace, &entry).status());
  return FromList(std::move(entries));
}

absl::StatusOr<Reader> OpenFortunes(const std::string& path, const Corpus&) {
  ASSIGN_OR_RETURN(const std::vector<std::string> names, ListDir(path));
  std::vector<Document> documents;
  for (const std::string& name : names) {
    const std::string file = JoinPath(path, name);
    // .dat: the index; .u8: a link to the same text; ascii-art: no prose.
    if (name.ends_with(".dat") || name.ends_with(".u8") || name == "ascii-art" || !FileExists(file)) continue;
    ASSIGN_OR_RETURN(const std::string text, ReadFile(file, kMaxPackagedBytes));
    std::vector<Document> items = FortuneItems(text, name, file);
    std::move(items.begin(), items.end(), std::back_inserter(documents));
  }
  return FromList(std::move(documents));
}

absl::StatusOr<Reader> OpenWordnet(const std::string& path, const Corpus&) {
  std::vector<Document> documents;
  for (const char* part : {"data.adj", "data.adv", "data.noun", "data.verb"}) {
    const std::string file = JoinPath(path, part);
    ASSIGN_OR_RETURN(const std::string text, ReadFile(file, kMaxPackagedBytes));
    ASSIGN_OR_RETURN(std::vector<Document> glosses, WordnetGlosses(text, file));
    std::move(glosses.begin(), glosses.end(), std::back_inserter(documents));
  }
  return FromList(std::move(documents));
}

absl::StatusOr<Reader> OpenTexts(const std::string& path, const Corpus& corpus) {
  ASSIGN_OR_RETURN(const std::vector<std::string> names, ListTree(path));
  std::vector<std::string> files;
  for (const std::string& name : names) {
    // linux-doc: the translations are not English.
    if (name.ends_with(corpus.key) && !name.starts_with("translations/"))
      files.push_back(JoinPath(path, name));
  }
  if (files.empty())
    return DamagedError(Concat(path, ": no file ending in ", corpus.key, "; unpack the package again"));
  return ReadTextFiles(std::move(files), std::string(corpus.info.name));
}

std::vector<Corpus> Corpora() {
  return {
      {{"austen", "r-cran-janeaustenr", "6 novels of Jane Austen, 4.0 MB", "public domain"},
       "usr/lib/R/site-library/janeaustenr/data",
       OpenAusten},
      {{"bible", "bible-kjv-text", "King James Bible, 66 books, 4.2 MB",
        "public domain (Crown patent in the UK)"},
       "usr/lib/bible.data",
       OpenBible},
      {{"devil", "dict-devil", "Bierce, The Devil's Dictionary, 0.4 MB", "public domain"},
       "usr/share/dictd",
       OpenDictionary,
       "devil"},
      {{"foldoc", "dict-foldoc", "Free On-line Dictionary of Computing, 5.5 MB", "GFDL"},
       "usr/share/dictd",
       OpenDictionary,
       "foldoc"},
      {{"fortunes", "fortunes", "quotations and jokes, 2.4 MB", "BSD collection"},
       "usr/share/games/fortunes",
       OpenFortunes},
      {{"gcide", "dict-gcide", "Collaborative International Dictionary of English, 36 MB", "GPL-2+"},
       "usr/share/dictd",
       OpenDictionary,
       "gcide"},
      {{"git-doc", "git-doc", "manual of git, 2.9 MB", "GPL-2"}, "usr/share/doc/git-doc", OpenTexts, ".txt"},
      {{"jargon", "dict-jargon", "the hackers' Jargon File, 1.4 MB", "public domain"},
       "usr/share/dictd",
       OpenDictionary,
       "jargon"},
      {{"linux-doc", "linux-doc-6.1", "documentation of the Linux kernel, 21 MB", "GPL-2"},
       "usr/share/doc/linux-doc-6.1/html/_sources",
       OpenTexts,
       ".rst.txt"},
      {{"perl-doc", "perl-doc", "manual of Perl, 8.8 MB", "GPL-1+ or Artistic"},
       "usr/share/perl",
       OpenTexts,
       ".pod"},
      {{"python-doc", "python3.11-doc", "manual of Python 3.11, 11 MB", "PSF-2.0"},
       "usr/share/doc/python3.11/html/_sources",
       OpenTexts,
       ".rst.txt"},
      {{"wordnet", "wordnet-base", "117,659 definitions of WordNet 3.0, 11 MB", "WordNet 3.0"},
       "usr/share/wordnet",
       OpenWordnet},
  };
}

// Whether `path` (a corpus's path below a folder) is there: of a dictionary, its own files.
bool Present(const std::string& path, const Corpus& corpus) {
  if (corpus.open == OpenDictionary) return FileExists(JoinPath(path, Concat(corpus.key, ".index")));
  return FileExists(path) || FolderExists(path);
}

// fetch_corpora.sh notes "PACKAGE VERSION"; of the installed system dpkg's status file says it.
std::string PackageVersion(const std::string& folder, std::string_view package) {
  if (const auto note = ReadFile(JoinPath(folder, "moebius-package.txt"), 4096); note.ok()) {
    const size_t space = note->find(' ');
    if (space != std::string::npos) return note->substr(space + 1, note->find('\n') - space - 1);
  }
  const auto status = ReadFile(JoinPath(folder, "var/lib/dpkg/status"), kMaxPackagedBytes);
  if (!status.ok()) return "";
  const size_t record = status->find(Concat("Package: ", package, "\n"));
  if (record == std::string::npos) return "";
  const size_t end = status->find("\n\n", record), version = status->find("\nVersion: ", record);
  if (version == std::string::npos || version > end) return "";
  return status->substr(version + 10, status->find('\n', version + 1) - version - 10);
}

}  // namespace

std::vector<CorpusInfo> NamedCorpora() {
  std::vector<CorpusInfo> infos;
  for (const Corpus& corpus : Corpora()) infos.push_back(corpus.info);
  return infos;
}

absl::StatusOr<OpenCorpus> OpenNamedCorpus(std::string_view name, const std::vector<std::string>& roots) {
  const std::vector<Corpus> corpora = Corpora();
  const Corpus* corpus = nullptr;
  std::vector<std::string> names;
  for (const Corpus& candidate : corpora) {
    names.emplace_back(candidate.info.name);
    if (candidate.info.name == name) corpus = &candidate;
  }
  if (corpus == nullptr) {
    const std::string nearest = Nearest(name, names);
    return UsageError(Concat("unknown corpus '", Printable(name), "'; ",
                             nearest.empty() ? "it" : Concat("did you mean '", nearest, "'? it"),
                             " is one of ", Join(names), "; correct the name"));
  }
  for (const std::string& root : roots) {
    for (const std::string& folder : {JoinPath(root, corpus->info.package), root}) {
      const std::string path = JoinPath(folder, corpus->path);
      if (!Present(path, *corpus)) continue;
      OpenCorpus open;
      ASSIGN_OR_RETURN(open.reader, corpus->open(path, *corpus));
      open.package = corpus->info.package;
      open.version = PackageVersion(folder, corpus->info.package);
      open.folder = folder;
      return open;
    }
  }
  return MissingError(Concat("corpus '", name, "': the Debian package ", corpus->info.package,
                             " is neither unpacked nor installed in ", Join(roots),
                             "; get it with: launch/fetch_corpora.sh ", name));
}

std::vector<std::string> DefaultCorpusRoots() {
  std::vector<std::string> roots;
  const char* cache = std::getenv("XDG_CACHE_HOME");
  const char* home = std::getenv("HOME");
  if (cache != nullptr && *cache != '\0') {
    roots.push_back(JoinPath(cache, "moebius/corpora"));
  } else if (home != nullptr && *home != '\0') {
    roots.push_back(JoinPath(home, ".cache/moebius/corpora"));
  }
  roots.push_back("/");
  return roots;
}

}  // namespace moebius
