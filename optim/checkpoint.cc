#include "optim/checkpoint.h"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "core/base/strings.h"
#include "core/io/atomic_file.h"
#include "core/io/json.h"
#include "core/model/weights.h"

namespace moebius {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

constexpr int64_t kFormatVersion = 1;
constexpr const char* kManifest = "manifest.json";
constexpr const char* kState = "trainer_state.json";

// A tensor of the optimizer: one piece of one moment.
struct Slice {
  TensorView view;  // the moment, flat
  int64_t offset;
  Shape shape;
};

std::map<std::string, Slice> Slices(const AdamWOptimizer& optimizer) {
  std::map<std::string, Slice> out;
  for (const AdamWOptimizer::State& state : optimizer.states()) {
    for (const Piece& piece : state.parameter->spec().pieces) {
      const auto add = [&](const char* kind, const Tensor& tensor) {
        if (!tensor) return;
        const TensorView view = tensor;
        out[kind + piece.name] = {view.Reshape({view.elements()}), piece.offset, piece.shape};
      };
      add("m.", state.m);
      add("v.", state.v);
      add("ema.", state.ema);
    }
  }
  return out;
}

std::vector<float> ReadSlice(Backend& backend, Stream& stream, const Slice& slice) {
  const TensorView from = slice.view.Rows(slice.offset, slice.shape.elements());
  std::vector<float> values(from.elements());
  Tensor staging;
  TensorView f32 = from;
  if (from.dtype != DType::kF32) {
    staging = Tensor(backend, DType::kF32, from.shape);
    backend.Cast(stream, from, staging);
    f32 = staging;
  }
  backend.CopyToHost(stream, f32, values.data());
  stream.Synchronize();
  return values;
}

void WriteSlice(Backend& backend, Stream& stream, const Slice& slice, const std::vector<float>& values) {
  const TensorView to = slice.view.Rows(slice.offset, slice.shape.elements());
  Tensor staging(backend, DType::kF32, to.shape);
  backend.CopyToDevice(stream, values.data(), staging);
  backend.Cast(stream, staging, to);
  stream.Synchronize();
}

absl::StatusOr<std::vector<WrittenFile>> SaveOptimizer(const std::string& folder,
                                                       const AdamWOptimizer& optimizer, Backend& backend,
                                                       Stream& stream) {
  const std::map<std::string, Slice> slices = Slices(optimizer);
  std::vector<TensorSpec> specs;
  for (const auto& [name, slice] : slices) {
    TensorSpec spec{name, slice.view.dtype, {}};
    for (int i = 0; i < slice.shape.rank(); ++i) spec.shape.push_back(slice.shape[i]);
    specs.push_back(std::move(spec));
  }
  return WriteTensors(
      folder, specs,
      [&](const std::string& name) -> absl::StatusOr<std::vector<float>> {
        return ReadSlice(backend, stream, slices.at(name));
      },
      "optimizer");
}

absl::Status LoadOptimizer(const std::string& folder, const AdamWOptimizer& optimizer, Backend& backend,
                           Stream& stream) {
  ASSIGN_OR_RETURN(const SafetensorsFolder files, SafetensorsFolder::Open(folder, "optimizer"));
  for (const auto& [name, slice] : Slices(optimizer)) {
    const TensorInfo* info = files.Find(name);
    if (info == nullptr || info->elements() != slice.shape.elements()) {
      return DamagedError(
          Concat(folder, ": optimizer tensor ", name, info == nullptr ? " is missing" : " has another size",
                 "; the checkpoint belongs to another recipe (optimizer.ema_decay?) or model"));
    }
    ASSIGN_OR_RETURN(const std::vector<float> values, ReadTensorF32(files, folder, name));
    WriteSlice(backend, stream, slice, values);
  }
  return absl::OkStatus();
}

ordered_json StateJson(const TrainerState& s) {
  ordered_json o;
  o["step"] = s.step;
  o["updates"] = s.updates;
  o["sequences"] = s.sequences;
  o["tokens"] = s.tokens;
  o["skipped_steps"] = s.skipped_steps;
  o["bad_in_a_row"] = s.bad_in_a_row;
  // NaN and infinity have no JSON; "none yet" is null.
  o["best_val_loss"] = s.best_step >= 0 ? ordered_json(s.best_val_loss) : ordered_json(nullptr);
  o["best_step"] = s.best_step;
  o["elapsed_s"] = s.elapsed_s;
  return o;
}

// What transformers' generate() starts and ends with.
std::string GenerationConfigJson(const ModelConfig& config) {
  ordered_json o = ordered_json::object();
  if (config.bos_token_id >= 0) o["bos_token_id"] = config.bos_token_id;
  if (config.eos_token_id >= 0) o["eos_token_id"] = config.eos_token_id;
  return DumpJson(o, 2) + "\n";
}

absl::StatusOr<json> ReadManifest(const std::string& folder) {
  const std::string path = JoinPath(folder, kManifest);
  ASSIGN_OR_RETURN(json manifest, ReadJsonFile(path, int64_t{64} << 20));
  ASSIGN_OR_RETURN(const int64_t version, GetInt(manifest, "format_version", path));
  if (version != kFormatVersion) {
    return DamagedError(Concat(path, ": format_version is ", version, ", this program reads ", kFormatVersion,
                               "; use the program that wrote it"));
  }
  return manifest;
}

}  // namespace

