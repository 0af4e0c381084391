#include "core/io/safetensors.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <random>

#include "core/base/status.h"
#include "core/base/strings.h"
#include "core/io/safetensors_shards.h"
#include "core/io/safetensors_writer.h"
#include "tests/core/io/scratch.h"

namespace moebius {
namespace {

std::string File(const std::string& header, const std::string& data) {
  const uint64_t size = header.size();
  return std::string(reinterpret_cast<const char*>(&size), 8) + header + data;
}

template <typename T>
std::vector<T> Values(const SafetensorsFile& file, const std::string& name) {
  const TensorInfo* tensor = file.Find(name);
  EXPECT_NE(tensor, nullptr) << name;
  std::vector<T> out(tensor->bytes / sizeof(T));
  EXPECT_TRUE(file.Read(*tensor, 0, std::as_writable_bytes(std::span(out))).ok());
  const auto mapped = file.Mapped(*tensor);
  EXPECT_EQ(mapped.size(), out.size() * sizeof(T));
  const auto read = std::as_bytes(std::span(out));
  EXPECT_TRUE(std::equal(mapped.begin(), mapped.end(), read.begin(), read.end()));
  return out;
}

TEST(SafetensorsFile, ReadsAFileOfThePythonPackage) {
  const auto file = SafetensorsFile::Open(TestData("python.safetensors"));
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(file->metadata().at("format"), "pt");
  EXPECT_EQ(file->tensors().size(), 8u);
  EXPECT_EQ(Values<float>(*file, "b.f32"), (std::vector<float>{0, 1, 2, 3, 4, 5}));
  EXPECT_EQ(file->Find("b.f32")->shape, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(Values<int64_t>(*file, "a.i64"), (std::vector<int64_t>{1, -2}));
  EXPECT_EQ(Values<uint8_t>(*file, "c.u8"), (std::vector<uint8_t>{7, 8, 9}));
  EXPECT_EQ(Values<double>(*file, "e.scalar"), std::vector<double>{2.5});
  EXPECT_EQ(file->Find("e.scalar")->shape, std::vector<int64_t>{});
  EXPECT_EQ(file->Find("e.scalar")->elements(), 1);
  EXPECT_EQ(file->Find("f.empty")->elements(), 0);
  EXPECT_EQ(Values<float>(*file, "f.empty").size(), 0u);
  EXPECT_EQ(file->Find("g.bool")->dtype, DType::kBool);
  EXPECT_EQ(Values<int32_t>(*file, "é.i32"), std::vector<int32_t>{3});
  EXPECT_EQ(file->Find("gone"), nullptr);
  const auto other = SafetensorsFile::Open(TestData("other_dtype.safetensors"));
  ASSERT_TRUE(other.ok()) << other.status();
  EXPECT_EQ(other->Find("a.u64")->dtype_name, "U64");
  EXPECT_FALSE(other->Find("a.u64")->dtype.has_value());
  EXPECT_EQ(Values<uint64_t>(*other, "a.u64"), std::vector<uint64_t>{uint64_t{1} << 63});
}

TEST(SafetensorsFile, AcceptsAnyOrderPaddingAndNoTensors) {
  const Scratch scratch;
  const std::string path = scratch.path("a.safetensors");
  WriteRaw(
      path,
      File(
          R"({"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]},"a":{"dtype":"I8","shape":[1],"data_offsets":[0,1]}}   )",
          "abc"));
  const auto file = SafetensorsFile::Open(path);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(file->tensors()[0].name, "a");
  EXPECT_EQ(Values<char>(*file, "b"), (std::vector<char>{'b', 'c'}));
  std::byte middle[1];
  ASSERT_TRUE(file->Read(*file->Find("b"), 1, middle).ok());
  EXPECT_EQ(middle[0], std::byte{'c'});
  WriteRaw(path, File("{}", ""));
  EXPECT_TRUE(SafetensorsFile::Open(path).ok());
  WriteRaw(
      path,
      File(
          R"({"e":{"dtype":"F32","shape":[0,9223372036854775807],"data_offsets":[0,0]},"f":{"dtype":"F4","shape":[2],"data_offsets":[0,1]}})",
          "x"));
  EXPECT_TRUE(SafetensorsFile::Open(path).ok()) << SafetensorsFile::Open(path).status();
}

