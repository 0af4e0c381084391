#include "core/io/safetensors_shards.h"

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <utility>

#include "core/base/check.h"
#include "core/base/status.h"
#include "core/base/strings.h"
#include "core/io/atomic_file.h"
#include "core/io/json.h"

namespace moebius {
namespace {

constexpr int64_t kMaxIndexBytes = 256 << 20;
constexpr size_t kMaxShards = 99999;  // what five digits can name

std::string IndexName(std::string_view stem) { return Concat(stem, ".safetensors.index.json"); }

// Of a folder without an index and without the single file.
absl::Status NoWeights(const std::string& folder, std::string_view stem) {
  const std::string shown = Printable(folder, 400), file = Concat(stem, ".safetensors");
  if (!FolderExists(folder))
    return MissingError(Concat("no folder ", shown, "; ", WhyAbsent(folder), "; name a folder with a model"));
  std::error_code none;
  for (const std::string& name : {file, IndexName(stem)}) {
    if (!std::filesystem::is_symlink(JoinPath(folder, name), none)) continue;
    return MissingError(
        Concat(JoinPath(shown, name), " is a link to what is not there; fetch the file again"));
  }
  ASSIGN_OR_RETURN(const std::vector<std::string> names, ListDir(folder));
  for (const std::string& name : names) {
    if (name.starts_with(Concat(stem, "-")) && name.ends_with(".safetensors"))
      return MissingError(Concat(shown, " holds ", Printable(name), " but not ", IndexName(stem),
                                 ", which names all parts; fetch it too"));
    if (name.starts_with("pytorch_model") && name.ends_with(".bin"))
      return MissingError(Concat(shown, " holds ", Printable(name),
                                 ", which is read nowhere (a pickle, which may run programs); save it with "
                                 "transformers as safetensors"));
  }
  return MissingError(
      Concat(shown, " holds neither ", file, " nor ", IndexName(stem), "; name a folder with a model"));
}

}  // namespace

std::string ShardFileName(std::string_view stem, size_t index, size_t count) {
  CHECK_LE(count, kMaxShards);
  char number[32] = "";
  if (count > 1) std::snprintf(number, sizeof number, "-%05zu-of-%05zu", index + 1, count);
  return Concat(stem, number, ".safetensors");
}

std::vector<ShardPlan> PlanShards(const std::vector<TensorSpec>& tensors, int64_t max_bytes,
                                  std::string_view stem) {
  CHECK_GT(max_bytes, 0);
  std::vector<ShardPlan> shards(1);
  int64_t bytes = 0;
  for (const TensorSpec& tensor : tensors) {
    if (!shards.back().tensors.empty() && tensor.bytes() > max_bytes - bytes) {
      shards.emplace_back();
      bytes = 0;
    }
    shards.back().tensors.push_back(tensor);
    bytes += tensor.bytes();
  }
  for (size_t i = 0; i < shards.size(); ++i) shards[i].file = ShardFileName(stem, i, shards.size());
  return shards;
}

absl::Status WriteShardIndex(const std::string& folder, const std::vector<ShardPlan>& shards,
                             std::string_view stem) {
  if (shards.size() <= 1) return absl::OkStatus();
  nlohmann::json files = nlohmann::json::object();
  int64_t total = 0;
  for (const ShardPlan& shard : shards) {
    for (const TensorSpec& tensor : shard.tensors) {
      CHECK(files.emplace(tensor.name, shard.file).second) << "tensor " << tensor.name << " is planned twice";
      total += tensor.bytes();
    }
  }
  const nlohmann::json index = {{"metadata", {{"total_size", total}}}, {"weight_map", std::move(files)}};
  return WriteFileAtomically(JoinPath(folder, IndexName(stem)), DumpJson(index, 2) + "\n").status();
}

absl::StatusOr<SafetensorsFolder> SafetensorsFolder::Open(const std::string& folder, std::string_view stem) {
  SafetensorsFolder out;
  out.folder_ = folder;
  const std::string index_path = JoinPath(folder, IndexName(stem));
  if (!FileExists(index_path)) {
    const std::string path = JoinPath(folder, Concat(stem, ".safetensors"));
    if (!FileExists(path)) return NoWeights(folder, stem);
    ASSIGN_OR_RETURN(SafetensorsFile file, SafetensorsFile::Open(path));
    for (const TensorInfo& tensor : file.tensors()) out.file_of_.emplace(tensor.name, 0);
    out.files_.push_back(std::move(file));
  } else {
    ASSIGN_OR_RETURN(const nlohmann::json index, ReadJsonFile(index_path, kMaxIndexBytes));
    ASSIGN_OR_RETURN(const nlohmann::json* map, GetObject(index, "weight_map", index_path));
    std::map<std::string, size_t> opened;  // file name -> position
    for (const auto& item : map->items()) {
      ASSIGN_OR_RETURN(const std::string name,
                       GetString(*map, item.key(), Concat(index_path, ": weight_map")));
      if (!IsPlainFileName(name)) {
        return DamagedError(Concat(index_path, ": weight_map: field \"", Printable(item.key()), "\" is \"",
                                   Printable(name), "\", not the name of a file in this folder"));
      }
      const auto [at, is_new] = opened.try_emplace(name, out.files_.size());
      if (is_new) {
        if (!FileExists(JoinPath(folder, name))) {
          return MissingError(Concat(index_path, " lists ", Printable(name),
                                     ", which is not there; the folder is incomplete; fetch that file"));
        }
        auto file = SafetensorsFile::Open(JoinPath(folder, name));
        if (!file.ok()) return Annotate(file.status(), Concat(index_path, " lists ", Printable(name)));
        out.files_.push_back(std::move(file).value());
      }
      const SafetensorsFile& file = out.files_[at->second];
      if (file.Find(item.key()) == nullptr) {
        return DamagedError(Concat(file.path(), ": lacks tensor ", Printable(item.key()), ", which ",
                                   IndexName(stem), " says it holds"));
      }
      out.file_of_.emplace(item.key(), at->second);
    }
    const std::string single = Concat(stem, ".safetensors");
    if (FileExists(JoinPath(folder, single)) && !opened.contains(single)) {
      return UsageError(Concat(Printable(folder, 400), " holds ", single, " and ", IndexName(stem),
                               ", which names other files; one of them is stale; remove it"));
    }
    for (const SafetensorsFile& file : out.files_) {
      for (const TensorInfo& tensor : file.tensors()) {
        if (out.file_of_.contains(tensor.name)) continue;
        return DamagedError(Concat(file.path(), ": holds tensor ", Printable(tensor.name), ", which ",
                                   IndexName(stem), " does not list; fetch both again"));
      }
    }
  }
  for (const auto& [name, position] : out.file_of_) out.names_.push_back(name);
  std::sort(out.names_.begin(), out.names_.end());
  return out;
}

const TensorInfo* SafetensorsFolder::Find(std::string_view name) const {
  const auto at = file_of_.find(std::string(name));
  return at == file_of_.end() ? nullptr : files_[at->second].Find(name);
}

const SafetensorsFile& SafetensorsFolder::FileOf(std::string_view name) const {
  const auto at = file_of_.find(std::string(name));
  CHECK(at != file_of_.end()) << "no tensor " << name << " in " << folder_;
  return files_[at->second];
}

absl::Status SafetensorsFolder::Read(std::string_view name, int64_t offset, std::span<std::byte> out) const {
  const TensorInfo* tensor = Find(name);
  if (tensor == nullptr) return MissingError(Concat(folder_, ": has no tensor ", Printable(name)));
  return FileOf(name).Read(*tensor, offset, out);
}

absl::StatusOr<std::span<const std::byte>> SafetensorsFolder::Mapped(std::string_view name) const {
  const TensorInfo* tensor = Find(name);
  if (tensor == nullptr) return MissingError(Concat(folder_, ": has no tensor ", Printable(name)));
  return FileOf(name).Mapped(*tensor);
}

}  // namespace moebius
