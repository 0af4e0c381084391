#include "launch/train/resolve_model.h"

#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "core/base/status.h"
#include "core/base/strings.h"
#include "core/io/file.h"
#include "core/model/weights.h"
#include "data/special_tokens.h"
#include "data/token_file.h"
#include "launch/recipe.pb.h"
#include "launch/run_folder.h"
#include "launch/train/sources.h"

namespace moebius {
namespace {

// The checkpoint's config is what others read its limits from.
absl::Status CheckLimits(const proto::Recipe& r, const ModelConfig& config) {
  if (r.batch().sequence_length() > config.max_position_embeddings) {
    return UsageError(
        Concat("batch.sequence_length is ", r.batch().sequence_length(),
               " and model.max_position_embeddings ", config.max_position_embeddings,
               "; score and generate will not take longer texts than that; raise the second or shorten the "
               "sequences"));
  }
  for (const auto& [name, id] :
       {std::pair("bos", config.bos_token_id), std::pair("eos", config.eos_token_id)}) {
    if (id < config.vocab_size) continue;
    return UsageError(Concat("model.", name, "_token_id is ", id, " of ", config.vocab_size,
                             " tokens; ids end before model.vocab_size; correct it"));
  }
  return absl::OkStatus();
}

// The token file whose tokenizer a run on texts has.
std::string FirstTexts(const proto::Recipe& r) {
  return r.data().mixture().empty() ? r.data().train() : r.data().mixture(0).path();
}

// A new model begins and ends its texts as the tokenizer of its data does. Data that is not there yet is no
// error: a run can be planned before its data is built.
absl::Status FillEndsOfTexts(Recipe& recipe) {
  const proto::Model& said = recipe.proto().model();
  const std::string path = FirstTexts(recipe.proto());
  if ((said.has_bos_token_id() && said.has_eos_token_id()) || !FileExists(path)) return absl::OkStatus();
  ASSIGN_OR_RETURN(const std::unique_ptr<TokenFile> file, TokenFile::Open(path));
  if (file->info().tokenizer_json.empty()) return absl::OkStatus();
  const std::string source = path + ": /tokenizer_json";
  ASSIGN_OR_RETURN(const Tokenizer tokenizer, Tokenizer::FromJson(file->info().tokenizer_json, source));
  proto::Model model;
  // In token files a document begins behind the end of another: no other token begins texts.
  if (const auto end = FindEndOfDocument(tokenizer))
    model.set_bos_token_id(*end), model.set_eos_token_id(*end);
  // A model with fewer tokens than its data is refused where the data is opened.
  if (tokenizer.vocab_size() > said.vocab_size()) return absl::OkStatus();
  return recipe.FillModel(model, source);
}

absl::StatusOr<ModelConfig> ModelOf(Recipe& recipe) {
  const bool begins = !recipe.proto().init().has_from() || recipe.proto().init().random();
  if (recipe.proto().init().has_from()) {
    const absl::StatusOr<ModelConfig> found = LoadConfig(recipe.proto().init().from());
    if (ExitCode(found.status()) == kExitMissing) {
      return MissingError(Concat(recipe.Where("init.from"), found.status().message(),
                                 "; the recipe's first lines may say how it is made"));
    }
    ASSIGN_OR_RETURN(const ModelConfig from, found);
    proto::Model model;
    ConfigToProto(from, &model);
    if (recipe.proto().init().random()) {  // it ends texts as its own tokenizer does
      model.clear_bos_token_id();
      model.clear_eos_token_id();
    }
    RETURN_IF_ERROR(recipe.FillModel(model, JoinPath(recipe.proto().init().from(), "config.json")));
  }
  if (recipe.proto().task() == proto::PRETRAIN) {
    if (begins) RETURN_IF_ERROR(FillEndsOfTexts(recipe));
    return ConfigFromProto(recipe.proto().model());
  }
  // Every token has its row: new ones, and all of a model that is made for the tokenizer. Such a model also
  // ends its texts as the tokenizer does.
  ASSIGN_OR_RETURN(const std::string json, TokenizerJsonOf(recipe.proto()));
  ASSIGN_OR_RETURN(const Tokenizer tokenizer, Tokenizer::FromJson(json, "the tokenizer"));
  if (!recipe.proto().init().has_from()) {
    const proto::Model& said = recipe.proto().model();
    if (said.has_vocab_size() && said.vocab_size() < tokenizer.vocab_size()) {
      return UsageError(Concat("model.vocab_size is ", said.vocab_size(), ", and the tokenizer has ",
                               tokenizer.vocab_size(),
                               " tokens; each needs a row of its own; raise it, or leave it out"));
    }
    proto::Model model;
    model.set_vocab_size(tokenizer.vocab_size());
    RETURN_IF_ERROR(recipe.FillModel(model, "the tokenizer"));
  }
  if (const std::optional<int32_t> end = FindEndOfDocument(tokenizer); begins && end) {
    proto::Model model;
    model.set_eos_token_id(*end);
    RETURN_IF_ERROR(recipe.FillModel(model, "the tokenizer"));
  }
  if (recipe.proto().model().vocab_size() < tokenizer.vocab_size())
    recipe.SetVocabSize(tokenizer.vocab_size(), "the tokenizer");
  return ConfigFromProto(recipe.proto().model());
}

}  // namespace

absl::Status CheckTextsExist(const proto::Recipe& r) {
  const std::string path = FirstTexts(r);
  if (r.task() != proto::PRETRAIN || FileExists(path)) return absl::OkStatus();
  return TokenFile::Open(path).status();
}

absl::StatusOr<ModelConfig> ResolveModelOfRun(Recipe& recipe, const std::string& run_folder) {
  const std::string from = recipe.proto().init().from();
  const proto::Fork& fork = recipe.proto().fork();
  if (from.empty() || FolderExists(from)) return ResolveModel(recipe);
  std::string checkpoint = JoinPath(run_folder, "checkpoints/latest");
  if (!FolderExists(checkpoint) && fork.has_from()) {
    const auto step = fork.has_step() ? std::optional<int64_t>(fork.step()) : std::nullopt;
    if (auto forked = CheckpointToFork(fork.from(), step); forked.ok()) checkpoint = *std::move(forked);
  }
  if (FolderExists(checkpoint)) recipe.ReadInitFrom(checkpoint);
  return ResolveModel(recipe);
}

absl::StatusOr<ModelConfig> ResolveModel(Recipe& recipe) {
  if (recipe.proto().task() == proto::PIPELINE) {
    std::string stages;
    for (const proto::Stage& stage : recipe.proto().stage())
      stages += Concat(stages.empty() ? "" : ", ", stage.recipe());
    return UsageError(Concat("task is PIPELINE; each stage has a model of its own; name the recipe of one: ",
                             Printable(stages, 200)));
  }
  ASSIGN_OR_RETURN(ModelConfig config, ModelOf(recipe));
  RETURN_IF_ERROR(CheckLimits(recipe.proto(), config));
  return config;
}

}  // namespace moebius
