#include "core/model/convert.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "core/base/strings.h"
#include "core/io/atomic_file.h"
#include "core/io/json.h"
#include "core/model/model_folder.h"
#include "core/model/weights.h"

namespace moebius {
namespace {

// What travels beside the weights, unchanged.
constexpr const char* kCompanions[] = {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
                                       "generation_config.json", "chat_template.jinja",
                                       // Read by transformers alone.
                                       "tokenizer.model", "vocab.json", "merges.txt", "added_tokens.json",
                                       "chat_template.json"};

DType StoredAs(DType source) {
  switch (source) {
    case DType::kBF16:
      return DType::kBF16;
    default:  // a scaled FP8 number needs more bits than bf16 has
      return DType::kF32;
  }
}

// True if the folder lacks every tensor of the MTP layers.
bool LacksMtp(const ModelConfig& config, const SafetensorsFolder& files) {
  return std::none_of(files.names().begin(), files.names().end(), [&](const std::string& name) {
    for (int64_t k = 0; k < config.num_nextn_predict_layers; ++k) {
      if (name.starts_with(Concat("model.layers.", config.num_hidden_layers + k, "."))) return true;
    }
    return false;
  });
}

int64_t NumMtpModules(const SafetensorsFolder& files) {
  return std::count_if(files.names().begin(), files.names().end(),
                       [](const std::string& name) { return name.ends_with(".eh_proj.weight"); });
}

// What `name` is a copy of in an MTP module; itself where it is none.
std::string OriginalOf(const std::string& name, const ModelConfig& config) {
  if (name.ends_with(".embed_tokens.weight")) return "model.embed_tokens.weight";
  if (name.ends_with(".shared_head.head.weight")) {
    return config.tie_word_embeddings ? "model.embed_tokens.weight" : "lm_head.weight";
  }
  return name;
}

// The tensor of `files` that holds `name`: itself, or what it is a copy of.
std::string SourceOf(const std::string& name, const SafetensorsFolder& files, const ModelConfig& config) {
  return files.Has(name) ? name : OriginalOf(name, config);
}

float Rounded(float value, DType dtype) {
  return dtype == DType::kBF16 ? BF16::FromFloat(value).ToFloat() : value;
}

// `not_finite` becomes the first tensor with a NaN or infinity.
absl::Status CheckWritten(const std::string& folder, const std::vector<TensorSpec>& specs,
                          const TensorReader& read, std::string* not_finite) {
  ASSIGN_OR_RETURN(const SafetensorsFolder written, SafetensorsFolder::Open(folder));
  for (const TensorSpec& spec : specs) {
    ASSIGN_OR_RETURN(const std::vector<float> wanted, read(spec.name));
    ASSIGN_OR_RETURN(const std::vector<float> found, ReadTensorF32(written, folder, spec.name));
    const bool same = found.size() == wanted.size() &&
                      std::equal(wanted.begin(), wanted.end(), found.begin(), [&](float a, float b) {
                        const float r = Rounded(a, spec.dtype);
                        return r == b || (r != r && b != b);
                      });
    if (not_finite->empty() &&
        !std::all_of(found.begin(), found.end(), [](float value) { return std::isfinite(value); }))
      *not_finite = spec.name;
    if (!same)
      return CannotWriteError(
          Concat(folder, ": tensor ", spec.name, " reads back differently; the disk is unreliable"));
  }
  return absl::OkStatus();
}

// Every tensor is there in its shape, and none would be dropped.
absl::Status CheckTensors(const std::string& from, const SafetensorsFolder& files, const ModelConfig& config,
                          const std::vector<TensorSpec>& specs) {
  std::set<std::string> wanted;
  for (const TensorSpec& spec : specs) {
    const std::string source = SourceOf(spec.name, files, config);
    const TensorInfo* info = files.Find(source);
    if (info == nullptr) {
      return DamagedError(
          Concat(from, ": tensor ", source, " is missing; the checkpoint is incomplete or of another model"));
    }
    wanted.insert({spec.name, source});
    if (info->shape != spec.shape) {
      return DamagedError(Concat(from, ": tensor ", source,
                                 " does not have the shape that config.json asks for; the weights "
                                 "belong to another model"));
    }
  }
  return CheckAllWanted(from, files, config, wanted);
}

bool IsSelectionBias(const TensorSpec& spec) { return spec.name.ends_with("e_score_correction_bias"); }

absl::Status CheckAbsent(const std::string& to) {
  if (FileExists(to) || FolderExists(to)) {
    return CannotWriteError(
        Concat("cannot write ", to, "; it exists already; name a new folder or remove it"));
  }
  return absl::OkStatus();
}

// config.json of ours has room for one end of texts: what else the folder names is in generation_config.json,
// as it is or with all ends written in.
absl::Status KeepEnds(const std::string& from, const ModelConfig& config,
                      std::map<std::string, std::string>& companions) {
  const std::string name = "generation_config.json";
  ASSIGN_OR_RETURN(const std::vector<int32_t> ends, EndOfTextIds(from, config));
  nlohmann::ordered_json json = nlohmann::ordered_json::object(), own;
  if (companions.contains(name)) {
    RETURN_IF_ERROR(ParseJson(companions[name], JoinPath(from, name)).status());
    json = nlohmann::ordered_json::parse(companions[name]);  // in its own order
    if (!json.is_object()) return absl::OkStatus();
    own = json.value("eos_token_id", own);
  }
  const bool kept = std::all_of(ends.begin(), ends.end(), [&](int32_t id) {
    const bool listed = own.is_array() && std::find(own.begin(), own.end(), id) != own.end();
    return id == config.eos_token_id || listed || own == id;
  });
  if (kept) return absl::OkStatus();
  json["eos_token_id"] = ends;
  companions[name] = DumpJson(json, 2) + "\n";
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ConvertResult> ConvertCheckpoint(const std::string& from, const std::string& to,
                                                const ConvertOptions& options) {
  ASSIGN_OR_RETURN(ModelConfig config, LoadConfig(from));
  ASSIGN_OR_RETURN(const SafetensorsFolder files, SafetensorsFolder::Open(from));
  RETURN_IF_ERROR(CheckAbsent(to));
  bool mtp_dropped = false;
  if (config.num_nextn_predict_layers > 0 && LacksMtp(config, files)) {
    config.num_nextn_predict_layers = 0;
    mtp_dropped = true;
  }
  std::vector<TensorSpec> specs = CheckpointTensors(config, options.dtype.value_or(DType::kF32));
  RETURN_IF_ERROR(CheckTensors(from, files, config, specs));
  for (TensorSpec& spec : specs) {
    const TensorInfo& info = *files.Find(SourceOf(spec.name, files, config));
    if (!options.dtype && !IsSelectionBias(spec)) spec.dtype = StoredAs(info.dtype.value_or(DType::kF32));
  }
  CheckpointContent content{
      .config = config, .tensors = specs, .read = nullptr, .manifest = options.manifest};
  content.read = [&](const std::string& name) -> absl::StatusOr<std::vector<float>> {
    // Averages are kept of originals only.
    const std::string source = options.weights ? OriginalOf(name, config) : SourceOf(name, files, config);
    if (options.weights) {
      ASSIGN_OR_RETURN(std::vector<float> values, options.weights(source));
      if (!values.empty() && static_cast<int64_t>(values.size()) != files.Find(source)->elements()) {
        return DamagedError(Concat(from, ": the averaged ", source, " has ", values.size(),
                                   " elements, the weight ", files.Find(source)->elements(),
                                   "; the checkpoint is damaged"));
      }
      if (!values.empty()) return values;
    }
    return ReadTensorF32(files, from, source);
  };
  for (const char* name : kCompanions) {
    if (!FileExists(JoinPath(from, name))) continue;
    ASSIGN_OR_RETURN(content.companions[name], ReadFile(JoinPath(from, name), int64_t{256} << 20));
  }
  RETURN_IF_ERROR(KeepEnds(from, config, content.companions));
  ASSIGN_OR_RETURN(ConvertResult result, WriteCheckpointFolder(to, content));
  result.mtp_dropped = mtp_dropped;
  result.mtp_unnamed = NumMtpModules(files) > config.num_nextn_predict_layers;
  return result;
}

absl::StatusOr<ConvertResult> WriteCheckpointFolder(const std::string& to, const CheckpointContent& content) {
  RETURN_IF_ERROR(CheckAbsent(to));
  ConvertResult result{.tensors = std::ssize(content.tensors)};
  bool wide = false;
  for (const TensorSpec& spec : content.tensors) {
    result.bytes += spec.bytes();
    wide = wide || (spec.dtype != DType::kBF16 && !IsSelectionBias(spec));
  }
  RETURN_IF_ERROR(MakeDirs(ParentPath(to)));
  ASSIGN_OR_RETURN(AtomicDirectory directory, AtomicDirectory::Create(to));
  const std::string& temporary = directory.temporary_path();
  ASSIGN_OR_RETURN(std::vector<WrittenFile> written,
                   WriteTensors(temporary, content.tensors, content.read, "model"));
  RETURN_IF_ERROR(CheckWritten(temporary, content.tensors, content.read, &result.not_finite));
  std::map<std::string, std::string> texts = content.companions;
  texts["config.json"] = ConfigToJson(content.config, wide ? "float32" : "bfloat16");
  for (const auto& [name, text] : texts) {
    ASSIGN_OR_RETURN(const FileHash hash, WriteFileAtomically(JoinPath(temporary, name), text));
    written.push_back({name, hash});
  }
  if (content.manifest) {
    nlohmann::ordered_json manifest;
    manifest["format_version"] = 1;
    for (const WrittenFile& file : written) {
      manifest["files"][file.name] =
          nlohmann::ordered_json{{"sha256", file.hash.sha256}, {"bytes", file.hash.bytes}};
    }
    RETURN_IF_ERROR(
        WriteFileAtomically(JoinPath(temporary, "manifest.json"), DumpJson(manifest, 2) + "\n").status());
  }
  RETURN_IF_ERROR(directory.Commit());
  return result;
}

}  // namespace moebius
