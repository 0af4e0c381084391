#include "launch/inspect_files.h"

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <map>

#include "core/base/strings.h"
#include "core/io/file.h"
#include "core/io/safetensors_shards.h"
#include "core/model/cost.h"
#include "core/model/weights.h"
#include "data/token_file.h"
#include "launch/recipe.h"
#include "launch/recipe.pb.h"
#include "launch/train/resolve_model.h"
#include "optim/checkpoint.h"

namespace moebius {
namespace {

void PrintCost(const ModelConfig& c, int64_t length) {
  const ModelCost cost = CostOf(c, length);
  const auto line = [](const char* what, const std::string& value) {
    std::printf("  %-12s %s\n", what, value.c_str());
  };
  line("model", Concat(c.model_type, ", ", c.num_hidden_layers, " layers of width ", c.hidden_size, ", ",
                       c.num_attention_heads, " heads, vocabulary ", WithCommas(c.vocab_size)));
  if (c.n_routed_experts > 0) {
    line("experts", Concat(c.n_routed_experts, " routed (", c.num_experts_per_tok, " a token) + ",
                           c.n_shared_experts, " shared, width ", c.moe_intermediate_size));
  }
  line("parameters",
       Concat(WithCommas(cost.parameters), " stored, ", WithCommas(cost.active), " active a token"));
  char text[160];
  std::snprintf(text, sizeof text, "%.4g GFLOP a token trained (causal, sequences of %lld)",
                cost.train_flops / 1e9, static_cast<long long>(length));
  line("compute", text);
  if (c.num_nextn_predict_layers > 0) {
    std::snprintf(text, sizeof text, "%s more parameters in %lld module(s), %.4g GFLOP a token with them",
                  WithCommas(cost.mtp_parameters).c_str(), static_cast<long long>(c.num_nextn_predict_layers),
                  (cost.train_flops + cost.train_flops_mtp) / 1e9);
    line("MTP", text);
  }
  line("cache", Concat(WithCommas(cost.kv_bytes), " bytes a token in bf16"));
}

absl::Status PrintTensors(const std::string& path) {
  ASSIGN_OR_RETURN(const SafetensorsFolder files, SafetensorsFolder::Open(path));
  std::map<std::string, std::pair<int64_t, int64_t>> by_type;  // tensors, bytes
  for (const std::string& name : files.names()) {
    const TensorInfo& info = *files.Find(name);
    auto& [tensors, bytes] = by_type[info.dtype_name];
    ++tensors;
    bytes += info.bytes;
  }
  for (const auto& [type, sum] : by_type) {
    std::printf("  %-12s %s tensors of %s, %s in %zu file(s)\n", "weights", WithCommas(sum.first).c_str(),
                type.c_str(), HumanBytes(static_cast<double>(sum.second)).c_str(), files.files().size());
  }
  return absl::OkStatus();
}

}  // namespace

bool IsModelFolder(const std::string& path) {
  return FolderExists(path) && FileExists(JoinPath(path, "config.json"));
}

absl::Status PrintModelFolder(const std::string& path) {
  ASSIGN_OR_RETURN(const ModelConfig config, LoadConfig(path));
  std::printf("%s\n", path.c_str());
  PrintCost(config, std::min<int64_t>(config.max_position_embeddings, 4096));
  ASSIGN_OR_RETURN(const std::vector<std::string> names, ListDir(path));
  const bool some = std::any_of(names.begin(), names.end(), [](const std::string& name) {
    return name.starts_with("model-") && name.ends_with(".safetensors");
  });
  if (FileExists(JoinPath(path, "model.safetensors")) ||
      FileExists(JoinPath(path, "model.safetensors.index.json"))) {
    RETURN_IF_ERROR(PrintTensors(path));
  } else {
    std::printf(
        "  %-12s none here: %s\n", "weights",
        some ? "model.safetensors.index.json, which names the parts, is missing" : "no model.safetensors");
  }
  // Others write files of these names too.
  const bool ours = FileExists(JoinPath(path, "manifest.json"));
  if (ours && FileExists(JoinPath(path, "trainer_state.json"))) {
    ASSIGN_OR_RETURN(const TrainerState state, ReadTrainerState(path));
    std::printf("  %-12s step %s, %s tokens, %s skipped\n", "training", WithCommas(state.step).c_str(),
                WithCommas(state.tokens).c_str(), WithCommas(state.skipped_steps).c_str());
  }
  if (ours) {
    RETURN_IF_ERROR(VerifyCheckpoint(path));
    std::printf("  %-12s every file has the hash that manifest.json records\n", "verified");
  }
  return absl::OkStatus();
}

bool IsRecipeFile(const std::string& path) { return path.ends_with(".textproto") && FileExists(path); }

// What is not trained on anything yet.
bool IsModelAlone(const proto::Recipe& r) {
  return r.data().train().empty() && r.data().mixture_size() == 0 && r.tokenizer().empty() &&
         r.init().from().empty() && !r.has_problems() && !r.has_sft();
}

absl::Status PrintRecipeFile(const std::string& path) {
  absl::StatusOr<Recipe> loaded = Recipe::Load(path, {});
  if (!loaded.ok()) {
    auto unchecked = Recipe::LoadUnchecked(path);
    if (unchecked.ok() && IsModelAlone(unchecked->proto())) loaded = std::move(unchecked);
  }
  ASSIGN_OR_RETURN(Recipe recipe, std::move(loaded));
  if (recipe.proto().task() == proto::PIPELINE) {
    std::printf("%s\n", path.c_str());
    for (const proto::Stage& stage : recipe.proto().stage()) {
      std::printf("  stage %s: %s, beside this file\n", Printable(stage.name()).c_str(),
                  Printable(stage.recipe()).c_str());
    }
    return absl::OkStatus();
  }
  const proto::Recipe& r = recipe.proto();
  if (r.model().vocab_size() == 0 && IsModelAlone(r)) {
    return UsageError(Concat(path,
                             ": model.vocab_size is not set, and no data, tokenizer or init.from says how "
                             "many words there are; set it, or inspect a recipe that names its data"));
  }
  ASSIGN_OR_RETURN(const ModelConfig config, ResolveModel(recipe));
  std::printf("%s\n", path.c_str());
  PrintCost(config, std::clamp<int64_t>(r.batch().sequence_length(), 1, config.max_position_embeddings));
  return absl::OkStatus();
}

bool IsDataFolder(const std::string& path) {
  return FolderExists(path) && FileExists(JoinPath(path, "manifest.json")) &&
         FileExists(JoinPath(path, "tokenizer.json")) && !FileExists(JoinPath(path, "config.json"));
}

absl::Status PrintDataFolder(const std::string& path) {
  ASSIGN_OR_RETURN(const std::vector<std::string> names, ListDir(path));
  for (const std::string& name : names) {
    const std::string file = JoinPath(path, name);
    if (IsTokenFile(file)) RETURN_IF_ERROR(PrintTokenFile(file));
  }
  return absl::OkStatus();
}

bool IsTokenFile(const std::string& path) {
  if (!FileExists(path)) return false;
  char magic[8] = {};
  std::ifstream(path, std::ios::binary).read(magic, sizeof magic);
  return path.ends_with(".h5") || std::string_view(magic, sizeof magic) == "\x89HDF\r\n\x1a\n";
}

absl::Status PrintTokenFile(const std::string& path) {
  if (FileName(path).starts_with("rollout-")) {
    return UsageError(
        Concat(path, ": is an archive of sampled answers (rl.archive_every_steps) and no token file; ",
               "read it with h5py"));
  }
  ASSIGN_OR_RETURN(const std::unique_ptr<TokenFile> file, TokenFile::Open(path));
  const TokenFileInfo& info = file->info();
  std::printf("%s\n  %-12s %s in %s documents, vocabulary %s\n", path.c_str(), "tokens",
              WithCommas(file->num_tokens()).c_str(),
              WithCommas(static_cast<int64_t>(file->document_starts().size())).c_str(),
              WithCommas(info.vocab_size).c_str());
  std::printf("  %-12s %s bytes, %.3f a token\n", "text", WithCommas(info.bytes).c_str(),
              static_cast<double>(info.bytes) / static_cast<double>(file->num_tokens()));
  std::printf("  %-12s %s\n", "tokenizer", info.tokenizer_json.empty() ? "not in the file" : "in the file");
  if (!info.tokenizer_sha256.empty())
    std::printf("  %-12s %s\n", "its SHA-256", Printable(info.tokenizer_sha256).c_str());
  return absl::OkStatus();
}

}  // namespace moebius
