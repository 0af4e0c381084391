#include "core/model/weights.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <set>

#include "core/base/strings.h"

namespace moebius {
namespace {

constexpr int64_t kScaleBlock = 128;  // FP8 weights share one scale per 128 x 128 block

std::vector<int64_t> Dims(const Shape& shape) {
  std::vector<int64_t> dims(shape.rank());
  for (int i = 0; i < shape.rank(); ++i) dims[i] = shape[i];
  return dims;
}

template <typename From, typename Convert>
std::vector<float> Converted(std::span<const std::byte> bytes, Convert convert) {
  std::vector<float> out(bytes.size() / sizeof(From));
  for (size_t i = 0; i < out.size(); ++i) {
    From value;
    std::memcpy(&value, bytes.data() + i * sizeof(From), sizeof(From));
    out[i] = convert(value);
  }
  return out;
}

absl::StatusOr<std::vector<float>> Dequantise(const SafetensorsFolder& folder, const std::string& source,
                                              const TensorInfo& info, std::span<const std::byte> bytes) {
  std::vector<float> out = Converted<uint8_t>(bytes, F8E4M3ToFloat);
  const std::string scale_name = info.name + "_scale_inv";
  const TensorInfo* scale_info = folder.Find(scale_name);
  if (scale_info == nullptr || info.shape.size() != 2) {
    return DamagedError(Concat(source, ": tensor ", info.name, " is FP8 without its block scales; ",
                               scale_name, " is missing; fetch the whole checkpoint"));
  }
  const int64_t rows = info.shape[0], cols = info.shape[1];
  const int64_t row_blocks = (rows + kScaleBlock - 1) / kScaleBlock,
                col_blocks = (cols + kScaleBlock - 1) / kScaleBlock;
  if (scale_info->shape != std::vector<int64_t>{row_blocks, col_blocks}) {
    return DamagedError(Concat(source, ": tensor ", scale_name,
                               " does not have one scale per 128 x 128 block: expected [", row_blocks, ", ",
                               col_blocks, "]"));
  }
  ASSIGN_OR_RETURN(const std::vector<float> scales, ReadTensorF32(folder, source, scale_name));
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < cols; ++c)
      out[r * cols + c] *= scales[r / kScaleBlock * col_blocks + c / kScaleBlock];
  }
  return out;
}

// True for a tensor of an MTP module, which a model may leave out; other layers beyond the config's are no
// modules: the config is of another model.
bool IsOfMtpModule(const std::string& name, const SafetensorsFolder& files, const ModelConfig& config) {
  const std::string prefix = "model.layers.";
  if (!name.starts_with(prefix)) return false;
  const int64_t layer = std::atoll(name.c_str() + prefix.size());
  return layer >= config.num_hidden_layers && files.Has(Concat(prefix, layer, ".eh_proj.weight"));
}

absl::Status CheckShape(const std::string& source, const TensorInfo& info, const Shape& wanted) {
  if (info.shape == Dims(wanted)) return absl::OkStatus();
  std::vector<std::string> found;
  for (const int64_t dim : info.shape) found.push_back(std::to_string(dim));
  return DamagedError(Concat(source, ": tensor ", info.name, " has shape [", Join(found),
                             "], but the model (config.json, or what the recipe says over it) asks for ",
                             wanted, "; the weights belong to another model"));
}

// True for a tensor with a row for each token, of which the folder may have fewer than the model.
bool HasTokenRows(const TensorInfo& info, const Shape& wanted) {
  const bool by_token = info.name == "model.embed_tokens.weight" || info.name == "lm_head.weight";
  return by_token && info.shape.size() == 2 && info.shape[0] > 0 && info.shape[0] <= wanted[0] &&
         info.shape[1] == wanted[1];
}

// Makes `values` [rows, columns] `wanted` rows, those from `first` on the mean of the others.
void SetMeanRows(int64_t first, int64_t wanted, int64_t columns, std::vector<float>* values) {
  const int64_t rows = std::min<int64_t>(first, std::ssize(*values) / columns);
  std::vector<double> sums(columns, 0.0);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < columns; ++c) sums[c] += (*values)[r * columns + c];
  }
  values->resize(rows * columns);
  values->reserve(wanted * columns);
  for (int64_t r = rows; r < wanted; ++r) {
    for (const double sum : sums) values->push_back(static_cast<float>(sum / static_cast<double>(rows)));
  }
}

}  // namespace

