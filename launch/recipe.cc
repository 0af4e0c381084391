#include "launch/recipe.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>
#include <google/protobuf/text_format.h>

#include <algorithm>
#include <cctype>
#include <utility>

#include "core/base/check.h"
#include "core/base/status.h"
#include "core/base/strings.h"
#include "core/io/file.h"
#include "launch/recipe.pb.h"
#include "launch/run_folder.h"

namespace moebius {
namespace {

// What ranges cannot say: how fields depend on each other. Every finding is one line "where: what; why; what
// to do".
class Checker {
 public:
  Checker(const proto::Recipe& recipe, std::string file, const Origins& origins,
          std::vector<std::string>* errors)
      : r_(recipe), file_(std::move(file)), origins_(origins), errors_(errors) {}

  void CheckAll() {
    CheckName();
    if (r_.task() == proto::PIPELINE) return CheckStages();
    CheckSource();
    CheckTask();
    CheckBatch();
    CheckOptimizer();
    CheckParallel();
    CheckExtras();
  }

 private:
  // What nobody wrote has no line: the recipe's file stands for its place.
  void Add(const std::string& path, std::string_view text) {
    const std::string place = OriginPrefix(origins_, path);
    errors_->push_back(Concat(place.empty() ? file_ + ": " : place, text));
  }

  void CheckName() {
    const std::string& name = r_.name();
    const bool plain = !name.empty() && name.size() <= 100 && name[0] != '.' && name[0] != '-' &&
                       std::all_of(name.begin(), name.end(), [](unsigned char c) {
                         return std::isalnum(c) || c == '.' || c == '_' || c == '-';
                       });
    if (!plain) {
      Add("name", Concat("name is '", Printable(name),
                         "'; it becomes a folder: letters, digits and . _ - only, at most "
                         "100; set another name"));
    }
  }

  void CheckStages() {
    if (r_.stage().empty())
      Add("", "stage is missing; task PIPELINE runs one after the other; add stage { name recipe }");
    for (int i = 0; i < r_.stage_size(); ++i) {
      const auto& stage = r_.stage(i);
      if (stage.name().empty() || stage.recipe().empty()) {
        Add("", Concat("stage[", i, "] lacks name or recipe; a stage has both; add what is missing"));
      }
      for (int j = 0; j < i; ++j) {
        if (r_.stage(j).name() == stage.name()) {
          Add("", Concat("stage[", i, "].name is ", stage.name(), " like that of stage[", j,
                         "]; names tell stages apart; choose another"));
        }
      }
    }
  }

  void CheckSource() {
    if (r_.init().has_from() && r_.init().from().empty()) {
      Add("init.from", "init.from is empty; it names a Hugging Face folder or a checkpoint; write its path");
    }
    if (!r_.init().has_from() && !r_.has_model()) {
      Add("",
          "neither init.from nor model is given; a run needs weights or shapes; add init { from: \"DIR\" } "
          "or model { ... }");
    }
    if (r_.init().random() && !r_.init().has_from()) {
      Add("init.random",
          "init.random is set without init.from; it takes the shapes of that folder; add init.from or "
          "leave random out: a model { } section starts from random weights anyway");
    }
    if (r_.task() == proto::PRETRAIN) CheckTexts();
    if (r_.fork().has_step() && !r_.fork().has_from()) {
      Add("fork.step", "fork.step is set without fork.from; it is a step of another run; add its run folder");
    }
  }

  void CheckTexts() {
    const bool train = !r_.data().train().empty();
    if (train && r_.data().mixture_size() > 0) {
      Add("data.train", "data.train and data.mixture are both given; they contradict; keep one");
    }
    if (!train && r_.data().mixture_size() == 0) {
      Add("data.train",
          "data.train is missing; a run needs a token file; add data { train: \"train.h5\" } (moebius data "
          "build makes one)");
    }
    for (int i = 0; i < r_.data().mixture_size(); ++i) {
      if (r_.data().mixture(i).path().empty()) {
        Add("", Concat("data.mixture[", i,
                       "].path is missing; a part of the mixture is a token file; write its path"));
      }
    }
  }

