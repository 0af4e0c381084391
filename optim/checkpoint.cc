#include "optim/checkpoint.h"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <sstream>

#include "core/base/strings.h"
#include "core/io/atomic_file.h"
#include "core/io/file.h"
#include "core/io/json.h"
#include "core/model/weights.h"
#include "optim/stored.h"
#include "optim/stored_slices.h"

namespace moebius {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

constexpr int64_t kFormatVersion = 1;
constexpr const char* kManifest = "manifest.json";
constexpr const char* kState = "trainer_state.json";
constexpr const char* kOptimizer = "optimizer";

// A moment of one piece, or of the elements [first, last) of it that this rank owns.
struct MomentSlice {
  std::string tensor;  // "m.NAME"
  int64_t first = 0;
  int64_t last = 0;
  Shape shape;  // of the whole piece
  TensorView view;

  bool whole() const { return last - first == shape.elements(); }
};

std::vector<MomentSlice> MomentSlices(const AdamWOptimizer& optimizer) {
  std::vector<MomentSlice> out;
  for (const AdamWOptimizer::State& state : optimizer.states()) {
    const int64_t begin = state.slice.offset, end = begin + state.slice.count;
    for (const Piece& piece : state.slice.parameter->spec().pieces) {
      const int64_t from = std::max(begin, piece.offset);
      const int64_t to = std::min(end, piece.offset + piece.shape.elements());
      if (from >= to) continue;
      const auto add = [&](const char* kind, const Tensor& tensor) {
        if (!tensor) return;
        out.push_back({kind + piece.name, from - piece.offset, to - piece.offset, piece.shape,
                       tensor.view().Rows(from - begin, to - from)});
      };
      add("m.", state.m);
      add("v.", state.v);
      add("ema.", state.ema);
    }
  }
  return out;
}

std::vector<Stored> OwnedMoments(const AdamWOptimizer& optimizer) {
  std::vector<Stored> out;
  for (const MomentSlice& slice : MomentSlices(optimizer)) {
    TensorSpec spec{slice.tensor, slice.view.dtype, Dims(slice.shape)};
    if (!slice.whole()) {
      spec.name += Concat("[", slice.first, ":", slice.last, "]");
      spec.shape = {slice.last - slice.first};
    }
    out.push_back({std::move(spec), slice.view});
  }
  std::sort(out.begin(), out.end(),
            [](const Stored& a, const Stored& b) { return a.spec.name < b.spec.name; });
  return out;
}

std::vector<float> ReadView(const Context& context, TensorView from) {
  std::vector<float> values(from.elements());
  Tensor staging;
  TensorView f32 = from;
  if (from.dtype != DType::kF32) {
    staging = Tensor(context.backend, DType::kF32, from.shape);
    context.backend.Cast(context.stream, from, staging);
    f32 = staging;
  }
  context.backend.CopyToHost(context.stream, f32, values.data());
  context.stream.Synchronize();
  return values;
}

void WriteView(const Context& context, TensorView to, const std::vector<float>& values) {
  Tensor staging(context.backend, DType::kF32, to.shape);
  context.backend.CopyToDevice(context.stream, values.data(), staging);
  context.backend.Cast(context.stream, staging, to);
  context.stream.Synchronize();
}

json SpecsJson(const std::vector<Stored>& stored) {
  json out = json::array();
  for (const Stored& s : stored) {
    out.push_back(
        {{"name", s.spec.name}, {"dtype", static_cast<int>(s.spec.dtype)}, {"shape", s.spec.shape}});
  }
  return out;
}

std::vector<TensorSpec> SpecsOf(const std::string& text) {
  std::vector<TensorSpec> out;
  for (const json& s : json::parse(text)) {
    out.push_back(
        {s["name"], static_cast<DType>(s["dtype"].get<int>()), s["shape"].get<std::vector<int64_t>>()});
  }
  return out;
}

// Collective: one set of files with one index, each file written by the rank whose tensors it holds. Adds
// this rank's files.
absl::Status WriteSet(const std::string& folder, const std::string& stem, Trainer& trainer,
                      const std::vector<Stored>& stored, std::vector<WrittenFile>& files) {
  Mesh& mesh = trainer.mesh();
  ASSIGN_OR_RETURN(const std::vector<std::string> lists, mesh.GatherText(SpecsJson(stored).dump()));
  std::vector<ShardPlan> plan;
  std::vector<int> owner;
  for (int r = 0; r < static_cast<int>(lists.size()); ++r) {
    const std::vector<TensorSpec> specs = SpecsOf(lists[r]);
    if (specs.empty() && lists.size() > 1) continue;
    for (ShardPlan& shard : PlanShards(specs, kDefaultShardBytes, stem)) {
      plan.push_back(std::move(shard));
      owner.push_back(r);
    }
  }
  for (size_t i = 0; i < plan.size(); ++i) plan[i].file = ShardFileName(stem, i, plan.size());
  std::map<std::string, TensorView> views;
  for (const Stored& s : stored) views[s.spec.name] = s.view;
  for (size_t i = 0; i < plan.size(); ++i) {
    if (owner[i] != mesh.all().rank()) continue;
    ASSIGN_OR_RETURN(
        WrittenFile file,
        WriteShard(folder, plan[i], [&](const std::string& name) -> absl::StatusOr<std::vector<float>> {
          return ReadView(trainer.context(), views.at(name));
        }));
    files.push_back(std::move(file));
  }
  if (mesh.all().rank() != 0) return absl::OkStatus();
  ASSIGN_OR_RETURN(const std::vector<WrittenFile> index, WriteIndex(folder, plan, stem));
  files.insert(files.end(), index.begin(), index.end());
  return absl::OkStatus();
}

absl::Status LoadMoments(const std::string& folder, Trainer& trainer) {
  ASSIGN_OR_RETURN(const StoredSlices stored, StoredSlices::Open(folder));
  // A fork may begin to average what its parent did not.
  const bool averages = stored.HasKind("ema.");
  for (const MomentSlice& wanted : MomentSlices(trainer.optimizer())) {
    if (!averages && wanted.tensor.starts_with("ema.")) continue;
    ASSIGN_OR_RETURN(const std::vector<float> values,
                     stored.Read(wanted.tensor, wanted.shape.elements(), wanted.first, wanted.last));
    WriteView(trainer.context(), wanted.view, values);
  }
  if (!averages) trainer.optimizer().ResetEma(trainer.context());
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
  if (s.without_signal > 0) o["without_signal"] = s.without_signal;
  // NaN and infinity have no JSON; "none yet" is null.
  o["best_val_loss"] = s.best_step >= 0 ? ordered_json(s.best_val_loss) : ordered_json(nullptr);
  o["best_step"] = s.best_step;
  if (!s.judged_by.empty()) o["judged_by"] = s.judged_by;
  if (s.reference_step >= 0) o["reference_step"] = s.reference_step;
  if (s.proven_step >= 0) o["proven_step"] = s.proven_step;
  if (s.unvalidated) o["unvalidated"] = true;
  o["elapsed_s"] = s.elapsed_s;
  return o;
}

// What transformers' generate() starts and ends with.
std::string GenerationConfigJson(const ModelConfig& config, const std::vector<int32_t>& end_ids) {
  ordered_json o = ordered_json::object();
  if (config.bos_token_id >= 0) o["bos_token_id"] = config.bos_token_id;
  std::vector<int64_t> ends;
  if (config.eos_token_id >= 0) ends.push_back(config.eos_token_id);
  for (const int32_t id : end_ids) {
    if (id != config.eos_token_id) ends.push_back(id);
  }
  if (ends.size() == 1) o["eos_token_id"] = ends[0];
  if (ends.size() > 1) o["eos_token_id"] = ends;
  return DumpJson(o, 2) + "\n";
}

absl::StatusOr<json> ReadManifest(const std::string& folder) {
  const std::string path = JoinPath(folder, kManifest);
  if (FolderExists(folder) && !FileExists(path)) {
    return DamagedError(
        Concat(folder, ": has no manifest.json; it is no whole checkpoint; take another one"));
  }
  ASSIGN_OR_RETURN(json manifest, ReadJsonFile(path, int64_t{64} << 20));
  ASSIGN_OR_RETURN(const int64_t version, GetInt(manifest, "format_version", path));
  if (version != kFormatVersion) {
    return DamagedError(Concat(path, ": format_version is ", version, ", this program reads ", kFormatVersion,
                               "; use the program that wrote it"));
  }
  return manifest;
}

}  // namespace

