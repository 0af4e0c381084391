#include "rl/loop/rejection_source.h"

#include <chrono>
#include <nlohmann/json.hpp>
#include <numeric>

#include "core/base/status.h"
#include "core/base/strings.h"
#include "core/io/file.h"
#include "core/io/json.h"
#include "data/message_lines.h"
#include "rl/loop/loop.pb.h"
#include "rl/loop/rl_options.h"
#include "rl/loop/roll_out.h"

namespace moebius {
namespace {

using Json = nlohmann::ordered_json;

Json ToJson(const std::vector<ChatMessage>& messages) {
  Json out = Json::array();
  for (const ChatMessage& m : messages) out.push_back({{"role", m.role}, {"content", m.content}});
  return out;
}

std::string LineOf(int64_t step, const Problem& problem, const std::string& answer) {
  Json messages = ToJson(problem.messages);
  messages.push_back({{"role", "assistant"}, {"content", answer}});
  return DumpJson(Json{{"step", step}, {"messages", std::move(messages)}});
}

}  // namespace

RejectionSource::RejectionSource(const SourceContext& context, const ProblemSet& problems,
                                 const Scorer& scorer, const RejectionOptions& options,
                                 std::unique_ptr<Journal> journal, std::string kept_path)
    : context_(context),
      tools_{problems, context.codec, scorer},
      options_(options),
      journal_(std::move(journal)),
      rollout_(RolloutOptionsOf(context.rl, context.max_length, context.seed)),
      decoder_(DecoderOptionsOf(context.rl, context.trainer)),
      kept_path_(std::move(kept_path)),
      policy_(context.trainer, context.max_length, context.rl),
      programs_(problems) {
  rollout_.logprobs = LogProbs::kNo;
}

absl::Status RejectionSource::Start(const std::string&) {
  absl::Status status;
  if (!kept_path_.empty()) {
    status = CutJsonLines(kept_path_, context_.trainer.state().step);
    if (status.ok()) status = RecallKept();
    if (status.ok()) {
      absl::StatusOr<JsonLinesWriter> writer = JsonLinesWriter::Open(kept_path_);
      status = writer.status();
      if (writer.ok()) kept_.emplace(*std::move(writer));
    }
  }
  return context_.trainer.mesh().Agree(status);
}

absl::Status RejectionSource::RecallKept() {
  kept_answers_.clear();
  if (!FileExists(kept_path_)) return absl::OkStatus();
  return ReadJsonLines(kept_path_, [&](const nlohmann::json& line, int64_t number) -> absl::Status {
    const std::string where = Concat(kept_path_, " line ", number);
    ASSIGN_OR_RETURN(std::vector<ChatMessage> messages, ReadMessages(line, where));
    const std::string answer = std::move(messages.back().content);
    messages.pop_back();
    kept_answers_[DumpJson(ToJson(messages))].insert(answer);
    return absl::OkStatus();
  });
}

bool RejectionSource::Keeps(const Problem& problem, const std::string& answer) {
  std::set<std::string>& kept = kept_answers_[DumpJson(ToJson(problem.messages))];
  return std::ssize(kept) < options_.keep && kept.insert(answer).second;
}

absl::StatusOr<StepReport> RejectionSource::Step() {
  Trainer& trainer = context_.trainer;
  const auto start = std::chrono::steady_clock::now();
  if (journal_ != nullptr) journal_->Begin(trainer.state().step + 1);
  const uint64_t first = trainer.state().sequences;
  std::vector<uint64_t> problems(context_.sequences);
  std::iota(problems.begin(), problems.end(), first);
  ASSIGN_OR_RETURN(const std::vector<RolloutGroup> groups, RollOut(trainer, policy_, tools_, problems,
                                                                   {.rollout = rollout_,
                                                                    .decoder = decoder_,
                                                                    .seed = context_.seed,
                                                                    .first_group = first,
                                                                    .journal = journal_.get()}));
  StepReport report;
  report.metrics = trainer.PassStep(context_.sequences);
  absl::Status status;
  double sampled = 0, unfinished = 0, right = 0, kept = 0, judged = 0, left_out = 0, tokens = 0;
  for (const RolloutGroup& group : groups) {
    const Problem problem = tools_.problems.At(group.problem);
    for (const RolloutSample& s : group.samples) {
      ++(s.score.correct ? judged : left_out);
      tokens += static_cast<double>(s.tokens.size());
      unfinished += s.finished ? 0 : 1;
      ++sampled;
      if (s.score.correct != 1.0) continue;
      ++right;
      const std::string whole =
          context_.codec.opening() + s.text;  // for a student whose prompts open nothing
      if (!s.finished || !Keeps(problem, whole)) continue;
      ++kept;
      if (kept_) status.Update(kept_->Append(LineOf(report.metrics.step, problem, whole)));
      if (std::ssize(report.samples) < context_.rl.show_samples()) {
        report.samples.push_back({.prompt = problem.messages.back().content,
                                  .text = s.text,
                                  .values = {},
                                  .gold = problem.gold,
                                  .verdict = s.score.verdict});
      }
    }
  }
  // The checkpoint that says that these problems were asked must not outlive their answers.
  if (kept_ && status.ok()) status = kept_->Sync();
  RETURN_IF_ERROR(trainer.mesh().Agree(status));
  report.metrics.tokens = static_cast<int64_t>(tokens);
  trainer.state().tokens += report.metrics.tokens;
  report.metrics.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  if (judged > 0) report.values.emplace_back("rl/accuracy", right / judged);
  report.values.emplace_back("rl/unfinished", unfinished / sampled);
  report.values.emplace_back("rl/left_out", left_out);
  report.values.emplace_back("rejection/kept", kept);
  programs_.Observe(groups, report);
  return report;
}

absl::StatusOr<StepReport> RejectionSource::Evaluate() {
  return EvaluateHeldOut(context_, policy_, decoder_);
}

}  // namespace moebius
