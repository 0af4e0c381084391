// Models that the Python packages wrote, rewritten byte for byte. Needs /work/shared.
#include <gtest/gtest.h>

#include <filesystem>

#include "core/base/status.h"
#include "core/base/strings.h"
#include "core/io/safetensors.h"
#include "core/io/safetensors_shards.h"
#include "core/io/safetensors_writer.h"
#include "tests/core/io/scratch.h"

namespace moebius {
namespace {

TEST(GoldenSafetensors, EveryModelIsReadAndRewrittenToTheSameBytes) {
  int num_files = 0;
  for (const auto& entry :
       std::filesystem::directory_iterator(Concat(MOEBIUS_SHARED_DIR, "/golden/models"))) {
    const auto folder = SafetensorsFolder::Open(entry.path() / "model");
    ASSERT_TRUE(folder.ok()) << folder.status();
    for (const SafetensorsFile& file : folder->files()) {
      const Scratch scratch;
      std::vector<TensorSpec> specs;
      for (const TensorInfo& tensor : file.tensors())
        specs.push_back({tensor.name, *tensor.dtype, tensor.shape});
      auto writer = SafetensorsWriter::Create(scratch.path("copy"), specs, file.metadata());
      ASSERT_TRUE(writer.ok());
      for (const TensorSpec& spec : writer->order()) {
        ASSERT_TRUE(writer->Append(spec.name, file.Mapped(*file.Find(spec.name))).ok());
      }
      ASSERT_TRUE(writer->Commit().ok());
      EXPECT_TRUE(ReadRaw(scratch.path("copy")) == ReadRaw(file.path())) << file.path();
      ++num_files;
    }
  }
  EXPECT_GE(num_files, 12);
}

}  // namespace
}  // namespace moebius