TEST(SafetensorsFile, RefusesEveryBrokenRuleNamingFileAndField) {
  const Scratch scratch;
  const std::string path = scratch.path("bad.safetensors");
  const auto tensor = [](const std::string& rest) { return "{\"w\":{" + rest + "}}"; };
  const std::string huge_length("\xff\xff\xff\xff\xff\xff\xff\xff{}", 10);
  const std::string over_cap("\x01\xe1\xf5\x05\0\0\0\0{}", 10);
  const std::pair<std::string, const char*> cases[] = {
      {"", "too short"},
      {"1234567", "too short"},
      {huge_length, "header length"},
      {over_cap, "header length 100000001 is above 100000000"},
      {std::string("\x64\0\0\0\0\0\0\0{}", 10), "header of 100 bytes"},
      {File("", ""), "does not start with '{'"},
      {File(" {}", ""), "does not start with '{'"},
      {File("[]", ""), "does not start with '{'"},
      {File("{", ""), "header: not JSON"},
      {File("{} x", ""), "header: not JSON"},
      {File("{\"a\":\"\xff\"}", ""), "header: not JSON"},
      {File(R"({"w":3})", ""), "tensor w: is number 3"},
      {File(tensor(R"("dtype":"F32","shape":[1])"), "1234"), "field \"data_offsets\" is missing"},
      {File(tensor(R"("dtype":"F32","data_offsets":[0,4])"), "1234"), "field \"shape\" is missing"},
      {File(tensor(R"("shape":[1],"data_offsets":[0,4])"), "1234"), "field \"dtype\" is missing"},
      {File(tensor(R"("dtype":"F33","shape":[1],"data_offsets":[0,4])"), "1234"),
       "\"F33\", which is no element type"},
      {File(tensor(R"("dtype":4,"shape":[1],"data_offsets":[0,4])"), "1234"), "field \"dtype\" is number 4"},
      {File(tensor(R"("dtype":"F32","shape":[-1],"data_offsets":[0,4])"), "1234"), "value is -1, outside 0"},
      {File(tensor(R"("dtype":"F32","shape":[1.0],"data_offsets":[0,4])"), "1234"), "expected an integer"},
      {File(tensor(R"("dtype":"F32","shape":[18446744073709551615],"data_offsets":[0,4])"), "1234"),
       "expected an integer"},
      {File(tensor(R"("dtype":"F32","shape":1,"data_offsets":[0,4])"), "1234"), "expected an array"},
      {File(tensor(R"("dtype":"F32","shape":[2],"data_offsets":[0,4])"), "1234"),
       "spans 4 bytes, dtype and shape need 8"},
      {File(tensor(R"("dtype":"F4","shape":[3],"data_offsets":[0,2])"), "12"), "an impossible number"},
      {File(tensor(R"("dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0])"), ""),
       "an impossible number"},
      {File(tensor(R"("dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0])"), ""),
       "an impossible number"},
      {File(tensor(R"("dtype":"F32","shape":[1],"data_offsets":[4,0])"), "1234"), "not begin and end"},
      {File(tensor(R"("dtype":"F32","shape":[1],"data_offsets":[0])"), "1234"), "not begin and end"},
      {File(tensor(R"("dtype":"F32","shape":[1],"data_offsets":[0,4,4])"), "1234"), "not begin and end"},
      {File(tensor(R"("dtype":"F32","shape":[1],"data_offsets":[0,4],"extra":1)"), "1234"),
       "field \"extra\" is unknown"},
      {File(tensor(R"("dtype":"F32","shape":[1],"data_offsets":[0,4])"), "123"),
       "describes 4 bytes of data, the file has 3"},
      {File(tensor(R"("dtype":"F32","shape":[1],"data_offsets":[0,4])"), "12345"),
       "describes 4 bytes of data, the file has 5"},
      {File(tensor(R"("dtype":"F32","shape":[1],"data_offsets":[1,5])"), "12345"), "after a hole"},
      {File(
           R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}})",
           "abc"),
       "inside the tensor before"},
      {File(
           R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})",
           "a"),
       "inside the tensor before"},
      {File(
           R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})",
           "ab"),
       "key \"a\" appears twice"},
      {File(R"({"__metadata__":3})", ""), "__metadata__ is number 3"},
      {File(R"({"__metadata__":{"a":3}})", ""), "__metadata__: field \"a\" is number 3"},
  };
  for (const auto& [text, part] : cases) {
    WriteRaw(path, text);
    const auto file = SafetensorsFile::Open(path);
    EXPECT_EQ(ExitCode(file.status()), kExitDamaged) << part;
    EXPECT_TRUE(Contains(file.status(), part)) << part << " not in: " << file.status();
    EXPECT_TRUE(Contains(file.status(), "bad.safetensors")) << file.status();
  }
  EXPECT_EQ(ExitCode(SafetensorsFile::Open(scratch.path("gone")).status()), kExitMissing);
  EXPECT_EQ(ExitCode(SafetensorsFile::Open(scratch.folder()).status()), kExitMissing);
}

