#include "core/model/model_folder.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/base/strings.h"
#include "core/io/file.h"
#include "core/io/json.h"

namespace moebius {

absl::StatusOr<std::vector<int32_t>> EndOfTextIds(const std::string& folder, const ModelConfig& config) {
  std::vector<int32_t> ids;
  const auto add = [&ids](int64_t id) {
    if (id >= 0 && std::find(ids.begin(), ids.end(), id) == ids.end())
      ids.push_back(static_cast<int32_t>(id));
  };
  add(config.eos_token_id);
  for (const char* name : {"config.json", "generation_config.json"}) {
    const std::string path = JoinPath(folder, name);
    if (!FileExists(path)) continue;
    ASSIGN_OR_RETURN(const nlohmann::json json, ReadJsonFile(path, int64_t{16} << 20));
    if (!HasJsonField(json, "eos_token_id")) continue;
    if (json["eos_token_id"].is_array()) {
      ASSIGN_OR_RETURN(const std::vector<int64_t> more,
                       GetIntArray(json, "eos_token_id", path, 0, config.vocab_size - 1));
      for (const int64_t id : more) add(id);
    } else if (!json["eos_token_id"].is_null()) {
      ASSIGN_OR_RETURN(const int64_t one, GetInt(json, "eos_token_id", path, -1, config.vocab_size - 1));
      add(one);
    }
  }
  return ids;
}

absl::StatusOr<DType> ComputeTypeOf(const std::string& choice, const std::string& folder) {
  if (choice == "fp32") return DType::kF32;
  if (choice == "bf16") return DType::kBF16;
  ASSIGN_OR_RETURN(const nlohmann::json json,
                   ReadJsonFile(JoinPath(folder, "config.json"), int64_t{16} << 20));
  for (const char* field : {"dtype", "torch_dtype"}) {
    if (!HasJsonField(json, field) || !json[field].is_string()) continue;
    return json[field] == "float32" ? DType::kF32 : DType::kBF16;
  }
  return DType::kF32;
}

}  // namespace moebius
