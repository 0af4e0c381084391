#include "core/io/atomic_file.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/status.h"
#include "tests/core/io/scratch.h"

namespace moebius {
namespace {

TEST(AtomicFile, AppearsOnlyOnCommitWithItsHash) {
  const Scratch scratch;
  const std::string path = scratch.path("a");
  WriteRaw(path, "old");
  auto file = AtomicFile::Create(path);
  ASSERT_TRUE(file.ok()) << file.status();
  std::string expected;
  for (int i = 0; i < 50; ++i) {
    const std::string part(i * i * 100, static_cast<char>('a' + i % 26));  // below and above the buffer
    ASSERT_TRUE(file->Write(part).ok());
    expected += part;
  }
  EXPECT_EQ(ReadRaw(path), "old");
  const auto hash = file->Commit();
  ASSERT_TRUE(hash.ok()) << hash.status();
  EXPECT_EQ(ReadRaw(path), expected);
  EXPECT_EQ(hash->bytes, static_cast<int64_t>(expected.size()));
  EXPECT_EQ(hash->sha256, Sha256Hex(expected));
  EXPECT_EQ(*ListDir(scratch.folder()), std::vector<std::string>{"a"});
}

TEST(AtomicFile, LeavesNoTraceWithoutCommit) {
  const Scratch scratch;
  WriteRaw(scratch.path("a"), "old");
  {
    auto file = AtomicFile::Create(scratch.path("a"));
    ASSERT_TRUE(file.ok());
    ASSERT_TRUE(file->Write(std::string(1 << 20, 'x')).ok());
    EXPECT_EQ(ListDir(scratch.folder())->size(), 2u);
  }
  EXPECT_EQ(*ListDir(scratch.folder()), std::vector<std::string>{"a"});
  EXPECT_EQ(ReadRaw(scratch.path("a")), "old");
}

TEST(AtomicFile, TwoWritersOfOneNameDoNotMix) {
  const Scratch scratch;
  auto first = AtomicFile::Create(scratch.path("a"));
  auto second = AtomicFile::Create(scratch.path("a"));
  ASSERT_TRUE(first.ok() && second.ok());
  ASSERT_TRUE(first->Write("first").ok() && second->Write("2nd").ok());
  ASSERT_TRUE(first->Commit().ok());
  EXPECT_EQ(ReadRaw(scratch.path("a")), "first");
  ASSERT_TRUE(second->Commit().ok());
  EXPECT_EQ(ReadRaw(scratch.path("a")), "2nd");
}

TEST(AtomicFile, RefusesFoldersDevicesAndMissingParents) {
  const Scratch scratch;
  const absl::Status device = AtomicFile::Create("/dev/null").status();
  EXPECT_EQ(ExitCode(device), kExitCannotWrite);
  EXPECT_TRUE(Contains(device, "/dev/null") && Contains(device, "not a regular file")) << device;
  EXPECT_EQ(ExitCode(AtomicFile::Create(scratch.folder()).status()), kExitCannotWrite);
  const absl::Status parent = AtomicFile::Create(scratch.path("no/a")).status();
  EXPECT_EQ(ExitCode(parent), kExitCannotWrite);
  EXPECT_TRUE(Contains(parent, "no/a") && Contains(parent, "make the folder first")) << parent;
}

TEST(AtomicFile, SaysThatADeviceIsFull) {
  const FileDescriptor full(open("/dev/full", O_WRONLY));
  const absl::Status status = WriteFully(full.get(), std::as_bytes(std::span("text")), "out.bin");
  EXPECT_EQ(ExitCode(status), kExitCannotWrite);
  EXPECT_TRUE(Contains(status, "out.bin") && Contains(status, "No space left on device")) << status;
}

TEST(AtomicFile, AFullDiskKeepsTheOldFileAndRemovesTheTemporary) {
  const Scratch scratch;
  const int code = InChildWithFullDisk(scratch.folder(), [&] {
    const std::string path = scratch.path("a");
    WriteRaw(path, "old");
    auto file = AtomicFile::Create(path);
    if (!file.ok()) return 2;
    absl::Status status;
    for (int i = 0; i < 100 && status.ok(); ++i) status = file->Write(std::string(100000, 'x'));
    if (status.ok()) return 3;
    if (ExitCode(status) != kExitCannotWrite || !Contains(status, path)) return 4;
    if (!Contains(status, "No space left") && !Contains(status, "too large")) return 5;
    if (file->Write("more").code() != status.code() || file->Commit().ok()) return 6;
    file = absl::UnknownError("closed");
    if (*ListDir(scratch.folder()) != std::vector<std::string>{"a"} || ReadRaw(path) != "old") return 7;
    return WriteFileAtomically(path, "fits").ok() && ReadRaw(path) == "fits" ? 0 : 8;
  });
  EXPECT_EQ(code, 0);
}

TEST(AtomicFile, AFileSizeLimitIsAnErrorToo) {
  const Scratch scratch;
  const int code = InChild([&] {
    signal(SIGXFSZ, SIG_IGN);
    const struct rlimit limit = {1000, 1000};
    setrlimit(RLIMIT_FSIZE, &limit);
    const auto status = WriteFileAtomically(scratch.path("a"), std::string(1001, 'x')).status();
    return ExitCode(status) == kExitCannotWrite && Contains(status, "ulimit -f") ? 0 : 1;
  });
  EXPECT_EQ(code, 0);
  EXPECT_EQ(ListDir(scratch.folder())->size(), 0u);
}

TEST(AtomicFile, AReadOnlyFolderIsNamed) {
  const Scratch scratch;
  WriteRaw(scratch.path("a"), "old");
  const int code = InChildWithReadOnlyFolder(scratch.folder(), [&] {
    const auto file = WriteFileAtomically(scratch.path("a"), "new").status();
    if (ExitCode(file) != kExitCannotWrite || !Contains(file, scratch.path("a"))) return 1;
    if (!Contains(file, "Permission denied")) return 2;
    const auto folder = AtomicDirectory::Create(scratch.path("d")).status();
    if (ExitCode(folder) != kExitCannotWrite || !Contains(folder, scratch.path("d"))) return 3;
    return ExitCode(MakeDirs(scratch.path("e"))) == kExitCannotWrite ? 0 : 4;
  });
  EXPECT_EQ(code, 0);
  EXPECT_EQ(ReadRaw(scratch.path("a")), "old");
}

TEST(AtomicDirectory, AppearsWholeOnCommit) {
  const Scratch scratch;
  auto folder = AtomicDirectory::Create(scratch.path("step-1"));
  ASSERT_TRUE(folder.ok()) << folder.status();
  ASSERT_TRUE(MakeDirs(folder->temporary_path() + "/sub").ok());
  WriteRaw(folder->temporary_path() + "/sub/a", "1");
  EXPECT_FALSE(FolderExists(scratch.path("step-1")));
  ASSERT_TRUE(folder->Commit().ok());
  EXPECT_EQ(*ListTree(scratch.folder()), std::vector<std::string>{"step-1/sub/a"});
}

TEST(AtomicDirectory, LeavesNoTraceWithoutCommit) {
  const Scratch scratch;
  {
    auto folder = AtomicDirectory::Create(scratch.path("step-1"));
    ASSERT_TRUE(folder.ok());
    WriteRaw(folder->temporary_path() + "/a", "1");
  }
  EXPECT_EQ(ListDir(scratch.folder())->size(), 0u);
}

TEST(AtomicDirectory, ReplacesAnExistingFolderOnlyWhenAsked) {
  const Scratch scratch;
  ASSERT_TRUE(MakeDirs(scratch.path("d")).ok());
  WriteRaw(scratch.path("d/old"), "1");
  {
    auto folder = AtomicDirectory::Create(scratch.path("d"));
    ASSERT_TRUE(folder.ok());
    WriteRaw(folder->temporary_path() + "/new", "2");
    const absl::Status status = folder->Commit();
    EXPECT_EQ(ExitCode(status), kExitCannotWrite);
    EXPECT_EQ(ReadRaw(scratch.path("d/old")), "1");
    ASSERT_TRUE(folder->Commit(AtomicDirectory::OnExisting::kReplace).ok());
  }
  EXPECT_EQ(*ListTree(scratch.folder()), std::vector<std::string>{"d/new"});
}

TEST(AtomicDirectory, RemovesWhatAKilledProcessLeftOfTheSameFolderAndNothingElse) {
  const Scratch scratch;
  const auto leave = [&](const std::string& name) {
    const int code = InChild([&] {
      auto folder = AtomicDirectory::Create(scratch.path(name));
      if (!folder.ok()) return 1;
      WriteRaw(folder->temporary_path() + "/a", "1");
      raise(SIGKILL);
      return 0;
    });
    EXPECT_EQ(code, 128 + SIGKILL);
  };
  leave("out");
  leave("other");
  leave("out.tmp-1-0");  // a name that looks like a temporary of "out"
  WriteRaw(scratch.path(".out.tmp-x"), "1");
  auto alive = AtomicDirectory::Create(scratch.path("out"));
  ASSERT_TRUE(alive.ok()) << alive.status();
  EXPECT_EQ(ListDir(scratch.folder())->size(), 4u) << "the first one is gone";
  // Another process of this machine that is alive.
  const int code = InChild([&] { return AtomicDirectory::Create(scratch.path("out")).ok() ? 0 : 1; });
  EXPECT_EQ(code, 0);
  ASSERT_TRUE(FolderExists(alive->temporary_path())) << "somebody is writing it";
  ASSERT_TRUE(alive->Commit().ok());
  EXPECT_TRUE(FolderExists(scratch.path("out")));
}

// Where a file system cannot swap two folders, a kill may come when neither is in place.
TEST(AtomicDirectory, WhatAKilledProcessHadMovedAwayIsPutBack) {
  for (const bool again : {false, true}) {
    const Scratch scratch;
    ASSERT_TRUE(MakeDirs(scratch.path("d")).ok());
    WriteRaw(scratch.path("d/a"), "good");
    const int code = InChild([&] {
      auto folder = AtomicDirectory::Create(scratch.path("d"));
      if (!folder.ok()) return 1;
      WriteRaw(folder->temporary_path() + "/a", "new");
      if (rename(scratch.path("d").c_str(), (folder->temporary_path() + "-old").c_str()) != 0) return 2;
      raise(SIGKILL);
      return 0;
    });
    ASSERT_EQ(code, 128 + SIGKILL);
    ASSERT_FALSE(FolderExists(scratch.path("d")));
    const absl::Status status = again ? AtomicDirectory::Create(scratch.path("d")).status()
                                      : RemoveStaleTemporaries(scratch.folder());
    ASSERT_TRUE(status.ok()) << status;
    EXPECT_EQ(*ListTree(scratch.folder()), std::vector<std::string>{"d/a"});
    EXPECT_EQ(ReadRaw(scratch.path("d/a")), "good");
  }
}

TEST(AtomicDirectory, FoldersThatOthersAreFillingStay) {
  const Scratch scratch;
  auto folder = AtomicDirectory::Create(scratch.path("d"));
  ASSERT_TRUE(folder.ok()) << folder.status();
  EXPECT_EQ(InChild([&] { return RemoveStaleTemporaries(scratch.folder()).ok() ? 0 : 1; }), 0);
  EXPECT_TRUE(FolderExists(folder->temporary_path()));
}

TEST(AtomicDirectory, LeftoversOfKilledProcessesAreFoundAndRemoved) {
  const Scratch scratch;
  const int code = InChild([&] {
    auto folder = AtomicDirectory::Create(scratch.path("d"));
    auto file = AtomicFile::Create(scratch.path("f"));
    raise(SIGKILL);
    return 0;
  });
  EXPECT_EQ(code, 128 + SIGKILL);
  WriteRaw(scratch.path("kept"), "1");
  WriteRaw(scratch.path(".kept.tmp-x-1"), "1");
  auto own = AtomicFile::Create(scratch.path("own"));
  ASSERT_EQ(ListDir(scratch.folder())->size(), 5u);
  ASSERT_TRUE(RemoveStaleTemporaries(scratch.folder()).ok());
  EXPECT_EQ(ListDir(scratch.folder())->size(), 3u);
  ASSERT_TRUE(own->Commit().ok());
  EXPECT_EQ(*ListDir(scratch.folder()), (std::vector<std::string>{".kept.tmp-x-1", "kept", "own"}));
}

}  // namespace
}  // namespace moebius
