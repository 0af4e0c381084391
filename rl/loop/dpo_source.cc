#include "rl/loop/dpo_source.h"

#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>

#include "core/base/status.h"
#include "core/base/strings.h"
#include "core/io/json.h"
#include "core/io/line_reader.h"
#include "core/model/score.h"
#include "data/message_lines.h"
#include "data/permutation.h"
#include "rl/loop/loop.pb.h"
#include "rl/loop/reference_model.h"
#include "rl/loop/rl_options.h"

namespace moebius {
namespace {

absl::StatusOr<std::vector<ChatMessage>> MessagesOf(const nlohmann::json& line, const std::string& where) {
  if (!HasJsonField(line, "messages")) return ReadPrompt(line, where);
  ASSIGN_OR_RETURN(std::vector<ChatMessage> messages, ReadMessages(line, where));
  // A line may say the same in both forms.
  if (!HasJsonField(line, "prompt") || line["prompt"] == messages.back().content) return messages;
  return DamagedError(Concat(where,
                             ": has messages and a prompt that is not the last of them; which is asked? "
                             "leave one out"));
}

absl::StatusOr<PreferencePair> ReadPair(const nlohmann::json& line, const PromptCodec& codec,
                                        const std::string& where) {
  ASSIGN_OR_RETURN(const std::vector<ChatMessage> messages, MessagesOf(line, where));
  PreferencePair pair;
  for (const auto& [field, to] : {std::pair{"chosen", &pair.chosen}, {"rejected", &pair.rejected}}) {
    ASSIGN_OR_RETURN(const std::string answer, GetString(line, field, where));
    absl::StatusOr<EncodedChat> chat = codec.Example(messages, answer);
    RETURN_IF_ERROR(Annotate(chat.status(), where));
    const auto group = std::find(chat->is_answer.begin(), chat->is_answer.end(), true);
    const int64_t at = group - chat->is_answer.begin();
    pair.prompt.assign(chat->ids.begin(), chat->ids.begin() + at);
    to->assign(chat->ids.begin() + at, chat->ids.end());
  }
  if (pair.chosen == pair.rejected) {
    return DamagedError(where +
                        ": chosen and rejected are the same; such a pair says nothing; remove the line");
  }
  return pair;
}

double SumOf(std::span<const float> x) { return std::accumulate(x.begin(), x.end(), 0.0); }

}  // namespace

absl::StatusOr<PreferencePairs> ReadPreferencePairs(const std::string& path, const PromptCodec& codec,
                                                    int64_t max_length) {
  ASSIGN_OR_RETURN(LineReader reader, LineReader::Open(path));
  PreferencePairs out;
  std::string_view text;
  for (;;) {
    ASSIGN_OR_RETURN(const bool more, reader.Next(&text));
    if (!more) break;
    if (IsBlank(text)) continue;
    const std::string where = reader.Where();
    ASSIGN_OR_RETURN(const nlohmann::json line, ParseJson(text, where));
    ASSIGN_OR_RETURN(PreferencePair pair, ReadPair(line, codec, where));
    const int64_t answer = std::max(std::ssize(pair.chosen), std::ssize(pair.rejected));
    if (std::ssize(pair.prompt) + answer > max_length) {
      ++out.left_out;
    } else {
      out.pairs.push_back(std::move(pair));
    }
  }
  if (!out.pairs.empty()) return out;
  if (out.left_out > 0) {
    return UsageError(Concat(path, ": no preference pair to learn from; ", out.left_out,
                             " are longer than batch.sequence_length ", max_length, "; raise it"));
  }
  return DamagedError(
      Concat(path, ": no preference pair to learn from; give it lines with prompt, chosen and rejected"));
}

PairLoss ComputePairLoss(double beta, double label_smoothing, double chosen, double rejected) {
  const double z = beta * (chosen - rejected);
  const auto softplus = [](double x) {
    return x > 0 ? x + std::log1p(std::exp(-x)) : std::log1p(std::exp(x));
  };
  const double low = 1 / (1 + std::exp(z));  // sigmoid(-z)
  return {.loss = (1 - label_smoothing) * softplus(-z) + label_smoothing * softplus(z),
          .slope = beta * (-(1 - label_smoothing) * low + label_smoothing * (1 - low)),
          .margin = z};
}

DpoSource::DpoSource(const SourceContext& context, PreferencePairs pairs, const proto::Dpo& options)
    : context_(context),
      pairs_(std::move(pairs)),
      options_(options),
      policy_(context.trainer, context.max_length, context.rl) {}

absl::Status DpoSource::Start(const std::string& reference) {
  ASSIGN_OR_RETURN(reference_, LoadReference(context_.trainer, reference, context_.max_length));
  return absl::OkStatus();
}

absl::StatusOr<StepReport> DpoSource::Step() {
  Trainer& trainer = context_.trainer;
  const uint64_t first = trainer.state().sequences, n = pairs_.pairs.size();
  std::vector<AnswerGroup> groups;
  int64_t predictions = 0;
  for (int64_t i = 0; i < context_.sequences; ++i) {
    const uint64_t epoch = (first + i) / n, within = (first + i) % n;
    const uint64_t item =
        options_.shuffle() ? KeyedPermutation(n, context_.seed, Concat("pairs ", epoch))(within) : within;
    const PreferencePair& pair = pairs_.pairs[item];
    groups.push_back(
        {.prompt = pair.prompt,
         .answers = {{.tokens = pair.chosen, .weights = {}}, {.tokens = pair.rejected, .weights = {}}}});
    predictions += groups.back().Predictions();
  }
  // Each rank needs the reference's word on the groups that it will train on, which only the trainer knows:
  // all do all of them.
  Microbatch mb(trainer.context().backend, reference_->num_slots());
  const std::vector<float> logprobs =
      ScoreGroups(*reference_, trainer.context(), mb, groups, ScoreOptionsOf(trainer));
  std::vector<int64_t> first_token{0};
  for (const AnswerGroup& group : groups) first_token.push_back(first_token.back() + group.Predictions());
  double loss_sum = 0, right = 0, margin = 0;
  GroupBatch batch{.groups = groups, .predictions = predictions, .scale = 1};
  batch.weigh = [&](int64_t g, int64_t count, std::span<const float> losses, std::span<float> weights) {
    size_t at = 0;
    for (int64_t i = g; i < g + count; ++i) {
      const size_t chosen = groups[i].answers[0].tokens.size(), rejected = groups[i].answers[1].tokens.size();
      const std::span<const float> reference = std::span<const float>(logprobs).subspan(first_token[i]);
      const PairLoss loss = ComputePairLoss(
          options_.beta(), options_.label_smoothing(),
          -SumOf(losses.subspan(at, chosen)) - SumOf(reference.first(chosen)),
          -SumOf(losses.subspan(at + chosen, rejected)) - SumOf(reference.subspan(chosen, rejected)));
      const double share = 1.0 / static_cast<double>(groups.size());
      for (size_t t = 0; t < chosen + rejected; ++t) {
        weights[at + t] = static_cast<float>((t < chosen ? -1 : 1) * share * loss.slope);
      }
      loss_sum += share * loss.loss;
      right += share * (loss.margin > 0);
      margin += share * loss.margin;
      at += chosen + rejected;
    }
  };
  StepReport report;
  ASSIGN_OR_RETURN(report.metrics, trainer.Step(std::span<const GroupBatch>(&batch, 1), context_.sequences));
  RETURN_IF_ERROR(trainer.mesh().Sum({&loss_sum, &right, &margin}));
  report.metrics.loss = loss_sum;
  report.values = {{"dpo/accuracy", right}, {"dpo/margin", margin}};
  return report;
}

absl::StatusOr<StepReport> DpoSource::Evaluate() {
  return EvaluateHeldOut(context_, policy_, DecoderOptionsOf(context_.rl, context_.trainer));
}

}  // namespace moebius
