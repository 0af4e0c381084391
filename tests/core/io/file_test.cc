#include "core/io/file.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>

#include "core/base/status.h"
#include "core/io/hash.h"
#include "tests/core/io/scratch.h"

namespace moebius {
namespace {

std::string Text(std::span<const std::byte> bytes) {
  return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

TEST(File, ReadsWholeFilesUpToALimit) {
  const Scratch scratch;
  const std::string content = std::string(100000, 'x') + '\0' + "end";
  WriteRaw(scratch.path("a"), content);
  WriteRaw(scratch.path("empty"), "");
  EXPECT_EQ(*ReadFile(scratch.path("a")), content);
  EXPECT_EQ(*ReadFile(scratch.path("a"), content.size()), content);
  EXPECT_EQ(*ReadFile(scratch.path("empty")), "");
  EXPECT_NE(*ReadFile("/proc/self/status"), "");
  EXPECT_EQ(ExitCode(ReadFile(scratch.path("a"), content.size() - 1).status()), kExitDamaged);
  EXPECT_EQ(ExitCode(ReadFile("/dev/zero", 1000).status()), kExitDamaged);
  EXPECT_EQ(ExitCode(ReadFile(scratch.path("gone")).status()), kExitMissing);
  EXPECT_EQ(ExitCode(ReadFile(scratch.folder()).status()), kExitMissing);
}

TEST(File, WhyAPathIsAbsentIsSaid) {
  const Scratch scratch;
  WriteRaw(scratch.path("a"), "x");
  EXPECT_EQ(WhyAbsent(scratch.path("a")), "it is a file");
  EXPECT_EQ(WhyAbsent(scratch.path("b")), "there is no such file or folder");
  EXPECT_EQ(WhyAbsent(scratch.path("a/b")), "there is no such file or folder");
  const std::string loop = scratch.path("loop");
  ASSERT_EQ(symlink(loop.c_str(), loop.c_str()), 0);
  EXPECT_NE(WhyAbsent(loop).find("this user may not look there ("), std::string::npos) << WhyAbsent(loop);
}

TEST(File, MapsAFileAndChecksSlices) {
  const Scratch scratch;
  WriteRaw(scratch.path("a"), "0123456789");
  auto opened = MappedFile::Open(scratch.path("a"));
  ASSERT_TRUE(opened.ok());
  MappedFile file = std::move(*opened);
  EXPECT_EQ(Text(file.bytes()), "0123456789");
  EXPECT_EQ(Text(*file.Slice(2, 3)), "234");
  EXPECT_EQ(Text(*file.Slice(10, 0)), "");
  EXPECT_FALSE(file.Slice(8, 3).ok());
  EXPECT_FALSE(file.Slice(11, 0).ok());
  EXPECT_FALSE(file.Slice(1, ~uint64_t{0}).ok());
  EXPECT_FALSE(file.Slice(~uint64_t{0}, 1).ok());
  WriteRaw(scratch.path("empty"), "");
  EXPECT_EQ(MappedFile::Open(scratch.path("empty"))->bytes().size(), 0u);
  EXPECT_EQ(ExitCode(MappedFile::Open(scratch.path("gone")).status()), kExitMissing);
  EXPECT_EQ(ExitCode(MappedFile::Open("/dev/zero").status()), kExitDamaged);
}

TEST(File, ReadsByPositionAndNoticesAFileCutShort) {
  const Scratch scratch;
  WriteRaw(scratch.path("a"), "0123456789");
  const auto file = RandomAccessFile::Open(scratch.path("a"));
  ASSERT_TRUE(file.ok());
  EXPECT_EQ(file->size(), 10);
  std::byte out[4];
  ASSERT_TRUE(file->Read(3, out).ok());
  EXPECT_EQ(Text(out), "3456");
  ASSERT_EQ(truncate(scratch.path("a").c_str(), 5), 0);
  const absl::Status status = file->Read(3, out);
  EXPECT_EQ(ExitCode(status), kExitDamaged);
  EXPECT_NE(std::string(status.message()).find("ends at byte 5"), std::string::npos) << status;
}

TEST(File, APipeIsRefusedAndNotWaitedFor) {
  const Scratch scratch;
  ASSERT_EQ(mkfifo(scratch.path("pipe").c_str(), 0600), 0);
  EXPECT_EQ(ExitCode(RandomAccessFile::Open(scratch.path("pipe")).status()), kExitDamaged);
  EXPECT_EQ(ExitCode(MappedFile::Open(scratch.path("pipe")).status()), kExitDamaged);
}

TEST(File, MakesListsAndRemovesFolders) {
  const Scratch scratch;
  ASSERT_TRUE(MakeDirs(scratch.path("x/y/z")).ok());
  ASSERT_TRUE(MakeDirs(scratch.path("x/y/z")).ok());
  WriteRaw(scratch.path("x/b"), "1");
  WriteRaw(scratch.path("x/y/c"), "1");
  WriteRaw(scratch.path("outside"), "1");
  ASSERT_EQ(symlink("../outside", scratch.path("x/link").c_str()), 0);
  EXPECT_EQ(*ListDir(scratch.path("x")), (std::vector<std::string>{"b", "link", "y"}));
  EXPECT_EQ(*ListTree(scratch.path("x")), (std::vector<std::string>{"b", "y/c"}));
  EXPECT_TRUE(FolderExists(scratch.path("x")) && FileExists(scratch.path("x/b")) &&
              FileExists(scratch.path("x/link")));
  EXPECT_FALSE(FileExists(scratch.path("x")) || FolderExists(scratch.path("x/b")) ||
               FileExists(scratch.path("no")));
  EXPECT_EQ(ExitCode(MakeDirs(scratch.path("x/b/c"))), kExitCannotWrite);
  EXPECT_EQ(ExitCode(MakeDirs(scratch.path("x/b"))), kExitCannotWrite);
  ASSERT_TRUE(RemoveTree(scratch.path("x")).ok());
  ASSERT_TRUE(RemoveTree(scratch.path("x")).ok());
  EXPECT_TRUE(FileExists(scratch.path("outside")));
  EXPECT_EQ(ExitCode(ListDir(scratch.path("x")).status()), kExitMissing);
}

TEST(File, ReplacesALinkButNothingElse) {
  const Scratch scratch;
  const std::string link = scratch.path("latest");
  ASSERT_TRUE(ReplaceSymlink(link, "step-1").ok());
  ASSERT_TRUE(ReplaceSymlink(link, "step-2").ok());
  EXPECT_EQ(*ReadSymlink(link), "step-2");
  EXPECT_EQ(ListDir(scratch.folder())->size(), 1u);
  WriteRaw(scratch.path("file"), "kept");
  EXPECT_EQ(ExitCode(ReplaceSymlink(scratch.path("file"), "step-3")), kExitCannotWrite);
  EXPECT_EQ(ReadRaw(scratch.path("file")), "kept");
  EXPECT_EQ(ExitCode(ReplaceSymlink(scratch.path("no/latest"), "x")), kExitCannotWrite);
  EXPECT_EQ(ExitCode(ReadSymlink(scratch.path("gone")).status()), kExitMissing);
}

TEST(File, SplitsAndJoinsPaths) {
  EXPECT_EQ(JoinPath("a", "b"), "a/b");
  EXPECT_EQ(JoinPath("a/", "b"), "a/b");
  EXPECT_EQ(JoinPath("", "b"), "b");
  EXPECT_EQ(JoinPath("a", "/b"), "/b");
  EXPECT_EQ(ParentPath("a/b"), "a");
  EXPECT_EQ(ParentPath("a/b/"), "a");
  EXPECT_EQ(ParentPath("b"), ".");
  EXPECT_EQ(ParentPath("/b"), "/");
  EXPECT_EQ(FileName("a/b"), "b");
  EXPECT_EQ(FileName("a/b/"), "b");
  EXPECT_EQ(FileName("b"), "b");
  EXPECT_TRUE(IsPlainFileName("model-00001.safetensors"));
  for (const std::string name : {"", ".", "..", "a/b", "../a", "/a"})
    EXPECT_FALSE(IsPlainFileName(name)) << name;
  EXPECT_FALSE(IsPlainFileName(std::string("a\0b", 3)));
}

TEST(File, ReportsFreeSpace) {
  EXPECT_GT(*FreeDiskBytes("/tmp"), 0);
  EXPECT_EQ(ExitCode(FreeDiskBytes("/no/such/folder").status()), kExitMissing);
}

TEST(Hash, MatchesKnownDigests) {
  EXPECT_EQ(Sha256Hex(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(Sha256Hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  Sha256 hash;
  for (int i = 0; i < 1000; ++i) hash.Update(std::string(1000, 'a'));
  EXPECT_EQ(hash.FinishHex(), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(Hash, HashesAndVerifiesFiles) {
  const Scratch scratch;
  const std::string path = scratch.path("a");
  WriteRaw(path, std::string(3000000, 'a'));
  const auto hash = HashFile(path);
  ASSERT_TRUE(hash.ok());
  EXPECT_EQ(hash->bytes, 3000000);
  EXPECT_EQ(hash->sha256, Sha256Hex(std::string(3000000, 'a')));
  EXPECT_TRUE(VerifyFileHash(path, *hash).ok());
  std::string changed(3000000, 'a');
  changed[2500000] = 'b';
  WriteRaw(path, changed);
  EXPECT_EQ(ExitCode(VerifyFileHash(path, *hash)), kExitDamaged);
  WriteRaw(path, "short");
  const absl::Status status = VerifyFileHash(path, *hash);
  EXPECT_NE(std::string(status.message()).find("has 5 bytes, 3000000 are recorded"), std::string::npos)
      << status;
  EXPECT_EQ(ExitCode(HashFile(scratch.path("gone")).status()), kExitMissing);
}

}  // namespace
}  // namespace moebius