namespace {

// A head that the folder stores although config.json ties it to the embedding.
absl::Status CheckTied(const std::string& folder, const SafetensorsFolder& files) {
  const char *head = "lm_head.weight", *embedding = "model.embed_tokens.weight";
  ASSIGN_OR_RETURN(const std::vector<float> a, ReadTensorF32(files, folder, head));
  ASSIGN_OR_RETURN(const std::vector<float> b, ReadTensorF32(files, folder, embedding));
  if (a == b) return absl::OkStatus();
  return DamagedError(Concat(folder, ": config.json says tie_word_embeddings, but ", head, " differs from ",
                             embedding,
                             ", so the model has a head of its own; set tie_word_embeddings to false there"));
}

}  // namespace

absl::StatusOr<ModelConfig> LoadConfig(const std::string& folder) {
  const std::string path = JoinPath(folder, "config.json");
  if (!FileExists(path)) {
    if (FileExists(folder) && folder.ends_with(".gguf")) {
      return MissingError(
          Concat(folder, ": is a file; make it a model's folder first: moebius import ", folder, " OUT"));
    }
    return MissingError(
        Concat(folder, FolderExists(folder) ? " has no config.json" : ": " + WhyAbsent(folder),
               "; a model is a Hugging Face folder or a checkpoint of a run that has saved one; check the "
               "path"));
  }
  ASSIGN_OR_RETURN(const std::string text, ReadFile(path, int64_t{16} << 20));
  return ConfigFromJson(text, path);
}

absl::StatusOr<std::vector<float>> ReadTensorF32(const SafetensorsFolder& folder, const std::string& source,
                                                 const std::string& name) {
  const TensorInfo* info = folder.Find(name);
  if (info != nullptr && info->dtype == DType::kF8E4M3) {
    std::vector<std::byte> bytes(info->bytes);
    RETURN_IF_ERROR(folder.Read(name, 0, bytes));
    return Dequantise(folder, source, *info, bytes);
  }
  return ReadElementsF32(folder, source, name, 0, info != nullptr ? info->elements() : 0);
}

absl::StatusOr<std::vector<float>> ReadElementsF32(const SafetensorsFolder& folder, const std::string& source,
                                                   const std::string& name, int64_t first, int64_t count) {
  const TensorInfo* info = folder.Find(name);
  if (info == nullptr) {
    return DamagedError(
        Concat(source, ": tensor ", name, " is missing; the checkpoint is incomplete or of another model"));
  }
  const bool known = info->dtype == DType::kF32 || info->dtype == DType::kBF16 || info->dtype == DType::kF16;
  if (!known) {
    return DamagedError(Concat(source, ": tensor ", name, " has type ", info->dtype_name,
                               "; weights are read from F32, BF16, F16 and F8_E4M3"));
  }
  CHECK_LE(first + count, info->elements()) << name;
  std::vector<std::byte> bytes(count * SizeOf(*info->dtype));
  RETURN_IF_ERROR(folder.Read(name, first * SizeOf(*info->dtype), bytes));
  if (info->dtype == DType::kF32) return Converted<float>(bytes, [](float v) { return v; });
  if (info->dtype == DType::kF16) return Converted<uint16_t>(bytes, F16ToFloat);
  return Converted<uint16_t>(bytes, [](uint16_t v) { return BF16{v}.ToFloat(); });
}

absl::Status LoadWeights(const std::string& folder, Backend& backend, Stream& stream, Model& model,
                         const LoadOptions& load) {
  ASSIGN_OR_RETURN(const SafetensorsFolder files, SafetensorsFolder::Open(folder));
  std::set<std::string> wanted;
  const ModelOptions& options = model.options();
  const bool whole = options.stage.embedding && options.stage.head && options.experts.count < 0;
  if (!whole) {
    for (const TensorSpec& spec : CheckpointTensors(model.config(), DType::kF32)) wanted.insert(spec.name);
  }
  for (const PieceAlias& alias : model.aliases()) wanted.insert(alias.name);
  for (const auto& parameter : model.parameters().all()) {
    for (const Piece& piece : parameter->spec().pieces) {
      wanted.insert(piece.name);
      if (parameter->spec().mtp && files.Find(piece.name) == nullptr) {
        return DamagedError(
            Concat(folder, ": config.json promises MTP modules (num_nextn_predict_layers), but ", piece.name,
                   " is missing (transformers saves none); set "
                   "model.num_nextn_predict_layers to 0, or make a folder without by moebius import"));
      }
      ASSIGN_OR_RETURN(std::vector<float> values, ReadTensorF32(files, folder, piece.name));
      const TensorInfo& info = *files.Find(piece.name);
      if (load.first_new_token && HasTokenRows(info, piece.shape)) {
        SetMeanRows(*load.first_new_token, piece.shape[0], piece.shape[1], &values);
      } else {
        RETURN_IF_ERROR(CheckShape(folder, info, piece.shape));
      }
      SetParameter(backend, stream, *parameter, piece.offset, values);
    }
  }
  return CheckAllWanted(folder, files, model.config(), wanted);
}

