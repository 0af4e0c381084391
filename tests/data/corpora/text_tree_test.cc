// Which files a path, a folder or a glob names, and what is read of them.
#include "data/corpora/text_tree.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>

#include "core/base/status.h"
#include "core/base/strings.h"
#include "core/io/file.h"
#include "tests/core/io/scratch.h"
#include "tests/data/corpora/documents.h"

namespace moebius {
namespace {

namespace fs = std::filesystem;

class TextTreeTest : public ::testing::Test {
 protected:
  std::string Write(const std::string& name, const std::string& content) {
    const std::string path = scratch_.path(name);
    EXPECT_TRUE(MakeDirs(ParentPath(path)).ok());
    WriteRaw(path, content);
    return path;
  }
  const Scratch scratch_;
  const std::string folder_ = scratch_.folder();
};

TEST_F(TextTreeTest, ReadsATreeInOrderOfNamesWithoutHiddenFiles) {
  Write("t/b.txt", "two");
  Write("t/a/x.txt", "one");
  Write("t/.git/config", "hidden");
  const auto files = ExpandFiles(folder_ + "/t");
  ASSERT_TRUE(files.ok()) << files.status();
  const auto documents = All(*ReadTextFiles(*files, "mine"));
  ASSERT_EQ(documents.size(), 2u);
  EXPECT_EQ(documents[0].name, "mine/a/x.txt");
  EXPECT_EQ(documents[0].text, "one");
  EXPECT_EQ(documents[1].name, "mine/b.txt");
  EXPECT_EQ(documents[1].origin, folder_ + "/t/b.txt");
}

TEST_F(TextTreeTest, LinksToFilesAreFilesAndLinksToFoldersAreNotEntered) {
  Write("t/a.txt", "one");
  Write("elsewhere/b.txt", "two");
  fs::create_symlink("../elsewhere/b.txt", folder_ + "/t/link.txt");
  fs::create_directory_symlink(folder_ + "/t", folder_ + "/t/loop");
  for (const char* pattern : {"/t", "/t/*.txt", "/t/**/*.txt", "/t/**", "//t/./"}) {
    const auto files = ExpandFiles(folder_ + pattern);
    ASSERT_TRUE(files.ok()) << files.status();
    EXPECT_EQ(Join(*files), folder_ + "/t/a.txt, " + folder_ + "/t/link.txt") << pattern;
  }
  // The pattern names it.
  EXPECT_EQ(Join(*ExpandFiles(folder_ + "/t/lo*/a.txt")), folder_ + "/t/loop/a.txt");
}

// What may be a text is not left out without a word.
TEST_F(TextTreeTest, LinksToNothingAreNamed) {
  Write("t/a.txt", "one");
  fs::create_symlink("../gone.txt", folder_ + "/t/link.txt");
  for (const char* pattern : {"/t", "/t/*.txt", "/t/**"}) {
    const absl::Status status = ExpandFiles(folder_ + pattern).status();
    EXPECT_EQ(ExitCode(status), kExitMissing) << pattern;
    EXPECT_NE(status.message().find("t/link.txt: is a link to nothing"), std::string::npos) << status;
  }
  EXPECT_TRUE(ExpandFiles(folder_ + "/*/a.txt").ok()) << "a folder without that name is no error";
}

TEST_F(TextTreeTest, ABuildsOwnFolderIsNoSource) {
  Write("t/a.txt", "one");
  Write("t/out/train.h5", "\x89");
  Write("t/.out.tmp-12-0/val.h5", "\x89");
  for (const char* pattern : {"/t", "/t/**", "/t/*/../a.txt"}) {
    const auto files = ExpandFiles(folder_ + pattern, folder_ + "/./t/out/");
    ASSERT_TRUE(files.ok()) << files.status();
    for (const std::string& file : *files) EXPECT_TRUE(file.ends_with("a.txt")) << file;
  }
}

TEST_F(TextTreeTest, WhatCannotBeReadTwiceIsRefused) {
  const std::string pipe = folder_ + "/pipe";
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  EXPECT_EQ(ExitCode(ExpandFiles(pipe).status()), kExitUsage);
  EXPECT_EQ(ExitCode(ExpandFiles(folder_ + "/*").status()), kExitMissing);
}

TEST_F(TextTreeTest, GlobsStopAtSlashesUnlessTheStarIsDoubled) {
  Write("a.txt", "1");
  Write("d/b.txt", "2");
  Write("d/e/c.txt", "3");
  Write("d/e/c.md", "4");
  const auto names = [&](const std::string& glob) {
    const auto files = ExpandFiles(folder_ + glob);
    return files.ok() ? Join(*files).substr(0) : MessageOf(files.status());
  };
  EXPECT_EQ(names("/*.txt"), folder_ + "/a.txt");
  EXPECT_EQ(names("/d/*/?.txt"), folder_ + "/d/e/c.txt");
  EXPECT_EQ(names("/**/*.txt"), folder_ + "/a.txt, " + folder_ + "/d/b.txt, " + folder_ + "/d/e/c.txt");
  // Hidden ones where the pattern says so.
  Write("d/.git/x.txt", "5");
  Write("d/.h.txt", "6");
  EXPECT_EQ(names("/d/**/*.txt"), folder_ + "/d/b.txt, " + folder_ + "/d/e/c.txt");
  EXPECT_EQ(names("/d/**"), folder_ + "/d/b.txt, " + folder_ + "/d/e/c.md, " + folder_ + "/d/e/c.txt");
  EXPECT_EQ(names("/d/*.txt"), folder_ + "/d/b.txt");
  EXPECT_EQ(names("/d/.*.txt"), folder_ + "/d/.h.txt");
  EXPECT_EQ(names("/d/.git/*"), folder_ + "/d/.git/x.txt");
  EXPECT_NE(names("/*.pdf").find("names no regular file"), std::string::npos);
  EXPECT_EQ(ExitCode(ExpandFiles(folder_ + "/*.pdf").status()), kExitMissing);
  EXPECT_EQ(ExitCode(ExpandFiles(folder_ + "/absent").status()), kExitMissing);
  for (const char* glob : {"/[a-c].txt", "/d/[e]/*.txt", "/{a,b}.txt"}) {
    EXPECT_NE(names(glob).find("only *, ? and ** are patterns"), std::string::npos) << names(glob);
  }
}

TEST_F(TextTreeTest, TextOfASingleFileIsNamedByIt) {
  const std::string path = Write("one/book.txt", "\xEF\xBB\xBFtext");
  const auto documents = All(*ReadTextFiles({path}, "mine"));
  ASSERT_EQ(documents.size(), 1u);
  EXPECT_EQ(documents[0].name, "mine/book.txt");
  EXPECT_EQ(documents[0].text, "text") << "the byte order mark is not text";
}

}  // namespace
}  // namespace moebius
