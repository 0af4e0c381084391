// What we write, read by h5py and by safetensors' own Python package. Exists only where that interpreter
// does.
#include <gtest/gtest.h>

#include "core/base/status.h"
#include "core/io/hdf5_file.h"
#include "core/io/safetensors_shards.h"
#include "core/io/safetensors_writer.h"
#include "tests/core/io/scratch.h"

namespace moebius {
namespace {

TEST(Oracle, H5pyReadsOurFiles) {
  const Scratch scratch;
  auto writer = Hdf5Writer::Create(scratch.path("a.h5"));
  ASSERT_TRUE(writer.ok());
  ASSERT_TRUE(writer->CreateDataset("tokens", DType::kU16, {.chunk_elements = 1000}).ok());
  ASSERT_TRUE(
      writer->CreateDataset("packed/values", DType::kF32, {.chunk_elements = 100, .gzip_level = 4}).ok());
  ASSERT_TRUE(writer->CreateDataset("document_starts", DType::kI64).ok());
  for (int i = 0; i < 5000; ++i) {
    const uint16_t token = i * 3;
    const float value = 0.5f * i;
    ASSERT_TRUE(writer->Append("tokens", std::span<const uint16_t>(&token, 1)).ok());
    ASSERT_TRUE(writer->Append("packed/values", std::span<const float>(&value, 1)).ok());
  }
  const int64_t starts[] = {0, 7, 4000};
  ASSERT_TRUE(writer->Append("document_starts", std::span<const int64_t>(starts)).ok());
  ASSERT_TRUE(writer->WriteBytes("tokenizer_json", "{}").ok());
  ASSERT_TRUE(writer->SetAttribute("vocab_size", 32000).ok());
  ASSERT_TRUE(writer->SetAttribute("ratio", 0.5).ok());
  ASSERT_TRUE(writer->SetAttribute("tokenizer_sha256", "é").ok());
  ASSERT_TRUE(writer->Commit().ok());
  EXPECT_EQ(RunPython(R"(
import h5py, numpy as np
f = h5py.File("a.h5")
assert sorted(f) == ["document_starts", "packed", "tokenizer_json", "tokens"]
assert f["tokens"].dtype == np.uint16 and (f["tokens"][:] == np.arange(5000) * 3).all()
assert f["packed/values"].compression == "gzip" and (f["packed/values"][:] == np.arange(5000) * 0.5).all()
assert f["document_starts"].dtype == np.int64 and list(f["document_starts"]) == [0, 7, 4000]
assert bytes(f["tokenizer_json"][:]) == b"{}"
assert f.attrs["vocab_size"] == 32000 and f.attrs["vocab_size"].dtype == np.int64
assert f.attrs["ratio"] == 0.5 and f.attrs["tokenizer_sha256"] == "\u00e9"
print("fine")
)",
                      scratch),
            "fine\n");
}

TEST(Oracle, SafetensorsWritesTheBytesThatWeWrite) {
  const Scratch scratch;
  std::vector<TensorSpec> specs;
  for (const DType dtype :
       {DType::kBool, DType::kU8, DType::kI8, DType::kF8E5M2, DType::kF8E4M3, DType::kI16, DType::kU16,
        DType::kF16, DType::kBF16, DType::kI32, DType::kU32, DType::kF32, DType::kF64, DType::kI64}) {
    specs.push_back({"b." + std::string(Name(dtype)), dtype, {2, 3}});
    specs.push_back({"a." + std::string(Name(dtype)), dtype, {1}});
  }
  auto writer = SafetensorsWriter::Create(scratch.path("ours"), specs);
  ASSERT_TRUE(writer.ok());
  for (const TensorSpec& spec : writer->order()) {
    const std::string bytes(spec.bytes(), '\x01');
    ASSERT_TRUE(writer->Append(spec.name, std::as_bytes(std::span(bytes))).ok());
  }
  ASSERT_TRUE(writer->Commit().ok());
  EXPECT_EQ(RunPython(R"(
import numpy as np
from safetensors import TensorSpec, deserialize, serialize
raw = open("ours", "rb").read()
names = {"BOOL": "bool", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "F16": "float16", "BF16": "bfloat16", "F32": "float32",
         "F64": "float64"}
keep, tensors = [], {}
for name, t in deserialize(raw):
    d = t["dtype"]
    keep.append(np.frombuffer(bytes(t["data"]), dtype=np.uint8))
    tensors[name] = TensorSpec(dtype=names.get(d) or d.replace("U", "uint").replace("I", "int"), shape=t["shape"],
                               data_ptr=keep[-1].ctypes.data, data_len=keep[-1].nbytes)
assert len(tensors) == 28, len(tensors)
theirs = serialize(tensors, {"format": "pt"})
assert bytes(theirs) == raw
print("fine")
)",
                      scratch),
            "fine\n");
}

TEST(Oracle, SafetensorsReadsOurShards) {
  const Scratch scratch;
  const std::vector<ShardPlan> shards = PlanShards({{"a", DType::kF32, {4}}, {"b", DType::kF32, {4}}}, 16);
  for (const ShardPlan& shard : shards) {
    auto writer = SafetensorsWriter::Create(scratch.path(shard.file), shard.tensors);
    const float values[4] = {1, 2, 3, 4};
    ASSERT_TRUE(writer->Append(shard.tensors[0].name, std::as_bytes(std::span(values))).ok());
    ASSERT_TRUE(writer->Commit().ok());
  }
  ASSERT_TRUE(WriteShardIndex(scratch.folder(), shards).ok());
  EXPECT_EQ(RunPython(R"(
import json
from safetensors import safe_open
index = json.load(open("model.safetensors.index.json"))
assert index == {"metadata": {"total_size": 32}, "weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
for name, file in index["weight_map"].items():
    with safe_open(file, "np") as f:
        assert f.metadata() == {"format": "pt"} and list(f.get_tensor(name)) == [1, 2, 3, 4]
print("fine")
)",
                      scratch),
            "fine\n");
}

}  // namespace
}  // namespace moebius
