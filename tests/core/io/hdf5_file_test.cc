#include "core/io/hdf5_file.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <numeric>
#include <random>
#include <thread>

#include "core/base/status.h"
#include "core/base/strings.h"
#include "core/io/file.h"
#include "core/io/hdf5_child.h"
#include "tests/core/io/scratch.h"

namespace moebius {
namespace {

template <typename T>
std::vector<T> Counting(int64_t n, int64_t step = 1) {
  std::vector<T> values(n);
  for (int64_t i = 0; i < n; ++i) values[i] = static_cast<T>(i * step);
  return values;
}

template <typename T>
std::vector<T> ReadAllOf(const Hdf5File& file, const std::string& name) {
  const auto info = file.Find(name);
  EXPECT_TRUE(info.ok()) << info.status();
  if (!info.ok()) return {};
  std::vector<T> out(info->length);
  const absl::Status status = file.Read(name, 0, std::span<T>(out));
  EXPECT_TRUE(status.ok()) << status;
  return out;
}

// A token file with a chunked, a short and a compressed dataset.
absl::StatusOr<FileHash> WriteSample(const std::string& path, int64_t num_tokens = 100000) {
  ASSIGN_OR_RETURN(Hdf5Writer writer, Hdf5Writer::Create(path));
  RETURN_IF_ERROR(writer.CreateDataset("tokens", DType::kU16, {.chunk_elements = 1000}));
  RETURN_IF_ERROR(writer.CreateDataset("document_starts", DType::kI64));
  RETURN_IF_ERROR(
      writer.CreateDataset("rollouts/scores", DType::kF32, {.chunk_elements = 500, .gzip_level = 1}));
  const std::vector<uint16_t> tokens = Counting<uint16_t>(num_tokens, 7);
  for (int64_t i = 0; i < num_tokens; i += 777) {
    const int64_t n = std::min<int64_t>(777, num_tokens - i);
    RETURN_IF_ERROR(writer.Append("/tokens", std::span(tokens).subspan(i, n)));
    RETURN_IF_ERROR(writer.Append("document_starts", std::span<const int64_t>(&i, 1)));
    const float score = 0.5f * i;
    RETURN_IF_ERROR(writer.Append("rollouts/scores", std::span<const float>(&score, 1)));
  }
  RETURN_IF_ERROR(writer.WriteBytes("tokenizer_json", "{\"model\": 1}"));
  RETURN_IF_ERROR(writer.SetAttribute("format_version", 1));
  RETURN_IF_ERROR(writer.SetAttribute("vocab_size", int64_t{5'000'000'000}));
  RETURN_IF_ERROR(writer.SetAttribute("ratio", 0.25));
  RETURN_IF_ERROR(writer.SetAttribute("tokenizer_sha256", "abc"));
  RETURN_IF_ERROR(writer.SetAttribute("tokenizer_sha256", "déf"));
  return writer.Commit();
}

TEST(Hdf5File, GivesBackWhatWasWritten) {
  const Scratch scratch;
  const std::string path = scratch.path("a.h5");
  const auto hash = WriteSample(path);
  ASSERT_TRUE(hash.ok()) << hash.status();
  EXPECT_EQ(*ListDir(scratch.folder()), std::vector<std::string>{"a.h5"});
  EXPECT_EQ(hash->sha256, HashFile(path)->sha256);
  EXPECT_EQ(hash->bytes, *FileSize(path));
  const auto file = Hdf5File::Open(path, {.expected_sha256 = hash->sha256});
  ASSERT_TRUE(file.ok()) << file.status();
  std::vector<std::string> names;
  for (const auto& dataset : file->datasets())
    names.push_back(Concat(dataset.name, " ", dataset.dtype, " ", dataset.length));
  EXPECT_EQ(Join(names),
            "document_starts I64 129, rollouts/scores F32 129, tokenizer_json U8 12, tokens U16 100000");
  EXPECT_EQ(ReadAllOf<uint16_t>(*file, "tokens"), Counting<uint16_t>(100000, 7));
  EXPECT_EQ(ReadAllOf<int64_t>(*file, "document_starts"), Counting<int64_t>(129, 777));
  EXPECT_EQ(ReadAllOf<float>(*file, "/rollouts/scores")[2], 777.0f);
  EXPECT_EQ(*file->ReadBytes("tokenizer_json"), "{\"model\": 1}");
  EXPECT_EQ(*file->IntAttribute("format_version"), 1);
  EXPECT_EQ(*file->IntAttribute("vocab_size"), 5'000'000'000);
  EXPECT_EQ(*file->DoubleAttribute("ratio"), 0.25);
  EXPECT_EQ(*file->DoubleAttribute("format_version"), 1.0);
  EXPECT_EQ(*file->StringAttribute("tokenizer_sha256"), "déf");
  EXPECT_TRUE(file->HasAttribute("ratio") && !file->HasAttribute("gone"));
  EXPECT_EQ(ExitCode(file->IntAttribute("gone").status()), kExitMissing);
  EXPECT_EQ(ExitCode(file->IntAttribute("ratio").status()), kExitDamaged);
  EXPECT_EQ(ExitCode(file->StringAttribute("ratio").status()), kExitDamaged);
}

TEST(Hdf5File, ReadsRangesAcrossChunksAsWiderTypes) {
  const Scratch scratch;
  ASSERT_TRUE(WriteSample(scratch.path("a.h5")).ok());
  const auto file = Hdf5File::Open(scratch.path("a.h5"));
  ASSERT_TRUE(file.ok()) << file.status();
  std::vector<int32_t> out(2500);
  ASSERT_TRUE(file->Read("tokens", 49990, std::span(out)).ok());
  for (int i = 0; i < 2500; ++i) ASSERT_EQ(out[i], (49990 + i) * 7 % 65536);
  std::vector<int64_t> wide(3);
  ASSERT_TRUE(file->Read("tokens", 0, std::span(wide)).ok());
  EXPECT_EQ(wide, (std::vector<int64_t>{0, 7, 14}));
  std::vector<double> scores(2);
  ASSERT_TRUE(file->Read("rollouts/scores", 0, std::span(scores)).ok());
  EXPECT_EQ(scores[1], 388.5);
  EXPECT_TRUE(file->Read("tokens", 100000, std::span<uint16_t>()).ok());
  std::vector<uint16_t> two(2);
  EXPECT_EQ(ExitCode(file->Read("tokens", 99999, std::span(two))), kExitDamaged);
  EXPECT_EQ(ExitCode(file->Read("tokens", -1, std::span(two))), kExitDamaged);
  EXPECT_EQ(ExitCode(file->Read("document_starts", 0, std::span(two))), kExitDamaged);
  EXPECT_EQ(ExitCode(file->Read("document_starts", 0, std::span(out).first(1))), kExitDamaged);
  EXPECT_EQ(ExitCode(file->Read("gone", 0, std::span(two))), kExitMissing);
}

// As h5py makes them of data that grows: the library finds the place of one chunk by looking at all.
TEST(Hdf5File, ReadsDatasetsOfVeryManyChunks) {
  const Scratch scratch;
  const std::vector<uint16_t> tokens = Counting<uint16_t>(160'001, 7);
  for (const int gzip_level : {0, 1}) {
    const std::string path = scratch.path("many.h5");
    auto writer = Hdf5Writer::Create(path);
    ASSERT_TRUE(writer.ok()) << writer.status();
    ASSERT_TRUE(
        writer->CreateDataset("tokens", DType::kU16, {.chunk_elements = 16, .gzip_level = gzip_level}).ok());
    ASSERT_TRUE(writer->Append("tokens", std::span(tokens)).ok());
    ASSERT_TRUE(writer->Commit().ok());
    const auto file = Hdf5File::Open(path);
    ASSERT_TRUE(file.ok()) << file.status();
    EXPECT_EQ(ReadAllOf<uint16_t>(*file, "tokens"), tokens);
    std::vector<uint16_t> some(1000);
    ASSERT_TRUE(file->Read("tokens", 70'007, std::span(some)).ok());
    EXPECT_EQ(some, std::vector<uint16_t>(tokens.begin() + 70'007, tokens.begin() + 71'007));
  }
}

TEST(Hdf5File, TheSameCallsGiveTheSameBytes) {
  const Scratch scratch;
  const auto first = WriteSample(scratch.path("a.h5"), 12345);
  std::vector<std::string> noise(1000, std::string(1000, 'n'));  // another heap, another second
  sleep(1);
  const auto second = WriteSample(scratch.path("b.h5"), 12345);
  ASSERT_TRUE(first.ok() && second.ok());
  EXPECT_EQ(first->sha256, second->sha256);
}

TEST(Hdf5File, ShortDatasetsTakeNoWholeChunk) {
  const Scratch scratch;
  auto writer = Hdf5Writer::Create(scratch.path("a.h5"));
  ASSERT_TRUE(writer->CreateDataset("empty", DType::kI64).ok());
  ASSERT_TRUE(writer->CreateDataset("short", DType::kI64).ok());
  ASSERT_TRUE(writer->CreateDataset("packed", DType::kI32, {.gzip_level = 1}).ok());
  ASSERT_TRUE(writer->CreateDataset("packed_empty", DType::kI32, {.gzip_level = 1}).ok());
  ASSERT_TRUE(writer->Append("short", std::span<const int64_t>(Counting<int64_t>(10))).ok());
  ASSERT_TRUE(writer->Append("packed", std::span<const int32_t>(Counting<int32_t>(1000))).ok());
  ASSERT_TRUE(writer->Commit().ok());
  EXPECT_LT(*FileSize(scratch.path("a.h5")), 20000);
  const auto file = Hdf5File::Open(scratch.path("a.h5"));
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(ReadAllOf<int64_t>(*file, "short"), Counting<int64_t>(10));
  EXPECT_EQ(ReadAllOf<int32_t>(*file, "packed"), Counting<int32_t>(1000));
  EXPECT_EQ(file->Find("empty")->length, 0);
  EXPECT_EQ(file->Find("packed_empty")->length, 0);
}

TEST(Hdf5File, ExtentsSayWhereTheElementsLie) {
  const Scratch scratch;
  const std::string path = scratch.path("a.h5");
  ASSERT_TRUE(WriteSample(path).ok());
  const auto file = Hdf5File::Open(path);
  ASSERT_TRUE(file.ok());
  const auto extents = file->Extents("tokens");
  ASSERT_TRUE(extents.ok()) << extents.status();
  ASSERT_EQ(extents->size(), 100u);
  const std::string raw = ReadRaw(path);
  int64_t next = 0;
  for (const auto& extent : *extents) {
    EXPECT_EQ(extent.first, next);
    next += extent.count;
    for (int64_t i = 0; i < extent.count; ++i) {
      uint16_t value;
      memcpy(&value, raw.data() + extent.file_offset + 2 * i, 2);
      ASSERT_EQ(value, static_cast<uint16_t>((extent.first + i) * 7));
    }
  }
  EXPECT_EQ(next, 100000);
  EXPECT_EQ(file->Extents("document_starts")->size(), 1u);
  EXPECT_EQ(ExitCode(file->Extents("rollouts/scores").status()), kExitUnavailable);
}

TEST(Hdf5File, ReadsFilesOfH5py) {
  const auto file = Hdf5File::Open(TestData("h5py.h5"));
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(ReadAllOf<uint16_t>(*file, "tokens"), Counting<uint16_t>(1000));
  EXPECT_EQ(ReadAllOf<int32_t>(*file, "compressed"), Counting<int32_t>(1000));
  EXPECT_EQ(ReadAllOf<double>(*file, "big_endian"), Counting<double>(5));
  EXPECT_EQ(ReadAllOf<float>(*file, "group/deep/floats")[4], 1.0f);
  EXPECT_EQ(ReadAllOf<uint32_t>(*file, "wide"), Counting<uint32_t>(10, 300'000'000));
  EXPECT_EQ(file->Find("empty")->length, 0);
  EXPECT_EQ(*file->ReadBytes("tokenizer_json"), "{\"a\": 1}");
  EXPECT_EQ(*file->IntAttribute("vocab_size"), 32000);
  EXPECT_EQ(*file->DoubleAttribute("ratio"), 0.5);
  EXPECT_EQ(*file->StringAttribute("tokenizer_sha256"), "abcé");
  EXPECT_EQ(*file->StringAttribute("fixed"), "fixed text");
  EXPECT_TRUE(Contains(file->IntAttribute("list").status(), "not a single number or text"));
  EXPECT_TRUE(Contains(file->Find("matrix").status(), "not one-dimensional"));
  EXPECT_TRUE(Contains(file->Find("text").status(), "element type"));
  std::vector<int32_t> narrow(10);
  EXPECT_TRUE(Contains(file->Read("wide", 0, std::span(narrow)), "element 8 is 2400000000"));
  EXPECT_TRUE(file->Read("wide", 0, std::span(narrow).first(8)).ok());
}

TEST(Hdf5File, RefusesWhatPointsElsewhereOrIsNotStored) {
  const std::pair<const char*, const char*> cases[] = {
      {"soft_link.h5", "/tokens is a link"},
      {"external_link.h5", "/tokens is a link"},
      {"external_storage.h5", "lies in other files"},
      {"virtual.h5", "is virtual"},
      {"never_written.h5", "declares 1099511627776 elements"},
      {"hole.h5", "lacks the chunk of element 1000"},
  };
  for (const auto& [name, part] : cases) {
    for (const bool isolate : {true, false}) {
      const auto file = Hdf5File::Open(TestData(name), {.isolate = isolate});
      EXPECT_EQ(ExitCode(file.status()), kExitDamaged) << name;
      EXPECT_TRUE(Contains(file.status(), part)) << file.status();
      EXPECT_TRUE(Contains(file.status(), name)) << file.status();
    }
  }
  const auto filter = Hdf5File::Open(TestData("other_filter.h5"));
  ASSERT_TRUE(filter.ok()) << filter.status();
  EXPECT_TRUE(Contains(filter->Find("tokens").status(), "filter 32000"));
}

TEST(Hdf5File, ComparesTheHashBeforeTheLibrarySeesTheFile) {
  const Scratch scratch;
  const auto hash = WriteSample(scratch.path("a.h5"));
  ASSERT_TRUE(hash.ok());
  std::string raw = ReadRaw(scratch.path("a.h5"));
  raw[raw.size() / 2] ^= 1;  // inside the tokens: HDF5 would not notice
  WriteRaw(scratch.path("a.h5"), raw);
  EXPECT_TRUE(Hdf5File::Open(scratch.path("a.h5")).ok());
  const auto file = Hdf5File::Open(scratch.path("a.h5"), {.expected_sha256 = hash->sha256});
  EXPECT_EQ(ExitCode(file.status()), kExitDamaged);
  EXPECT_TRUE(Contains(file.status(), "SHA-256")) << file.status();
}

TEST(Hdf5File, ReportsMissingEmptyAndForeignFiles) {
  const Scratch scratch;
  EXPECT_EQ(ExitCode(Hdf5File::Open(scratch.path("gone")).status()), kExitMissing);
  EXPECT_EQ(ExitCode(Hdf5File::Open(scratch.folder()).status()), kExitMissing);
  for (const std::string& text : {std::string(), std::string("not HDF5"), std::string(100000, '\0')}) {
    WriteRaw(scratch.path("a.h5"), text);
    const auto file = Hdf5File::Open(scratch.path("a.h5"));
    EXPECT_EQ(ExitCode(file.status()), kExitDamaged);
    EXPECT_TRUE(Contains(file.status(), "a.h5")) << file.status();
  }
}

// Opens, and reads all that opened: must end in OK or DamagedError, whatever the bytes.
void OpenAndRead(const std::string& path, int* num_refused) {
  const auto file = Hdf5File::Open(path);
  absl::Status status = file.status();
  if (file.ok()) {
    for (const auto& dataset : file->datasets()) {
      std::vector<double> floats(dataset.dtype == DType::kF32 ? dataset.length : 0);
      std::vector<int64_t> ints(dataset.dtype == DType::kF32 ? 0 : dataset.length);
      status.Update(file->Read(dataset.name, 0, std::span(floats)));
      if (dataset.dtype != DType::kF32 && dataset.dtype != DType::kF64) {
        status.Update(file->Read(dataset.name, 0, std::span(ints)));
      }
    }
    (void)file->IntAttribute("vocab_size");
    (void)file->StringAttribute("tokenizer_sha256");
  } else {
    EXPECT_EQ(ExitCode(status), kExitDamaged) << status;
    EXPECT_TRUE(Contains(status, path)) << status;
  }
  *num_refused += status.ok() ? 0 : 1;
}

TEST(Hdf5File, SurvivesDamagedFiles) {
  const Scratch scratch;
  ASSERT_TRUE(WriteSample(scratch.path("a.h5"), 3000).ok());
  std::mt19937 random(7);
  int num_refused = 0;
  for (const std::string& whole : {ReadRaw(scratch.path("a.h5")), ReadRaw(TestData("h5py.h5"))}) {
    for (int i = 0; i < 200; ++i) {
      std::string damaged = whole;
      const int kind = i % 4;
      const size_t at = random() % damaged.size();
      if (kind == 0) damaged.resize(at);
      if (kind == 1) damaged[at] ^= 1 << (random() % 8);
      if (kind == 2)
        std::fill_n(damaged.begin() + at, std::min<size_t>(damaged.size() - at, 1 + random() % 64), '\xff');
      if (kind == 3) {
        for (int k = 0; k < 20; ++k) damaged[random() % std::min<size_t>(damaged.size(), 4096)] = random();
      }
      WriteRaw(scratch.path("b.h5"), damaged);
      OpenAndRead(scratch.path("b.h5"), &num_refused);
    }
  }
  RecordProperty("refused", num_refused);
  EXPECT_GT(num_refused, 150);  // truncations alone are 100
}

TEST(Hdf5Child, CrashesLoopsAndGreedAreReportedAsDamage) {
  const auto run = [](const std::function<absl::StatusOr<std::string>()>& body) {
    return RunHdf5Child("a.h5", 1000, body);
  };
  const std::string long_text(300000, 'x');
  EXPECT_EQ(*run([&]() -> absl::StatusOr<std::string> { return long_text; }), long_text);
  EXPECT_EQ(std::string(
                run([]() -> absl::StatusOr<std::string> { return MissingError("why"); }).status().message()),
            "why");
  const auto crash = run([]() -> absl::StatusOr<std::string> {
    raise(SIGSEGV);
    return "survived";
  });
  EXPECT_TRUE(Contains(crash.status(), "a.h5") && Contains(crash.status(), "signal 11")) << crash.status();
  const auto loop = run([]() -> absl::StatusOr<std::string> {
    volatile unsigned i = 0;  // a loop without side effects may be left out
    while (true) {
      i = i + 1;
    }
  });
  EXPECT_TRUE(Contains(loop.status(), "takes too long")) << loop.status();
  const auto greed = run([]() -> absl::StatusOr<std::string> { return std::string(int64_t{1} << 44, 'x'); });
  EXPECT_EQ(ExitCode(greed.status()), kExitDamaged) << greed.status();
}

TEST(Hdf5Writer, LeavesNoTraceWithoutCommit) {
  const Scratch scratch;
  WriteRaw(scratch.path("a.h5"), "old");
  {
    auto writer = Hdf5Writer::Create(scratch.path("a.h5"));
    ASSERT_TRUE(writer.ok());
    ASSERT_TRUE(writer->CreateDataset("x", DType::kU16, {.chunk_elements = 100}).ok());
    ASSERT_TRUE(writer->Append("x", std::span<const uint16_t>(Counting<uint16_t>(1000))).ok());
  }
  EXPECT_EQ(*ListDir(scratch.folder()), std::vector<std::string>{"a.h5"});
  EXPECT_EQ(ReadRaw(scratch.path("a.h5")), "old");
  EXPECT_EQ(ExitCode(Hdf5Writer::Create(scratch.path("no/a.h5")).status()), kExitCannotWrite);
  EXPECT_EQ(ExitCode(Hdf5Writer::Create("/dev/null").status()), kExitCannotWrite);
}

TEST(Hdf5Writer, AFullDiskIsAnErrorAndNoCrash) {
  const Scratch scratch;
  const int code = InChildWithFullDisk(scratch.folder(), [&] {
    WriteRaw(scratch.path("a.h5"), "old");
    const auto hash = WriteSample(scratch.path("a.h5"), 2'000'000);
    if (ExitCode(hash.status()) != kExitCannotWrite || !Contains(hash.status(), scratch.path("a.h5")))
      return 1;
    if (!Contains(hash.status(), "No space left") && !Contains(hash.status(), "too large")) return 2;
    if (*ListDir(scratch.folder()) != std::vector<std::string>{"a.h5"} ||
        ReadRaw(scratch.path("a.h5")) != "old")
      return 3;
    return WriteSample(scratch.path("a.h5"), 1000).ok() ? 0 : 4;
  });
  EXPECT_EQ(code, 0);
}

// HDF5 itself crashes in H5Fclose when a write of metadata fails: every place where the file can end is
// tried.
TEST(Hdf5Writer, AWriteThatFailsAnywhereIsAnErrorAndNoCrash) {
  const Scratch scratch;
  ASSERT_TRUE(WriteSample(scratch.path("whole.h5"), 20000).ok());
  const int64_t size = *FileSize(scratch.path("whole.h5"));
  for (int64_t limit = 0; limit < size; limit += limit < 8000 ? 100 : 997) {
    const int code = InChild([&] {
      signal(SIGXFSZ, SIG_IGN);
      const struct rlimit bytes = {static_cast<rlim_t>(limit), static_cast<rlim_t>(limit)};
      setrlimit(RLIMIT_FSIZE, &bytes);
      const auto hash = WriteSample(scratch.path("a.h5"), 20000);
      return ExitCode(hash.status()) == kExitCannotWrite && Contains(hash.status(), "too large") ? 0 : 1;
    });
    ASSERT_EQ(code, 0) << "limit " << limit << " of " << size;
  }
  EXPECT_EQ(*ListDir(scratch.folder()), std::vector<std::string>{"whole.h5"});
}

TEST(Hdf5Writer, ManyThreadsReadAndWriteAtOnce) {
  const Scratch scratch;
  const auto hash = WriteSample(scratch.path("a.h5"), 20000);
  ASSERT_TRUE(hash.ok());
  const auto file = Hdf5File::Open(scratch.path("a.h5"));
  ASSERT_TRUE(file.ok());
  std::vector<std::thread> threads;
  std::array<bool, 4> good{};
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      const auto own = WriteSample(scratch.path(Concat("t", t)), 20000);
      bool same = own.ok() && own->sha256 == hash->sha256;
      std::vector<int32_t> out(100);
      for (int i = 0; i < 100; ++i) {
        same =
            same && file->Read("tokens", 190 * i, std::span(out)).ok() && out[5] == (190 * i + 5) * 7 % 65536;
      }
      good[t] = same;
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(good, (std::array<bool, 4>{true, true, true, true}));
}

}  // namespace
}  // namespace moebius
