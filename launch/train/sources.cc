#include "launch/train/sources.h"

#include <algorithm>
#include <numeric>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "core/base/strings.h"
#include "core/io/file.h"
#include "core/model/model_folder.h"
#include "core/model/weights.h"
#include "data/tokenizer/add_tokens.h"
#include "data/tokenizer/byte_tokenizer.h"
#include "launch/recipe.pb.h"
#include "launch/run_folder.h"
#include "launch/train/run_marks.h"
#include "optim/checkpoint.h"
#include "rl/loop/distill_source.h"
#include "rl/loop/dpo_source.h"
#include "rl/loop/policy_source.h"
#include "rl/loop/problem_evaluation.h"
#include "rl/loop/rejection_source.h"
#include "rl/loop/rl_options.h"
#include "rl/loop/rollout.h"
#include "rl/loop/sft_source.h"

namespace moebius {
namespace {

std::string EvalName(const proto::Problems& problems) {
  if (problems.jsonl().empty()) return problems.kind();
  const std::string stem =
      RecipeStem(problems.held_out_jsonl().empty() ? problems.jsonl() : problems.held_out_jsonl());
  return stem.empty() ? "problems" : stem;
}

// How many problems of an endless set are looked at before a run: those that it will draw, but for rare ones
// that come late.
int64_t Drawn(const proto::Recipe& r, const SourceContext& context) {
  constexpr double kMost = 16384;
  const double rounds = 1 + static_cast<double>(r.rl().refill_rounds());
  const double all = rounds * static_cast<double>(r.steps()) * static_cast<double>(context.sequences);
  return static_cast<int64_t>(std::min(all, kMost));
}

// nullopt for a text of another family.
std::optional<ChatTemplate> ChatTemplateOf(const TokenizerFiles& files) {
  absl::StatusOr<ChatTemplate> chat = RecognizeChatTemplate(files.chat_template_jinja, "chat_template.jinja");
  return chat.ok() ? std::optional(*std::move(chat)) : std::nullopt;
}

// What MakeTokenizer makes the recipe's tokenizer from, without new tokens.
absl::StatusOr<std::string> TokenizerNameOf(const proto::Recipe& r) {
  if (!r.tokenizer().empty()) return r.tokenizer();
  if (r.init().has_from() && FileExists(JoinPath(r.init().from(), "tokenizer.json"))) return r.init().from();
  return UsageError(Concat("tokenizer is not given and ",
                           r.init().has_from()
                               ? Concat("init.from ", r.init().from(), " has no tokenizer.json")
                               : std::string("there is no init.from to take one from"),
                           "; text has to become ids; set tokenizer: \"bytes\", \"symbols:0123456789+=\" "
                           "or a tokenizer.json"));
}

}  // namespace

absl::StatusOr<std::string> TokenizerJsonOf(const proto::Recipe& r) {
  ASSIGN_OR_RETURN(const std::string what, TokenizerNameOf(r));
  ASSIGN_OR_RETURN(const Tokenizer tokenizer, MakeTokenizer(what));
  if (r.new_token().empty()) return tokenizer.json();
  return AddTokens(tokenizer.json(), {r.new_token().begin(), r.new_token().end()}, what);
}

absl::StatusOr<std::optional<int64_t>> FirstNewToken(const proto::Recipe& r) {
  if (r.new_token().empty()) return std::nullopt;
  ASSIGN_OR_RETURN(const std::string what, TokenizerNameOf(r));
  ASSIGN_OR_RETURN(const Tokenizer before, MakeTokenizer(what));
  ASSIGN_OR_RETURN(const std::string json, TokenizerJsonOf(r));
  ASSIGN_OR_RETURN(const Tokenizer after, Tokenizer::FromJson(json, what));
  if (after.vocab_size() == before.vocab_size()) return std::nullopt;
  return before.vocab_size();
}

absl::Status TaskSource::OpenText() {
  ASSIGN_OR_RETURN(std::string json, TokenizerJsonOf(r_));
  const std::string from = r_.tokenizer().empty() ? r_.init().from() : std::string();
  ASSIGN_OR_RETURN(files_, TokenizerFilesFrom(json, "the tokenizer", from));
  ASSIGN_OR_RETURN(tokenizer_, Tokenizer::FromJson(json, "the tokenizer"));
  PromptCodecOptions options{.open_answer = r_.open_answer(),
                             .answer_tokens = {r_.new_token().begin(), r_.new_token().end()}};
  const bool plain = r_.chat_template().empty() && !r_.tokenizer().empty();
  ASSIGN_OR_RETURN(options.chat, ChooseChatTemplate(plain ? "plain" : r_.chat_template(), r_.init().from()));
  // Of another tokenizer the folder's ids would be other tokens, and what is no special token ends no answer.
  if (!from.empty()) {
    ASSIGN_OR_RETURN(const ModelConfig config, LoadConfig(from));
    ASSIGN_OR_RETURN(options.stop_ids, EndOfTextIds(from, config));
    std::erase_if(options.stop_ids, [&](int32_t id) { return !tokenizer_->IsSpecial(id); });
  }
  // A template that the recipe names is what checkpoints carry, in the model folder's own words where it has
  // them.
  if (options.chat && !r_.chat_template().empty() && ChatTemplateOf(files_) != options.chat)
    files_.chat_template_jinja = ChatTemplateJinja(*options.chat);
  ASSIGN_OR_RETURN(codec_, PromptCodec::Create(*tokenizer_, std::move(options)));
  return absl::OkStatus();
}

absl::Status TaskSource::OpenProblems(sandbox::Sandbox* sandbox) {
  if (!r_.has_problems()) return absl::OkStatus();
  // Thoughts that the prompt has opened are closed by the answer, and opened nowhere in it.
  proto::Answer answer = r_.answer();
  const std::string tag = Concat("<", answer.think_tag(), ">");
  if (!answer.has_opens_thinking() && !answer.think_tag().empty() &&
      absl::EndsWith(absl::StripTrailingAsciiWhitespace(codec_->opening()), tag))
    answer.set_opens_thinking(true);
  ASSIGN_OR_RETURN(problems_, MakeProblemSet(r_.problems(), TaskSplit::kTrain, sandbox));
  ASSIGN_OR_RETURN(scorer_, Scorer::Make(r_.reward(), answer, *problems_));
  for (const proto::Reward::Part& part : r_.reward().part()) {
    if (part.name() == "overlong" && part.max_tokens() - part.margin_tokens() >= r_.rl().max_new())
      return UsageError(Concat("reward.part \"overlong\" begins above ",
                               part.max_tokens() - part.margin_tokens(),
                               " tokens (max_tokens less margin_tokens), but rl.max_new is ",
                               r_.rl().max_new(), ", so no answer would ever earn less; lower max_tokens"));
  }
  const bool whole_file = !r_.problems().jsonl().empty() && r_.problems().held_out() == 0 &&
                          r_.problems().held_out_jsonl().empty();
  if (whole_file) return absl::OkStatus();
  ASSIGN_OR_RETURN(held_out_, MakeProblemSet(r_.problems(), TaskSplit::kHeldOut, sandbox));
  ASSIGN_OR_RETURN(held_out_scorer_, Scorer::Make(r_.reward(), answer, *held_out_));
  return absl::OkStatus();
}

absl::Status TaskSource::OpenSource(Training& training, const std::string& folder,
                                    const std::string& run_folder) {
  RETURN_IF_ERROR(CheckRl(r_.rl(), training.trainer->model_config()));
  if (r_.task() == proto::GRPO) RETURN_IF_ERROR(CheckPolicy(r_.rl()));
  if (!folder.empty())
    RETURN_IF_ERROR(MarkFiles(
        folder, {r_.sft().data(), r_.dpo().data(), r_.problems().jsonl(), r_.problems().held_out_jsonl()}));
  const SourceContext context{.trainer = *training.trainer,
                              .codec = *codec_,
                              .seed = r_.seed(),
                              .sequences = r_.batch().sequences(),
                              .max_length = r_.batch().sequence_length(),
                              .eval_name = EvalName(r_.problems()),
                              .held_out = held_out_.get(),
                              .held_out_scorer = held_out_scorer_ ? &*held_out_scorer_ : nullptr,
                              .evaluate = r_.evaluate(),
                              .rl = r_.rl()};
  const int64_t updates = r_.task() == proto::GRPO ? r_.rl().updates() : 1;
  const int64_t least = updates * training.trainer->GroupsAtLeast();
  if (r_.batch().sequences() < least) {
    return UsageError(Concat("batch.sequences is ", r_.batch().sequences(),
                             ", but every data and expert rank needs one for each stage of parallel.pipeline",
                             updates > 1 ? Concat(" in each of ", updates, " updates (rl.updates)") : "",
                             ", ", least, " in all; raise it"));
  }
  RETURN_IF_ERROR(CheckProblems(context));
  std::unique_ptr<Journal> journal;
  if (!run_folder.empty() && (r_.task() == proto::GRPO || r_.task() == proto::REJECTION)) {
    // A damaged checkpoint sends the run back to the one before it, no further.
    ASSIGN_OR_RETURN(const std::vector<int64_t> saved, CheckpointStepsIn(run_folder));
    ASSIGN_OR_RETURN(journal,
                     Journal::Open(JoinPath(run_folder, "journal"), training.trainer->mesh().all().rank(),
                                   saved.size() < 2 ? 0 : saved[saved.size() - 2]));
  }
  if (r_.task() == proto::GRPO) {
    needs_reference_ = r_.rl().kl() != proto::Rl::NO_KL;
    source_ = std::make_unique<PolicySource>(context, *problems_, *scorer_, std::move(journal),
                                             JoinPath(folder, "samples"));
    return absl::OkStatus();
  }
  if (r_.task() == proto::REJECTION) {
    source_ = std::make_unique<RejectionSource>(
        context, *problems_, *scorer_, RejectionOptions{.keep = r_.rejection().keep()}, std::move(journal),
        folder.empty() ? "" : JoinPath(folder, "kept.jsonl"));
    return absl::OkStatus();
  }
  if (r_.task() == proto::DPO) {
    ASSIGN_OR_RETURN(PreferencePairs pairs,
                     ReadPreferencePairs(r_.dpo().data(), *codec_, context.max_length));
    note_ = Concat(WithCommas(std::ssize(pairs.pairs)), " pairs of answers");
    if (pairs.left_out > 0)
      note_ += Concat(" (", pairs.left_out, " longer than ", context.max_length, " tokens left out)");
    needs_reference_ = true;
    source_ = std::make_unique<DpoSource>(context, std::move(pairs), r_.dpo());
    return absl::OkStatus();
  }
  ASSIGN_OR_RETURN(WorkedAnswers answers, OpenAnswers(context));
  if (r_.task() == proto::DISTILL) {
    RETURN_IF_ERROR(
        CheckTeacher(r_.distill().teacher(), *tokenizer_, training.trainer->model_config().vocab_size));
    const Communicator& all = training.trainer->mesh().all();
    if (FileExists(JoinPath(r_.distill().teacher(), "manifest.json"))) {
      RETURN_IF_ERROR(
          VerifyCheckpoint(r_.distill().teacher(), CheckpointPart::kModel, all.rank(), all.size()));
    }
    if (!folder.empty()) RETURN_IF_ERROR(MarkTeacher(folder, r_.distill().teacher()));
    source_ = std::make_unique<DistillSource>(context, std::move(answers), r_.distill());
    return absl::OkStatus();
  }
  source_ = std::make_unique<SftSource>(context, std::move(answers));
  return absl::OkStatus();
}

absl::Status TaskSource::CheckProblems(const SourceContext& context) const {
  const RolloutOptions rollout = RolloutOptionsOf(r_.rl(), context.max_length, context.seed);
  if (r_.task() == proto::GRPO || r_.task() == proto::REJECTION) {
    std::vector<uint64_t> drawn(problems_->size() > 0 ? problems_->size() : Drawn(r_, context));
    std::iota(drawn.begin(), drawn.end(), 0);
    RETURN_IF_ERROR(CheckPrompts(*problems_, *codec_, drawn, rollout));
  }
  if (held_out_ == nullptr) return absl::OkStatus();
  return CheckPrompts(*held_out_, *codec_, ProblemsToAsk(*held_out_, r_.evaluate().problems()), rollout);
}

absl::StatusOr<WorkedAnswers> TaskSource::OpenAnswers(const SourceContext& context) {
  if (r_.sft().data().empty()) {
    WorkedAnswers answers(context, *problems_, *scorer_);
    RETURN_IF_ERROR(answers.CheckProblems(Drawn(r_, context)));
    return answers;
  }
  const bool cut = r_.sft().too_long() == proto::Sft::CUT;
  ASSIGN_OR_RETURN(
      Conversations conversations,
      ReadConversations(
          r_.sft().data(),
          {.max_tokens = context.max_length, .too_long = cut ? TooLong::kCut : TooLong::kLeaveOut},
          [this](const std::vector<ChatMessage>& messages) { return codec_->Conversation(messages); }));
  note_ = Concat(WithCommas(std::ssize(conversations.items)), " conversations");
  if (conversations.left_out + conversations.cut > 0) {
    note_ += Concat(" (of those longer than ", context.max_length, " tokens ", conversations.cut,
                    " were cut and ", conversations.left_out, " left out)");
  }
  return WorkedAnswers(context, std::move(conversations), r_.sft().shuffle());
}

absl::StatusOr<std::unique_ptr<TaskSource>> TaskSource::Make(const proto::Recipe& recipe, Training& training,
                                                             const std::string& folder,
                                                             sandbox::Sandbox* sandbox) {
  std::unique_ptr<TaskSource> out(new TaskSource(recipe));
  ASSIGN_OR_RETURN(const std::vector<std::string> folders, training.trainer->mesh().GatherText(folder));
  absl::Status status = out->OpenText();
  if (status.ok()) status = out->OpenProblems(sandbox);
  if (status.ok()) status = out->OpenSource(training, folder, folders[0]);
  RETURN_IF_ERROR(training.trainer->mesh().Agree(status));
  return out;
}

}  // namespace moebius