absl::Status CheckAllWanted(const std::string& folder, const SafetensorsFolder& files,
                            const ModelConfig& config, const std::set<std::string>& wanted) {
  constexpr std::string_view kScales = "_scale_inv";
  constexpr size_t kShown = 3;
  std::vector<std::string> shown;
  size_t unwanted = 0;
  for (const std::string& name : files.names()) {
    const bool scales = name.ends_with(kScales);
    if (wanted.contains(scales ? name.substr(0, name.size() - kScales.size()) : name)) continue;
    if (name.ends_with("rotary_emb.inv_freq") || IsOfMtpModule(name, files, config)) continue;
    if (name == "lm_head.weight" && config.tie_word_embeddings) {
      RETURN_IF_ERROR(CheckTied(folder, files));
      continue;
    }
    if (++unwanted <= kShown) shown.push_back(Printable(name));
  }
  if (unwanted == 0) return absl::OkStatus();
  return DamagedError(Concat(folder, ": tensor", unwanted > 1 ? "s " : " ", Join(shown),
                             unwanted > kShown ? Concat(" and ", unwanted - kShown, " more") : "",
                             unwanted > 1 ? " have" : " has", " no place in a model of type ",
                             config.model_type,
                             " with this config.json; the weights belong to another model; "
                             "fetch the config.json that came with them"));
}

namespace {

absl::Status CheckWeightsFit(const ModelConfig& config, Backend& backend, Stream& stream,
                             ModelOptions options) {
  options.allocate = false;
  options.make_exchange = nullptr;
  const Model shapes(config, backend, stream, options);
  double bytes = 0;
  for (const auto& p : shapes.parameters().all()) {
    const DType dtype = p->spec().keep_f32 ? DType::kF32 : options.storage.act;
    bytes += static_cast<double>(p->shape().elements() * SizeOf(dtype));
  }
  const auto free = static_cast<double>(backend.free_bytes());
  if (free == 0 || bytes <= free) return absl::OkStatus();
  return UnavailableError(Concat("the weights take ", HumanBytes(bytes), " as ", Name(options.storage.act),
                                 ", ", backend.Name(), " has ", HumanBytes(free), " free; ",
                                 options.storage.act == DType::kF32 ? "compute in bf16, or use" : "use",
                                 " a machine with more memory"));
}

}  // namespace

absl::StatusOr<LoadedModel> LoadModel(const std::string& folder, Backend& backend, Stream& stream,
                                      const ModelOptions& options) {
  LoadedModel out;
  ASSIGN_OR_RETURN(out.config, LoadConfig(folder));
  RETURN_IF_ERROR(CheckRouter(out.config, backend.router_limits(), backend.Name()));
  RETURN_IF_ERROR(Annotate(CheckWeightsFit(out.config, backend, stream, options), folder));
  out.model = std::make_unique<Model>(out.config, backend, stream, options);
  RETURN_IF_ERROR(LoadWeights(folder, backend, stream, *out.model));
  return out;
}

std::vector<TensorSpec> CheckpointTensors(const ModelConfig& config, DType dtype) {
  const std::unique_ptr<Backend> backend = MakeCpuBackend({.threads = 1});
  const std::unique_ptr<Stream> stream = backend->NewStream(StreamKind::kCompute);
  ModelOptions options;
  options.allocate = false;
  const Model model(config, *backend, *stream, options);
  std::vector<TensorSpec> out;
  std::map<std::string, TensorSpec> by_name;
  for (const auto& parameter : model.parameters().all()) {
    for (const Piece& piece : parameter->spec().pieces) {
      const TensorSpec spec{piece.name, parameter->spec().trainable ? dtype : DType::kF32, Dims(piece.shape)};
      out.push_back(spec);
      by_name[piece.name] = spec;
    }
  }
  for (const PieceAlias& alias : model.aliases()) {
    TensorSpec spec = by_name.at(alias.of);
    spec.name = alias.name;
    out.push_back(spec);
  }
  return out;
}