  // Sections of the other tasks, where they are and where they are missing.
  void CheckTask() {
    const auto task = r_.task();
    const bool asks = r_.has_problems();
    if (task == proto::PRETRAIN) return;
    if ((task == proto::GRPO || task == proto::REJECTION) && !asks) {
      Add("",
          "problems is missing; task GRPO asks them and rewards the answers; add problems { kind: \"sort\" } "
          "or problems { jsonl: \"FILE\" }");
    }
    if ((task == proto::SFT || task == proto::DISTILL) && !asks && r_.sft().data().empty()) {
      Add("", Concat("sft.data is missing; task ", proto::Task_Name(task),
                     " learns from conversations; add sft { data: \"FILE.jsonl\" }, or problems whose worked "
                     "answers it learns"));
    }
    if (task == proto::DISTILL && r_.distill().teacher().empty()) {
      Add("distill.teacher",
          "distill.teacher is missing; task DISTILL learns a model's probabilities; add distill { teacher: "
          "\"DIR\" }, a checkpoint or a Hugging Face folder with the same tokenizer");
    }
    if (task == proto::DPO && r_.dpo().data().empty()) {
      Add("", "dpo.data is missing; task DPO learns from pairs of answers; add dpo { data: \"FILE.jsonl\" }");
    }
    const bool exact = task == proto::GRPO && r_.rl().rollout() == proto::Rl::EXACT;
    if (exact && r_.precision().compute() == proto::Precision::FP8) {
      Add("precision.compute",
          "precision.compute is FP8 with rl.rollout EXACT; sampling does not round as training does; set "
          "rl.rollout: FAST, which measures the gap and corrects for it");
    }
    if (exact && r_.device() == proto::CUDA) {
      Add("rl.rollout",
          "rl.rollout is EXACT on device CUDA; only the CPU's kernels give a row the same bits in every "
          "batch; set rl.rollout: FAST, which measures the gap and corrects for it");
    }
    if (r_.rl().rollout() == proto::Rl::INT8 && r_.device() == proto::CUDA) {
      Add("rl.rollout",
          "rl.rollout is INT8 on device CUDA; only the CPU has products in 8 bits; set rl.rollout: FAST");
    }
  }

  void CheckBatch() {
    const auto& batch = r_.batch();
    const int64_t micro = batch.microbatch_sequences();
    const auto divides = [&](int64_t sequences, const std::string& path) {
      if (micro > 0 && sequences > 0 && sequences % micro != 0) {
        Add(path, Concat(path, " is ", sequences, " and batch.microbatch_sequences ", micro,
                         "; a batch is a whole number of microbatches; use a divisor, for example ",
                         LargestDivisor(sequences, micro)));
      }
    };
    divides(batch.sequences(), "batch.sequences");
    int64_t last = -1;
    for (int i = 0; i < batch.ramp_size(); ++i) {
      const std::string path = Concat("batch.ramp[", i, "]");
      if (!batch.ramp(i).has_at_step() || !batch.ramp(i).has_to_sequences()) {
        Add(path, path + " lacks at_step or to_sequences; a point of the ramp has both; add what is missing");
        continue;
      }
      if (batch.ramp(i).at_step() <= last) {
        Add(path + ".at_step", Concat(path, ".at_step is ", batch.ramp(i).at_step(), " after ", last,
                                      "; the points must rise; put them in order"));
      }
      last = batch.ramp(i).at_step();
      divides(batch.ramp(i).to_sequences(), path + ".to_sequences");
    }
  }

  static int64_t LargestDivisor(int64_t n, int64_t limit) {
    int64_t best = 1;
    for (int64_t d = 1; d <= std::min(n, limit) && d <= 65536; ++d) {
      if (n % d == 0) best = d;
    }
    return best;
  }

  void CheckOptimizer() {
    const auto& o = r_.optimizer();
    const bool piecewise = o.schedule() == proto::Optimizer::V3_PIECEWISE;
    const auto [slowest, beta] = std::max(std::pair(o.beta1(), "beta1 "), std::pair(o.beta2(), "beta2 "));
    if (o.moments() == proto::Optimizer::BF16 && slowest > 0.99) {
      Add("optimizer.moments",
          Concat("optimizer.moments is BF16 and ", beta, slowest,
                 "; so slow a decay is rounded away in 8 bits; use FP32, or one up to 0.99"));
    }
    if (o.warmup_steps() > r_.steps()) {
      Add("optimizer.warmup_steps", Concat("optimizer.warmup_steps is ", o.warmup_steps(), " of ", r_.steps(),
                                           " steps; the run would end while warming up; shorten it"));
    }
    if (!piecewise && o.min_lr() > o.lr()) {
      Add("optimizer.min_lr", Concat("optimizer.min_lr is ", o.min_lr(), " above optimizer.lr ", o.lr(),
                                     "; schedules only fall; lower it"));
    }
    if (piecewise && o.phase_size() == 0) {
      Add("optimizer.schedule",
          "optimizer.schedule is V3_PIECEWISE without optimizer.phase; it consists of phases; add "
          "phase { steps from_lr to_lr }");
    }
    for (int i = 0; i < o.phase_size(); ++i) {
      if (!o.phase(i).has_steps() || !o.phase(i).has_from_lr() || !o.phase(i).has_to_lr()) {
        Add("", Concat("optimizer.phase[", i,
                       "] lacks steps, from_lr or to_lr; a phase has all three; add what is missing"));
      }
    }
    if (o.schedule() == proto::Optimizer::WSD && o.warmup_steps() <= r_.steps() &&
        (o.decay_steps() < 1 || o.decay_steps() + o.warmup_steps() > r_.steps())) {
      Add("optimizer.decay_steps",
          Concat("optimizer.decay_steps is ", o.decay_steps(), " of ", r_.steps(), " steps with ",
                 o.warmup_steps(),
                 " of warm-up; schedule WSD decays in the last decay_steps of the "
                 "run; ",
                 o.warmup_steps() < r_.steps() ? Concat("choose 1 to ", r_.steps() - o.warmup_steps())
                                               : "leave steps for it"));
    }
  }

