// A set of tensors over several safetensors files in one folder, with Hugging Face's index: STEM.safetensors
// alone, or STEM-00001-of-00003.safetensors ... beside STEM.safetensors.index.json.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/io/safetensors.h"
#include "core/io/safetensors_writer.h"

namespace moebius {

inline constexpr int64_t kDefaultShardBytes = 5'000'000'000;

struct ShardPlan {
  std::string file;  // name in the folder
  std::vector<TensorSpec> tensors;
};

// "STEM-00001-of-00003.safetensors" for file 0 of 3, "STEM.safetensors" for a single one.
std::string ShardFileName(std::string_view stem, size_t index, size_t count);

// Fills files with the tensors in the given order up to max_bytes of data each (a larger tensor gets a file
// of its own). No tensors give one empty file. Write each with SafetensorsWriter, then WriteShardIndex.
std::vector<ShardPlan> PlanShards(const std::vector<TensorSpec>& tensors,
                                  int64_t max_bytes = kDefaultShardBytes, std::string_view stem = "model");

// Writes FOLDER/STEM.safetensors.index.json, or nothing when there is a single shard.
absl::Status WriteShardIndex(const std::string& folder, const std::vector<ShardPlan>& shards,
                             std::string_view stem = "model");

// The tensors of a folder, whatever the number of files.
class SafetensorsFolder {
 public:
  // Reads the index or the single file. UsageError where both are there and the index names other files, for
  // one of them is stale; MissingError naming the file that is missing and what is there instead;
  // DamagedError when the index names tensors that its files lack, or files outside the folder, or not all
  // tensors.
  static absl::StatusOr<SafetensorsFolder> Open(const std::string& folder, std::string_view stem = "model");

  const std::vector<std::string>& names() const { return names_; }  // sorted
  const std::vector<SafetensorsFile>& files() const { return files_; }
  bool Has(std::string_view name) const { return Find(name) != nullptr; }
  const TensorInfo* Find(std::string_view name) const;  // null when absent
  // The file that holds `name`; CHECK when absent.
  const SafetensorsFile& FileOf(std::string_view name) const;
  // Bytes [offset, offset + out.size()) of a tensor. MissingError naming folder and tensor when absent.
  absl::Status Read(std::string_view name, int64_t offset, std::span<std::byte> out) const;
  absl::StatusOr<std::span<const std::byte>> Mapped(std::string_view name) const;

 private:
  std::string folder_;
  std::vector<SafetensorsFile> files_;
  std::unordered_map<std::string, size_t> file_of_;  // tensor -> position in files_
  std::vector<std::string> names_;
};

}  // namespace moebius