TEST(SafetensorsFile, SurvivesDamagedFiles) {
  const Scratch scratch;
  const std::string whole = ReadRaw(TestData("python.safetensors")), path = scratch.path("a");
  std::mt19937 random(3);
  int num_refused = 0;
  for (int i = 0; i < 2000; ++i) {
    std::string damaged = whole;
    if (i % 3 == 0) damaged.resize(random() % damaged.size());
    for (int k = 0; i % 3 != 0 && k < 1 + i % 5; ++k)
      damaged[random() % 600 % damaged.size()] = static_cast<char>(random());
    WriteRaw(path, damaged);
    const auto file = SafetensorsFile::Open(path);
    if (!file.ok()) {
      EXPECT_EQ(ExitCode(file.status()), kExitDamaged) << file.status();
      ++num_refused;
      continue;
    }
    for (const TensorInfo& tensor : file->tensors()) {
      std::vector<std::byte> bytes(tensor.bytes);
      EXPECT_TRUE(file->Read(tensor, 0, bytes).ok());
    }
  }
  EXPECT_GT(num_refused, 1500);
}

// Copies `from` through the writer, in pieces of at most `step` bytes.
absl::Status Copy(const SafetensorsFile& from, const std::string& path, int64_t step) {
  std::vector<TensorSpec> specs;
  for (const TensorInfo& tensor : from.tensors()) specs.push_back({tensor.name, *tensor.dtype, tensor.shape});
  std::reverse(specs.begin(), specs.end());
  ASSIGN_OR_RETURN(SafetensorsWriter writer, SafetensorsWriter::Create(path, specs, from.metadata()));
  for (const TensorSpec& spec : writer.order()) {
    const auto bytes = from.Mapped(*from.Find(spec.name));
    for (size_t at = 0; at < bytes.size(); at += step) {
      RETURN_IF_ERROR(writer.Append(spec.name, bytes.subspan(at, std::min<size_t>(step, bytes.size() - at))));
    }
  }
  return writer.Commit().status();
}

TEST(SafetensorsWriter, WritesTheBytesOfThePythonPackage) {
  const Scratch scratch;
  const auto file = SafetensorsFile::Open(TestData("python.safetensors"));
  ASSERT_TRUE(file.ok());
  for (const int64_t step : {1, 3, 1000}) {
    const absl::Status status = Copy(*file, scratch.path("copy"), step);
    ASSERT_TRUE(status.ok()) << status;
    EXPECT_TRUE(ReadRaw(scratch.path("copy")) == ReadRaw(TestData("python.safetensors"))) << step;
  }
}

TEST(SafetensorsWriter, DataStartAligned) {
  const Scratch scratch;
  for (int length = 1; length < 10; ++length) {
    const std::string name(length, 'n');
    auto writer = SafetensorsWriter::Create(scratch.path("a"), {{name, DType::kF64, {1}}});
    ASSERT_TRUE(writer.ok());
    const double value = 3;
    ASSERT_TRUE(writer->Append(name, std::as_bytes(std::span(&value, 1))).ok());
    const auto hash = writer->Commit();
    ASSERT_TRUE(hash.ok());
    EXPECT_EQ(hash->sha256, Sha256Hex(ReadRaw(scratch.path("a"))));
    EXPECT_EQ(hash->bytes % 8, 0);
    EXPECT_EQ(Values<double>(*SafetensorsFile::Open(scratch.path("a")), name), std::vector<double>{3});
  }
}

TEST(SafetensorsWriter, ReportsAFullDisk) {
  const Scratch scratch;
  const int code = InChildWithFullDisk(scratch.folder(), [&] {
    auto writer = SafetensorsWriter::Create(scratch.path("a"), {{"w", DType::kU8, {4'000'000}}});
    absl::Status status = writer.status();
    const std::string part(100000, 'w');
    for (int i = 0; i < 40 && status.ok(); ++i) {
      status = writer->Append("w", std::as_bytes(std::span(part)));
    }
    if (status.ok()) status = writer->Commit().status();
    return ExitCode(status) == kExitCannotWrite && Contains(status, scratch.path("a")) ? 0 : 1;
  });
  EXPECT_EQ(code, 0);
}