absl::Status VerifyCheckpoint(const std::string& folder, CheckpointPart part, Mesh& mesh) {
  return mesh.Agree(VerifyCheckpoint(folder, part, mesh.all().rank(), mesh.all().size()));
}

absl::Status VerifyCheckpoint(const std::string& folder, CheckpointPart part, int rank, int ranks) {
  ASSIGN_OR_RETURN(const json manifest, ReadManifest(folder));
  const std::string path = JoinPath(folder, kManifest);
  ASSIGN_OR_RETURN(const json* files, GetObject(manifest, "files", path));
  const auto is_read = [part](const std::string& name) {
    return part != CheckpointPart::kModel || !(name.starts_with(kOptimizer) || name == kState);
  };
  // A file that the manifest has lost would be loaded unseen.
  ASSIGN_OR_RETURN(const std::vector<std::string> there, ListDir(folder));
  for (const std::string& name : there) {
    if ((name.ends_with(".safetensors") || name == kState) && is_read(name) && !files->contains(name)) {
      return DamagedError(Concat(path, ": files: \"", Printable(name),
                                 "\" is not listed, but lies in the folder; ",
                                 "it cannot be verified; move it away, or take another checkpoint"));
    }
  }
  int turn = 0;
  for (const auto& [name, entry] : files->items()) {
    if (!IsPlainFileName(name)) {
      return DamagedError(Concat(path, ": files: \"", Printable(name), "\" is no plain file name"));
    }
    if (!is_read(name) || turn++ % ranks != rank) continue;
    FileHash expected;
    ASSIGN_OR_RETURN(expected.sha256, GetString(entry, "sha256", Concat(path, ": files.", name)));
    ASSIGN_OR_RETURN(expected.bytes, GetInt(entry, "bytes", Concat(path, ": files.", name), 0));
    const absl::Status verified = VerifyFileHash(JoinPath(folder, name), expected);
    if (ExitCode(verified) == kExitMissing) {
      return DamagedError(Concat(path, ": files: \"", name,
                                 "\" is listed and not in the folder; the checkpoint is ",
                                 "not whole; put the file back, or take another checkpoint"));
    }
    RETURN_IF_ERROR(verified);
  }
  return absl::OkStatus();
}