absl::StatusOr<WrittenFile> WriteShard(const std::string& folder, const ShardPlan& shard,
                                       const TensorReader& read) {
  ASSIGN_OR_RETURN(SafetensorsWriter writer,
                   SafetensorsWriter::Create(JoinPath(folder, shard.file), shard.tensors));
  for (const TensorSpec& spec : writer.order()) {
    ASSIGN_OR_RETURN(const std::vector<float> values, read(spec.name));
    if (spec.dtype == DType::kF32) {
      RETURN_IF_ERROR(writer.Append(spec.name, std::as_bytes(std::span(values))));
      continue;
    }
    CHECK(spec.dtype == DType::kBF16) << spec.dtype;
    std::vector<BF16> rounded(values.size());
    std::transform(values.begin(), values.end(), rounded.begin(), BF16::FromFloat);
    RETURN_IF_ERROR(writer.Append(spec.name, std::as_bytes(std::span(rounded))));
  }
  ASSIGN_OR_RETURN(const FileHash hash, writer.Commit());
  return WrittenFile{shard.file, hash};
}

absl::StatusOr<std::vector<WrittenFile>> WriteIndex(const std::string& folder,
                                                    const std::vector<ShardPlan>& shards,
                                                    const std::string& stem) {
  RETURN_IF_ERROR(WriteShardIndex(folder, shards, stem));
  const std::string index = stem + ".safetensors.index.json";
  if (!FileExists(JoinPath(folder, index))) return std::vector<WrittenFile>();
  ASSIGN_OR_RETURN(const FileHash hash, HashFile(JoinPath(folder, index)));
  return std::vector<WrittenFile>{{index, hash}};
}

absl::StatusOr<std::vector<WrittenFile>> WriteTensors(const std::string& folder,
                                                      const std::vector<TensorSpec>& tensors,
                                                      const TensorReader& read, const std::string& stem) {
  const std::vector<ShardPlan> shards = PlanShards(tensors, kDefaultShardBytes, stem);
  std::vector<WrittenFile> written;
  for (const ShardPlan& shard : shards) {
    ASSIGN_OR_RETURN(WrittenFile file, WriteShard(folder, shard, read));
    written.push_back(std::move(file));
  }
  ASSIGN_OR_RETURN(const std::vector<WrittenFile> index, WriteIndex(folder, shards, stem));
  written.insert(written.end(), index.begin(), index.end());
  return written;
}

absl::StatusOr<WrittenFile> WriteConfig(const std::string& folder, const ModelConfig& config, DType dtype) {
  ASSIGN_OR_RETURN(const FileHash hash,
                   WriteFileAtomically(JoinPath(folder, "config.json"),
                                       ConfigToJson(config, dtype == DType::kF32 ? "float32" : "bfloat16")));
  return WrittenFile{"config.json", hash};
}

absl::StatusOr<std::vector<WrittenFile>> SaveWeights(const std::string& folder, Backend& backend,
                                                     Stream& stream, const Model& model, DType dtype) {
  struct Place {
    const Parameter* parameter;
    const Piece* piece;
  };
  std::map<std::string, Place> places;
  for (const auto& parameter : model.parameters().all()) {
    for (const Piece& piece : parameter->spec().pieces) places[piece.name] = {parameter.get(), &piece};
  }
  for (const PieceAlias& alias : model.aliases()) places[alias.name] = places.at(alias.of);
  ASSIGN_OR_RETURN(std::vector<WrittenFile> written,
                   WriteTensors(
                       folder, CheckpointTensors(model.config(), dtype),
                       [&](const std::string& name) -> absl::StatusOr<std::vector<float>> {
                         const Place& place = places.at(name);
                         return GetParameter(backend, stream, *place.parameter, place.piece->offset,
                                             place.piece->shape.elements());
                       },
                       "model"));
  ASSIGN_OR_RETURN(WrittenFile file, WriteConfig(folder, model.config(), dtype));
  written.push_back(std::move(file));
  return written;
}

}  // namespace moebius