TEST(SafetensorsWriterDeath, WrongOrderSizeAndMissingBytesAreOurMistakes) {
  const Scratch scratch;
  const std::byte bytes[8]{};
  const auto create = [&] {
    return *SafetensorsWriter::Create(scratch.path("a"), {{"a", DType::kU8, {4}}, {"b", DType::kU8, {4}}});
  };
  EXPECT_DEATH((void)create().Append("b", std::span(bytes).first(4)), "out of order");
  EXPECT_DEATH((void)create().Append("a", std::span(bytes).first(5)), "bytes left in a");
  EXPECT_DEATH((void)create().Commit(), "tensors are complete");
  EXPECT_DEATH(
      (void)SafetensorsWriter::Create(scratch.path("a"), {{"a", DType::kU8, {4}}, {"a", DType::kF32, {4}}}),
      "planned twice");
}

TEST(Shards, FillFilesInOrderUpToTheLimit) {
  const std::vector<TensorSpec> specs = {
      {"a", DType::kF32, {10}}, {"b", DType::kF32, {10}}, {"c", DType::kF32, {100}}, {"d", DType::kU8, {1}}};
  const auto describe = [&](int64_t max_bytes) {
    std::string out;
    for (const ShardPlan& shard : PlanShards(specs, max_bytes, "m")) {
      out += shard.file + ":";
      for (const TensorSpec& tensor : shard.tensors) out += tensor.name;
      out += " ";
    }
    return out;
  };
  EXPECT_EQ(describe(481), "m.safetensors:abcd ");
  EXPECT_EQ(describe(480), "m-00001-of-00002.safetensors:abc m-00002-of-00002.safetensors:d ");
  EXPECT_EQ(describe(80),
            "m-00001-of-00003.safetensors:ab m-00002-of-00003.safetensors:c m-00003-of-00003.safetensors:d ");
  EXPECT_EQ(PlanShards({}).size(), 1u);
}

// Writes tensors t0..t{n-1} of i + 1 bytes of value i.
void WriteShards(const std::string& folder, int n, int64_t max_bytes) {
  std::vector<TensorSpec> specs;
  for (int i = 0; i < n; ++i) specs.push_back({Concat("t", i), DType::kU8, {i + 1}});
  const std::vector<ShardPlan> shards = PlanShards(specs, max_bytes);
  for (const ShardPlan& shard : shards) {
    auto writer = SafetensorsWriter::Create(JoinPath(folder, shard.file), shard.tensors);
    ASSERT_TRUE(writer.ok());
    for (const TensorSpec& spec : writer->order()) {
      const std::string bytes(spec.shape[0], static_cast<char>(spec.shape[0] - 1));
      ASSERT_TRUE(writer->Append(spec.name, std::as_bytes(std::span(bytes))).ok());
    }
    ASSERT_TRUE(writer->Commit().ok());
  }
  ASSERT_TRUE(WriteShardIndex(folder, shards).ok());
}

TEST(Shards, ReadBackAlikeInOneFileAndInMany) {
  for (const int64_t max_bytes : {int64_t{20}, kDefaultShardBytes}) {
    const Scratch scratch;
    WriteShards(scratch.folder(), 10, max_bytes);
    const auto folder = SafetensorsFolder::Open(scratch.folder());
    ASSERT_TRUE(folder.ok()) << folder.status();
    EXPECT_EQ(folder->files().size(), max_bytes == 20 ? 4u : 1u);
    EXPECT_EQ(folder->names().size(), 10u);
    for (int i = 0; i < 10; ++i) {
      const auto mapped = folder->Mapped(Concat("t", i));
      ASSERT_TRUE(mapped.ok());
      EXPECT_EQ(std::vector<std::byte>(mapped->begin(), mapped->end()),
                std::vector<std::byte>(i + 1, std::byte(i)));
      std::byte last[1];
      EXPECT_TRUE(folder->Read(Concat("t", i), i, last).ok());
      EXPECT_EQ(last[0], std::byte(i));
    }
    EXPECT_FALSE(folder->Has("gone"));
    EXPECT_EQ(ExitCode(folder->Mapped("gone").status()), kExitMissing);
  }
}