namespace {

absl::Status WriteSmallFiles(const std::string& temporary, const Trainer& trainer,
                             const CheckpointOptions& options, std::vector<WrittenFile>& files) {
  const auto add = [&](const char* name, const std::string& text) -> absl::Status {
    ASSIGN_OR_RETURN(const FileHash hash, WriteFileAtomically(JoinPath(temporary, name), text));
    files.push_back({name, hash});
    return absl::OkStatus();
  };
  ASSIGN_OR_RETURN(WrittenFile config, WriteConfig(temporary, trainer.model_config(), DType::kF32));
  files.push_back(std::move(config));
  RETURN_IF_ERROR(add(kState, DumpJson(StateJson(trainer.state()), 2) + "\n"));
  if (!options.tokenizer_json.empty()) RETURN_IF_ERROR(add("tokenizer.json", options.tokenizer_json));
  if (!options.tokenizer_config_json.empty()) {
    RETURN_IF_ERROR(add("tokenizer_config.json", options.tokenizer_config_json));
  }
  if (!options.chat_template_jinja.empty()) {
    RETURN_IF_ERROR(add("chat_template.jinja", options.chat_template_jinja));
  }
  return add("generation_config.json", GenerationConfigJson(trainer.model_config(), options.end_ids));
}

// A rank's part of a checkpoint, in a folder that is there.
absl::Status WriteParts(const std::string& temporary, Trainer& trainer, const CheckpointOptions& options,
                        std::vector<WrittenFile>& files) {
  // Each is collective: a rank whose disk is full must not leave the others in the second.
  Mesh& mesh = trainer.mesh();
  RETURN_IF_ERROR(mesh.Agree(WriteSet(temporary, "model", trainer, OwnedWeights(trainer), files)));
  RETURN_IF_ERROR(
      mesh.Agree(WriteSet(temporary, kOptimizer, trainer, OwnedMoments(trainer.optimizer()), files)));
  if (trainer.mesh().all().rank() != 0) return absl::OkStatus();
  return WriteSmallFiles(temporary, trainer, options, files);
}

// "name sha256 bytes" a line.
std::string FilesText(const std::vector<WrittenFile>& files) {
  std::string out;
  for (const WrittenFile& file : files)
    out += Concat(file.name, " ", file.hash.sha256, " ", file.hash.bytes, "\n");
  return out;
}

absl::Status WriteManifest(const std::string& temporary, const std::vector<std::string>& lists,
                           const std::string& instruction_set) {
  ordered_json manifest;
  manifest["format_version"] = kFormatVersion;
  manifest["instruction_set"] = instruction_set;
  for (const std::string& list : lists) {
    std::istringstream lines(list);
    std::string name, sha256;
    int64_t bytes = 0;
    while (lines >> name >> sha256 >> bytes) {
      manifest["files"][name] = ordered_json{{"sha256", sha256}, {"bytes", bytes}};
    }
  }
  return WriteFileAtomically(JoinPath(temporary, kManifest), DumpJson(manifest, 2) + "\n").status();
}

// Reads what was written once more, each rank its own: rank 0 alone would read a large model for hours.
absl::Status VerifyFiles(const std::string& folder, const std::vector<WrittenFile>& files) {
  for (const WrittenFile& file : files) {
    RETURN_IF_ERROR(VerifyFileHash(JoinPath(folder, file.name), file.hash));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status SaveCheckpoint(const std::string& folder, Trainer& trainer, const CheckpointOptions& options) {
  Mesh& mesh = trainer.mesh();
  const bool first = mesh.all().rank() == 0;
  RETURN_IF_ERROR(trainer.GatherMasters());
  std::optional<AtomicDirectory> directory;
  absl::Status status;
  if (first) {
    absl::StatusOr<AtomicDirectory> created = AtomicDirectory::Create(folder);
    status = created.status();
    if (created.ok()) directory.emplace(std::move(*created));
  }
  RETURN_IF_ERROR(mesh.Agree(status));
  ASSIGN_OR_RETURN(const std::vector<std::string> paths,
                   mesh.GatherText(directory ? directory->temporary_path() : ""));
  std::vector<WrittenFile> files;
  RETURN_IF_ERROR(mesh.Agree(WriteParts(paths[0], trainer, options, files)));
  RETURN_IF_ERROR(mesh.Agree(VerifyFiles(paths[0], files)));
  ASSIGN_OR_RETURN(const std::vector<std::string> lists, mesh.GatherText(FilesText(files)));
  if (first) {
    status = WriteManifest(paths[0], lists, options.instruction_set);
    if (status.ok()) status = directory->Commit(AtomicDirectory::OnExisting::kReplace);
  }
  return mesh.Agree(status);
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
  ASSIGN_OR_RETURN(s.without_signal, GetIntOr(o, "without_signal", 0, path, 0));
  ASSIGN_OR_RETURN(s.best_val_loss, GetDoubleOr(o, "best_val_loss", s.best_val_loss, path));
  ASSIGN_OR_RETURN(s.best_step, GetInt(o, "best_step", path, -1));
  ASSIGN_OR_RETURN(s.judged_by, GetStringOr(o, "judged_by", "", path));
  ASSIGN_OR_RETURN(s.reference_step, GetIntOr(o, "reference_step", -1, path, -1));
  ASSIGN_OR_RETURN(s.proven_step, GetIntOr(o, "proven_step", -1, path, -1));
  ASSIGN_OR_RETURN(s.unvalidated, GetBoolOr(o, "unvalidated", false, path));
  ASSIGN_OR_RETURN(s.elapsed_s, GetDouble(o, "elapsed_s", path, 0));
  return s;
}

namespace {

absl::Status LoadParts(const std::string& folder, Trainer& trainer, const std::string& instruction_set,
                       std::string* warning) {
  ASSIGN_OR_RETURN(const json manifest, ReadManifest(folder));
  ASSIGN_OR_RETURN(const std::string written_with,
                   GetString(manifest, "instruction_set", JoinPath(folder, kManifest)));
  if (written_with != instruction_set) {
    *warning = Concat(folder, " was written with instruction set ", Printable(written_with),
                      ", this processor uses ", instruction_set,
                      ": the run goes on, but not bit for bit as it would have there");
  }
  ASSIGN_OR_RETURN(const ModelConfig config, LoadConfig(folder));
  // Where texts begin and end is no part of what is trained: a recipe may say it later.
  const auto trained = [](ModelConfig c) {
    c.bos_token_id = c.eos_token_id = -1;
    return ConfigToJson(c, "");
  };
  if (trained(config) != trained(trainer.model_config())) {
    return UsageError(
        Concat(folder,
               " holds another model than the recipe describes; its config.json and the recipe's "
               "model differ; use another run folder (--out) or the original model"));
  }
  const Context& context = trainer.context();
  for (Model* model : trainer.stages().models()) {
    RETURN_IF_ERROR(LoadWeights(folder, context.backend, context.stream, *model));
  }
  RETURN_IF_ERROR(LoadMoments(folder, trainer));
  ASSIGN_OR_RETURN(trainer.state(), ReadTrainerState(folder));
  return absl::OkStatus();
}

}  // namespace

absl::Status LoadCheckpoint(const std::string& folder, Trainer& trainer, const std::string& instruction_set,
                            std::string* warning) {
  warning->clear();
  Mesh& mesh = trainer.mesh();
  // Between them the ranks read every byte; then each reads what it needs of files that are known to be
  // whole.
  RETURN_IF_ERROR(VerifyCheckpoint(folder, CheckpointPart::kAll, mesh));
  return mesh.Agree(LoadParts(folder, trainer, instruction_set, warning));
}

}  // namespace moebius