  void CheckParallel() {
    const auto& p = r_.parallel();
    static const std::vector<std::string> kSchedules = {"gpipe", "1f1b",     "interleaved", "zb_h1",
                                                        "zbv",   "dualpipe", "dualpipev"};
    const bool known = std::find(kSchedules.begin(), kSchedules.end(), p.schedule()) != kSchedules.end();
    if (!known && !p.schedule().ends_with(".txt")) {
      Add("parallel.schedule", Concat("parallel.schedule is '", Printable(p.schedule()), "'; it is one of ",
                                      Join(kSchedules), ", or a schedule file NAME.txt; correct the name"));
    }
    if (p.combine() == proto::Parallel::FP8) {
      Add("parallel.combine", "parallel.combine is FP8, which sums do not survive; use ACT or BF16");
    }
    if (p.exchange() == proto::Parallel::GATHER &&
        (p.dispatch() != proto::Parallel::ACT || p.combine() != proto::Parallel::ACT)) {
      Add("parallel.exchange",
          "parallel.exchange is GATHER, which sends rows as they are computed; leave parallel.dispatch and "
          "parallel.combine ACT, or set parallel { exchange: FLAT }");
    }
    if (p.exchange() == proto::Parallel::GATHER && p.max_expert_rows() > 0) {
      Add("parallel.max_expert_rows",
          "parallel.max_expert_rows is set with parallel.exchange GATHER, whose buffers always hold the most "
          "rows that may come: every layer would be computed in chunks, twice; leave it out, or use another "
          "exchange");
    }
  }

  void CheckExtras() {
    if (r_.validate().every_steps() > 0 && r_.data().validation().empty()) {
      Add("validate.every_steps",
          "validate.every_steps is set without data.validation; there is nothing to validate on; "
          "add data { validation: \"val.h5\" } or set it to 0");
    }
    if (r_.sample().every_steps() > 0 && r_.sample().prompts_size() == 0) {
      Add("sample.every_steps",
          "sample.every_steps is set without sample.prompts; there is nothing to continue; add "
          "prompts: \"...\" or set it to 0");
    }
    if (r_.sample().has_top_p() && r_.sample().top_p() == 0) {
      Add("sample.top_p",
          "sample.top_p is 0; no token would be left; use temperature: 0 for the likeliest token");
    }
  }

  const proto::Recipe& r_;
  const std::string file_;
  const Origins& origins_;
  std::vector<std::string>* errors_;
};

// Fields (with all below them) in which a continued run may differ from the run that was started.
bool MayChange(const std::string& path) {
  // What rows are rounded to on their way is arithmetic, not layout.
  if (path == "parallel.dispatch" || path == "parallel.combine") return false;
  static const std::vector<std::string> kFree = {
      "name", "steps", "max_minutes", "max_bad_steps", "threads", "device", "parallel", "checkpoint",
      "validate", "evaluate", "sample", "log", "recompute", "fork", "batch.microbatch_sequences",
      "data.validation", "data.prefetch_batches",
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
  Checker(*proto_, path, origins_, &errors).CheckAll();
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

std::string Recipe::ToText() const {
  return "# Every value of the recipe and where it comes from; this text is a recipe itself.\n" +
         PrintTextproto(*proto_, origins_);
}

std::map<std::string, std::string> Recipe::Values() const {
  ValueMap values;
  CollectValues(*proto_, "", &values);
  return values;
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
    if (MayChange(path)) return;
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
