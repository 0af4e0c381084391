#include "launch/recipe.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>
#include <google/protobuf/text_format.h>

#include <algorithm>
#include <utility>

#include "core/base/check.h"
#include "core/base/status.h"
#include "core/base/strings.h"
#include "core/io/file.h"
#include "launch/recipe.pb.h"
#include "launch/run_folder.h"

namespace moebius {
namespace {

using ValueMap = std::map<std::string, std::string>;

bool KnownFamily(const std::string& family) {
  return std::any_of(RecipeReaders().begin(), RecipeReaders().end(), [&family](const FieldReaders& readers) {
    return readers.chooser == "model.model_type" && readers.Reads(family);
  });
}

void CollectValues(const google::protobuf::Message& message, const std::string& path, ValueMap* values) {
  using Field = google::protobuf::FieldDescriptor;
  const auto& reflection = *message.GetReflection();
  const auto& type = *message.GetDescriptor();
  for (int i = 0; i < type.field_count(); ++i) {
    const Field* field = type.field(i);
    const std::string at = path.empty() ? field->name() : path + "." + field->name();
    const int count = field->is_repeated() ? reflection.FieldSize(message, field) : 1;
    for (int k = 0; k < count; ++k) {
      const std::string element = field->is_repeated() ? Concat(at, "[", k, "]") : at;
      if (field->message_type() != nullptr) {
        CollectValues(field->is_repeated() ? reflection.GetRepeatedMessage(message, field, k)
                                           : reflection.GetMessage(message, field),
                      element, values);
      } else if (field->is_repeated() || reflection.HasField(message, field) || field->has_default_value()) {
        google::protobuf::TextFormat::PrintFieldValueToString(message, field, field->is_repeated() ? k : -1,
                                                              &(*values)[element]);
      }
    }
  }
}

// Fields (with all below them) in which a continued run may differ from the run that was started.
bool MayChange(const std::string& path) {
  // What rows are rounded to on their way is arithmetic, not layout.
  if (path == "parallel.dispatch" || path == "parallel.combine") return false;
  static const std::vector<std::string> kFree = {
      "name", "steps", "max_minutes", "max_bad_steps", "threads", "device", "parallel", "checkpoint",
      "validate", "evaluate", "sample", "log", "recompute", "fork", "batch.microbatch_sequences",
      "data.validation", "data.prefetch_batches",
      // What a run has of it its checkpoints have.
      "init.from",
      // A limit on the length; the error that it ends a run with says to change it.
      "rl.no_signal_steps",
      // What is shown and stored, and how many answers are decoded at once.
      "rl.show_samples", "rl.archive_every_steps", "rl.max_batch",
      // Of those who generate with the checkpoints.
      "model.bos_token_id", "model.eos_token_id"};
  return std::any_of(kFree.begin(), kFree.end(), [&path](const std::string& field) {
    return path == field || path.starts_with(field + ".") || path.starts_with(field + "[");
  });
}

// A file or folder whose content the run knows again (run_marks.h): it may lie in another folder. `was` and
// `is` are in quotation marks.
bool IsSameFile(const std::string& path, const std::string& was, const std::string& is) {
  static const std::vector<std::string> kMarked = {
      "data.train",     "data.mixture", "sft.data", "dpo.data", "problems.jsonl", "problems.held_out_jsonl",
      "distill.teacher"};
  const bool marked = std::any_of(kMarked.begin(), kMarked.end(), [&path](const std::string& field) {
    return path == field || (path.starts_with(field + "[") && path.ends_with("].path"));
  });
  const auto name = [](const std::string& quoted) { return FileName("/" + quoted.substr(1)); };
  return marked && was.size() > 1 && is.size() > 1 && name(was) == name(is);
}

}  // namespace

Recipe::Recipe() : proto_(std::make_unique<proto::Recipe>()) {}
Recipe::Recipe(Recipe&&) noexcept = default;
Recipe& Recipe::operator=(Recipe&&) noexcept = default;
Recipe::~Recipe() = default;

absl::Status Recipe::Finish(const std::string& path, const std::vector<std::string>& sets) {
  std::vector<std::string> errors;
  for (const std::string& set : sets) {
    if (absl::Status status = ApplyOverride(set, proto_.get(), &origins_); !status.ok()) {
      errors.emplace_back(status.message());
    }
  }
  if (!proto_->has_name()) {
    proto_->set_name(RecipeStem(path));
    origins_["name"] = "name of the recipe's file";
  }
  if (proto_->init().has_from()) proto_->mutable_init()->set_from(ModelFolderOf(proto_->init().from()));
  if (proto_->distill().has_teacher()) {
    proto_->mutable_distill()->set_teacher(ModelFolderOf(proto_->distill().teacher()));
  }
  CheckRanges(*proto_, origins_, RecipeRanges(), &errors);
  CheckReaders(path, &errors);
  CheckDependencies(*proto_, path, origins_, &errors);
  return errors.empty() ? absl::OkStatus() : UsageError(Join(errors, "\n"));
}

// What a family does not read is known once the family is: with init.from, FillModel looks.
// A choice made over an earlier one outdates what was said for that: --set optimizer.schedule=CONSTANT over a
// file with decay_steps, or a recipe over one that it includes. Such values are cleared. Another task is no
// such choice: much of a recipe is made for one.
void Recipe::CheckReaders(const std::string& path, std::vector<std::string>* errors) {
  proto::Recipe recipe = *proto_;
  const bool has_family = !recipe.init().has_from() && KnownFamily(recipe.model().model_type());
  if (!has_family && recipe.task() != proto::PIPELINE) recipe.clear_model();
  std::vector<UnreadValue> unread = ClearUnread(&recipe, RecipeReaders());
  const auto layer = [&](const std::string& field) {
    const auto origin = origins_.find(field);
    if (origin == origins_.end()) return 0;
    return origin->second.starts_with("--set ") ? 3 : origin->second.starts_with(path + ":") ? 2 : 1;
  };
  const size_t said = unread.size();
  std::erase_if(unread, [&](const UnreadValue& value) {
    return value.readers->chooser != "task" && layer(value.readers->chooser) > layer(value.path);
  });
  ReportUnread(unread, origins_, errors);
  if (!unread.empty() || said == 0) return;
  if (!recipe.has_model() && proto_->has_model()) *recipe.mutable_model() = proto_->model();
  *proto_ = recipe;
}

absl::StatusOr<Recipe> Recipe::Load(const std::string& path, const std::vector<std::string>& sets) {
  Recipe recipe;
  RETURN_IF_ERROR(ReadTextproto(path, recipe.proto_.get(), &recipe.origins_));
  RETURN_IF_ERROR(recipe.Finish(path, sets));
  return recipe;
}

absl::StatusOr<Recipe> Recipe::FromText(std::string_view text, const std::string& name,
                                        const std::vector<std::string>& sets) {
  Recipe recipe;
  RETURN_IF_ERROR(ParseTextproto(text, name, recipe.proto_.get(), &recipe.origins_));
  RETURN_IF_ERROR(recipe.Finish(name, sets));
  return recipe;
}

absl::StatusOr<Recipe> Recipe::LoadUnchecked(const std::string& path) {
  Recipe recipe;
  RETURN_IF_ERROR(ReadTextproto(path, recipe.proto_.get(), &recipe.origins_));
  return recipe;
}

// What the weights of init.from are made for: no other value fits them. Tokens may become more, and layers
// that predict further ones may be left out.
void Recipe::CheckFitsWeights(const proto::Model& model, const std::string& origin,
                              std::vector<std::string>* errors) const {
  constexpr const char* kFixed[] = {"hidden_size",
                                    "intermediate_size",
                                    "moe_intermediate_size",
                                    "num_hidden_layers",
                                    "num_attention_heads",
                                    "num_key_value_heads",
                                    "head_dim",
                                    "n_shared_experts",
                                    "n_routed_experts",
                                    "first_k_dense_replace",
                                    "kv_lora_rank",
                                    "q_lora_rank",
                                    "qk_rope_head_dim",
                                    "qk_nope_head_dim",
                                    "v_head_dim"};
  const auto& reflection = *model.GetReflection();
  for (const char* name : kFixed) {
    const auto* field = model.GetDescriptor()->FindFieldByName(name);
    if (!reflection.HasField(model, field) || !reflection.HasField(proto_->model(), field)) continue;
    const int64_t made = reflection.GetInt64(model, field),
                  said = reflection.GetInt64(proto_->model(), field);
    if (made == said) continue;
    const std::string path = Concat("model.", name);
    const auto from = origins_.find(path);
    errors->push_back(Concat(path, " is ", said, from == origins_.end() ? "" : " (" + from->second + ")",
                             ", and the weights of init.from are made for ", made, " (", origin,
                             "); leave it out, or set init.random to begin with other weights"));
  }
}

absl::Status Recipe::FillModel(const proto::Model& model, const std::string& origin) {
  proto::Recipe merged;
  *merged.mutable_model() = model;
  merged.mutable_model()->MergeFrom(proto_->model());
  std::vector<std::string> errors;
  if (KnownFamily(merged.model().model_type())) {
    std::vector<UnreadValue> unread = ClearUnread(&merged, RecipeReaders());
    std::erase_if(unread, [this](const UnreadValue& value) { return !origins_.contains(value.path); });
    ReportUnread(unread, origins_, &errors);
  }
  const bool loads = proto_->init().has_from() && !proto_->init().random();
  if (loads && errors.empty()) CheckFitsWeights(model, origin, &errors);
  if (!errors.empty()) return UsageError(Join(errors, "\n"));
  ValueMap from_config;
  CollectValues(model, "model", &from_config);
  *proto_->mutable_model() = merged.model();
  for (const auto& [path, value] : from_config) origins_.try_emplace(path, origin);
  return absl::OkStatus();
}

void Recipe::ReadInitFrom(const std::string& folder) {
  written_init_from_ = proto_->init().from();
  proto_->mutable_init()->set_from(folder);
}

void Recipe::SetVocabSize(int64_t size, const std::string& origin) {
  proto_->mutable_model()->set_vocab_size(size);
  origins_["model.vocab_size"] = origin;
}

std::string Recipe::ToText() const {
  proto::Recipe shown = *proto_;
  if (!written_init_from_.empty()) shown.mutable_init()->set_from(written_init_from_);
  return "# Every value of the recipe and where it comes from; this text is a recipe itself.\n" +
         PrintTextproto(shown, origins_);
}

std::map<std::string, std::string> Recipe::Values() const {
  ValueMap values;
  CollectValues(*proto_, "", &values);
  return values;
}

std::string Recipe::Where(const std::string& field) const {
  return Concat(OriginPrefix(origins_, field), field, ": ");
}

absl::Status Recipe::CheckResumable(const Recipe& saved) const {
  // What nothing reads changes nothing.
  const auto values = [](proto::Recipe recipe) {
    ClearUnread(&recipe, RecipeReaders());
    ValueMap out;
    CollectValues(recipe, "", &out);
    return out;
  };
  const ValueMap before = values(saved.proto()), now = values(proto());
  std::vector<std::string> differences;
  const auto add = [&](const std::string& path, const std::string& was, const std::string& is) {
    if (MayChange(path) || IsSameFile(path, was, is)) return;
    differences.push_back(Concat(OriginPrefix(origins_, path), path, " was ", was, " and is now ", is,
                                 "; a run continues only as it was begun (length, layout, logging, "
                                 "checkpoints, validation and samples may change); restore it, or start a "
                                 "new run with another --out"));
  };
  for (const auto& [path, value] : before) {
    const auto it = now.find(path);
    if (it == now.end() || it->second != value) add(path, value, it == now.end() ? "not set" : it->second);
  }
  for (const auto& [path, value] : now) {
    if (!before.contains(path)) add(path, "not set", value);
  }
  return differences.empty() ? absl::OkStatus() : UsageError(Join(differences, "\n"));
}

std::string RecipeStem(const std::string& path) {
  const std::string name = FileName(path);
  const size_t dot = name.find('.');
  return dot == 0 || dot == std::string::npos ? name : name.substr(0, dot);
}

}  // namespace moebius