absl::Status VerifyCheckpoint(const std::string& folder) {
  ASSIGN_OR_RETURN(const json manifest, ReadManifest(folder));
  const std::string path = JoinPath(folder, kManifest);
  ASSIGN_OR_RETURN(const json* files, GetObject(manifest, "files", path));
  for (const auto& [name, entry] : files->items()) {
    if (!IsPlainFileName(name)) {
      return DamagedError(Concat(path, ": files: \"", Printable(name), "\" is no plain file name"));
    }
    FileHash expected;
    ASSIGN_OR_RETURN(expected.sha256, GetString(entry, "sha256", Concat(path, ": files.", name)));
    ASSIGN_OR_RETURN(expected.bytes, GetInt(entry, "bytes", Concat(path, ": files.", name), 0));
    RETURN_IF_ERROR(VerifyFileHash(JoinPath(folder, name), expected));
  }
  return absl::OkStatus();
}

absl::Status SaveCheckpoint(const std::string& folder, const Trainer& trainer, Backend& backend,
                            Stream& stream, const CheckpointOptions& options) {
  ASSIGN_OR_RETURN(AtomicDirectory directory, AtomicDirectory::Create(folder));
  const std::string& temporary = directory.temporary_path();
  ASSIGN_OR_RETURN(std::vector<WrittenFile> files,
                   SaveWeights(temporary, backend, stream, trainer.model(), DType::kF32));
  ASSIGN_OR_RETURN(const std::vector<WrittenFile> moments,
                   SaveOptimizer(temporary, trainer.optimizer(), backend, stream));
  files.insert(files.end(), moments.begin(), moments.end());
  const auto add = [&](const char* name, const std::string& text) -> absl::Status {
    ASSIGN_OR_RETURN(const FileHash hash, WriteFileAtomically(JoinPath(temporary, name), text));
    files.push_back({name, hash});
    return absl::OkStatus();
  };
  RETURN_IF_ERROR(add(kState, DumpJson(StateJson(trainer.state()), 2) + "\n"));
  if (!options.tokenizer_json.empty()) RETURN_IF_ERROR(add("tokenizer.json", options.tokenizer_json));
  if (!options.tokenizer_config_json.empty()) {
    RETURN_IF_ERROR(add("tokenizer_config.json", options.tokenizer_config_json));
  }
  RETURN_IF_ERROR(add("generation_config.json", GenerationConfigJson(trainer.model().config())));
  ordered_json manifest;
  manifest["format_version"] = kFormatVersion;
  manifest["instruction_set"] = options.instruction_set;
  for (const WrittenFile& file : files) {
    manifest["files"][file.name] = ordered_json{{"sha256", file.hash.sha256}, {"bytes", file.hash.bytes}};
  }
  RETURN_IF_ERROR(WriteFileAtomically(JoinPath(temporary, kManifest), DumpJson(manifest, 2) + "\n").status());
  RETURN_IF_ERROR(VerifyCheckpoint(temporary));
  return directory.Commit(AtomicDirectory::OnExisting::kReplace);
}

absl::StatusOr<TrainerState> ReadTrainerState(const std::string& folder) {
  const std::string path = JoinPath(folder, kState);
  ASSIGN_OR_RETURN(const json o, ReadJsonFile(path, int64_t{1} << 20));
  TrainerState s;
  ASSIGN_OR_RETURN(s.step, GetInt(o, "step", path, 0));
  ASSIGN_OR_RETURN(s.updates, GetInt(o, "updates", path, 0));
  ASSIGN_OR_RETURN(s.sequences, GetInt(o, "sequences", path, 0));
  ASSIGN_OR_RETURN(s.tokens, GetInt(o, "tokens", path, 0));
  ASSIGN_OR_RETURN(s.skipped_steps, GetInt(o, "skipped_steps", path, 0));
  ASSIGN_OR_RETURN(s.bad_in_a_row, GetInt(o, "bad_in_a_row", path, 0));
  ASSIGN_OR_RETURN(s.best_val_loss, GetDoubleOr(o, "best_val_loss", s.best_val_loss, path));
  ASSIGN_OR_RETURN(s.best_step, GetInt(o, "best_step", path, -1));
  ASSIGN_OR_RETURN(s.elapsed_s, GetDouble(o, "elapsed_s", path, 0));
  return s;
}

absl::Status LoadCheckpoint(const std::string& folder, Trainer& trainer, Backend& backend, Stream& stream,
                            const std::string& instruction_set, std::string* warning) {
  warning->clear();
  RETURN_IF_ERROR(VerifyCheckpoint(folder));
  ASSIGN_OR_RETURN(const json manifest, ReadManifest(folder));
  ASSIGN_OR_RETURN(const std::string written_with,
                   GetString(manifest, "instruction_set", JoinPath(folder, kManifest)));
  if (written_with != instruction_set) {
    *warning = Concat(folder, " was written with instruction set ", Printable(written_with),
                      ", this processor uses ", instruction_set,
                      ": the run goes on, but not bit for bit as it would have there");
  }
  ASSIGN_OR_RETURN(const ModelConfig config, LoadConfig(folder));
  if (ConfigToJson(config, "") != ConfigToJson(trainer.model().config(), "")) {
    return UsageError(
        Concat(folder,
               " holds another model than the recipe describes; its config.json and the recipe's "
               "model differ; use another run folder (--out) or the original model"));
  }
  RETURN_IF_ERROR(LoadWeights(folder, backend, stream, trainer.model()));
  RETURN_IF_ERROR(LoadOptimizer(folder, trainer.optimizer(), backend, stream));
  ASSIGN_OR_RETURN(trainer.state(), ReadTrainerState(folder));
  return absl::OkStatus();
}

}  // namespace moebius
