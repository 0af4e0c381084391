#include "core/model/model_folder.h"

#include <nlohmann/json.hpp>

#include "core/base/strings.h"
#include "core/io/file.h"
#include "core/io/json.h"

namespace moebius {

absl::StatusOr<std::vector<int32_t>> EndOfTextIds(const std::string& folder, const ModelConfig& config) {
  std::vector<int32_t> ids;
  if (config.eos_token_id >= 0) ids.push_back(static_cast<int32_t>(config.eos_token_id));
  const std::string path = JoinPath(folder, "generation_config.json");
  if (!FileExists(path)) return ids;
  ASSIGN_OR_RETURN(const nlohmann::json json, ReadJsonFile(path, int64_t{1} << 20));
  if (!HasJsonField(json, "eos_token_id")) return ids;
  std::vector<int64_t> more;
  if (json["eos_token_id"].is_array()) {
    ASSIGN_OR_RETURN(more, GetIntArray(json, "eos_token_id", path, 0, config.vocab_size - 1));
  } else {
    ASSIGN_OR_RETURN(more.emplace_back(), GetInt(json, "eos_token_id", path, 0, config.vocab_size - 1));
  }
  ids.insert(ids.end(), more.begin(), more.end());
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