TEST(Shards, NameWhatIsMissingOrWrong) {
  const Scratch scratch;
  EXPECT_EQ(ExitCode(SafetensorsFolder::Open(scratch.path("gone")).status()), kExitMissing);
  const absl::Status empty = SafetensorsFolder::Open(scratch.folder()).status();
  EXPECT_EQ(ExitCode(empty), kExitMissing);
  EXPECT_TRUE(Contains(empty, "model.safetensors")) << empty;
  WriteShards(scratch.folder(), 10, 20);
  const std::string index = scratch.path("model.safetensors.index.json"), good = ReadRaw(index);
  const std::pair<std::string, const char*> cases[] = {
      {"{", "not JSON"},
      {"[]", "expected an object"},
      {"{}", "field \"weight_map\" is missing"},
      {R"({"weight_map": 3})", "expected an object"},
      {R"({"weight_map": {"t0": 3}})", "field \"t0\" is number 3"},
      {R"({"weight_map": {"t0": "../a.safetensors"}})", "not the name of a file in this folder"},
      {R"({"weight_map": {"t0": "/etc/passwd"}})", "not the name of a file in this folder"},
      {R"({"weight_map": {"t9": "model-00001-of-00004.safetensors"}})", "lacks tensor t9"},
      {R"({"weight_map": {"t0": "model-00001-of-00004.safetensors", "t0": "x"}})", "appears twice"},
  };
  for (const auto& [text, part] : cases) {
    WriteRaw(index, text);
    const absl::Status status = SafetensorsFolder::Open(scratch.folder()).status();
    EXPECT_EQ(ExitCode(status), kExitDamaged) << status;
    EXPECT_TRUE(Contains(status, part)) << part << " not in: " << status;
  }
  WriteRaw(index, good);
  ASSERT_TRUE(RemoveTree(scratch.path("model-00002-of-00004.safetensors")).ok());
  const absl::Status shard = SafetensorsFolder::Open(scratch.folder()).status();
  EXPECT_EQ(ExitCode(shard), kExitMissing);
  EXPECT_TRUE(Contains(shard, "lists model-00002-of-00004.safetensors, which is not there")) << shard;
}

// Tensors that nobody reads would be lost without a word, and of two models one is not meant.
TEST(Shards, AnIndexIsOfAllTensorsOfTheOnlyModel) {
  const Scratch scratch;
  WriteShards(scratch.folder(), 10, 20);
  const std::string index = scratch.path("model.safetensors.index.json"), good = ReadRaw(index);
  std::string less = good;
  const size_t at = less.find("\"t8\"");
  ASSERT_NE(at, less.npos);
  less.erase(at, less.find('\n', at) - at);  // one that others follow
  WriteRaw(index, less);
  const absl::Status unlisted = SafetensorsFolder::Open(scratch.folder()).status();
  EXPECT_EQ(ExitCode(unlisted), kExitDamaged);
  EXPECT_TRUE(Contains(unlisted, "holds tensor t8")) << unlisted;
  WriteRaw(index, good);
  WriteRaw(scratch.path("model.safetensors"), ReadRaw(scratch.path("model-00001-of-00004.safetensors")));
  const absl::Status both = SafetensorsFolder::Open(scratch.folder()).status();
  EXPECT_EQ(ExitCode(both), kExitUsage);
  EXPECT_TRUE(Contains(both, "one of them is stale")) << both;
}

TEST(Shards, SayWhatLiesThereInstead) {
  const auto said = [](const Scratch& scratch) {
    const absl::Status status = SafetensorsFolder::Open(scratch.folder()).status();
    EXPECT_EQ(ExitCode(status), kExitMissing) << status;
    return status;
  };
  const Scratch parts, pickle, link;
  WriteRaw(parts.path("model-00001-of-00002.safetensors"), "x");
  EXPECT_TRUE(Contains(said(parts), "model.safetensors.index.json, which names all parts"));
  WriteRaw(pickle.path("pytorch_model.bin"), "x");
  EXPECT_TRUE(Contains(said(pickle), "pytorch_model.bin, which is read nowhere"));
  std::filesystem::create_symlink("../blobs/gone", link.path("model.safetensors"));
  EXPECT_TRUE(Contains(said(link), "is a link to what is not there"));
}

TEST(SafetensorsFile, KnowsAPointerOfGitLfs) {
  const Scratch scratch;
  for (const char* name : {"model.safetensors", "model.safetensors.index.json"}) {
    WriteRaw(scratch.path(name), "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n");
    const absl::Status status = SafetensorsFolder::Open(scratch.folder()).status();
    EXPECT_EQ(ExitCode(status), kExitDamaged);
    EXPECT_TRUE(Contains(status, Concat(name, ": is a Git LFS pointer"))) << status;
  }
}

}  // namespace
}  // namespace moebius
