#include "rl/problems/scoring.h"

#include <algorithm>

#include "core/base/log.h"
#include "core/base/nearest.h"
#include "core/base/random.h"
#include "core/base/status.h"
#include "core/base/strings.h"
#include "rl/problems/problems.pb.h"
#include "rl/reward/answer_text.h"

namespace moebius {

absl::StatusOr<Scorer::Part> Scorer::ReadPart(const proto::Reward& reward, int index) const {
  static constexpr std::pair<std::string_view, Kind> kKinds[] = {
      {"correct", Kind::kCorrect},   {"dense", Kind::kDense},           {"format", Kind::kFormat},
      {"language", Kind::kLanguage}, {"repetition", Kind::kRepetition}, {"overlong", Kind::kOverlong},
      {"coin", Kind::kCoin}};
  const proto::Reward::Part& given = reward.part(index);
  const auto wrong = [&](std::string_view field, const auto&... why) {
    return UsageError(Concat("reward.part[", index, "].", field, why...));
  };
  std::vector<std::string> names;
  const Kind* kind = nullptr;
  for (const auto& [name, known] : kKinds) {
    names.emplace_back(name);
    if (name == given.name()) kind = &known;
  }
  if (kind == nullptr) {
    const std::string nearest = Nearest(given.name(), names);
    return wrong("name", " is \"", Printable(given.name()), "\"; the parts are ", Join(names), "; ",
                 nearest.empty() ? "choose one" : Concat("did you mean \"", nearest, "\"?"));
  }
  for (const Part& part : parts_)
    if (part.name == given.name())
      return wrong("name", " is \"", part.name, "\" a second time; each part stands once; remove one");
  if (!(given.weight() >= -1000 && given.weight() <= 1000))
    return wrong("weight", " is ", given.weight(), "; it must lie in [-1000, 1000]; correct it");

  Part part{.kind = *kind, .name = given.name(), .weight = given.weight()};
  switch (part.kind) {
    case Kind::kDense:
      if (!problems_->has_dense())
        return wrong("name",
                     " is \"dense\"; these problems have no score between right and wrong; use "
                     "\"correct\"");
      break;
    case Kind::kFormat: {
      const std::optional<FormatOptions> format = form_.format();
      if (!format)
        return wrong("name",
                     " is \"format\"; it asks for thoughts and answer in tags; set answer.where to "
                     "TAGS and answer.think_tag, or remove the part");
      part.format = *format;
      part.format.partial_credit = given.partial_credit();
      break;
    }
    case Kind::kLanguage: {
      const std::optional<Script> script = ScriptByName(given.script());
      if (!script)
        return wrong("script", " is \"", Printable(given.script()),
                     "\"; scripts are latin, greek, cyrillic, hebrew, arabic, devanagari, thai, hangul, han, "
                     "japanese; choose one");
      part.script = *script;
      break;
    }
    case Kind::kRepetition:
      if (given.words() < 1 || given.words() > 1000)
        return wrong("words", " is ", given.words(), "; it must lie in [1, 1000]; set it to 3");
      part.words = given.words();
      break;
    case Kind::kOverlong:
      if (given.margin_tokens() < 1 || given.margin_tokens() > given.max_tokens())
        return wrong("margin_tokens", " is ", given.margin_tokens(), " and max_tokens ", given.max_tokens(),
                     "; they must be 0 < margin_tokens <= max_tokens; correct them");
      part.length = {.maximum = given.max_tokens(), .margin = given.margin_tokens()};
      break;
    case Kind::kCorrect:
    case Kind::kCoin:
      break;
  }
  return part;
}

absl::StatusOr<Scorer> Scorer::Make(const proto::Reward& reward, const proto::Answer& answer,
                                    const ProblemSet& problems) {
  ASSIGN_OR_RETURN(AnswerForm form, AnswerForm::Make(answer));
  Scorer scorer(std::move(form), problems);
  for (int i = 0; i < reward.part_size(); ++i) {
    ASSIGN_OR_RETURN(Part part, scorer.ReadPart(reward, i));
    scorer.parts_.push_back(std::move(part));
  }
  if (scorer.parts_.empty())
    scorer.parts_.push_back({.kind = Kind::kCorrect, .name = "correct", .weight = 1});
  const auto counts = [](const Part& part) { return part.weight != 0; };
  if (std::none_of(scorer.parts_.begin(), scorer.parts_.end(), counts))
    return UsageError("reward.part: every weight is 0, so every reward would be; give a part a weight");
  scorer.unfinished_ = reward.unfinished() == proto::Reward::WRONG      ? Unfinished::kWrong
                       : reward.unfinished() == proto::Reward::LEFT_OUT ? Unfinished::kLeftOut
                                                                        : Unfinished::kJudged;
  scorer.judge_again_ = reward.judge_again();
  if (answer.where() == proto::Answer::LAST_NUMBER) RETURN_IF_ERROR(scorer.CheckGoldsAreNumbers());
  return scorer;
}

// Where the last number of an answer counts, a gold that is more than one can never be met.
absl::Status Scorer::CheckGoldsAreNumbers() const {
  constexpr int64_t kMost = 10000;
  int64_t missed = 0;
  std::string first;
  const int64_t looked_at = std::min(problems_->size(), kMost);
  for (int64_t i = 0; i < looked_at; ++i) {
    const Problem problem = problems_->At(i);
    if (problem.gold.empty()) continue;                                  // a program
    const std::optional<std::string> number = LastNumber(problem.gold);  // golds have no thoughts
    const absl::StatusOr<Judgement> judged =
        number ? problems_->Judge(problem, *number) : Judgement{.correct = 0, .dense = {}, .verdict = "none"};
    RETURN_IF_ERROR(judged.status());
    if (judged->correct == 1) continue;
    if (missed++ == 0) first = Concat(problem.id, ": \"", Printable(problem.gold, 60), "\"");
  }
  if (missed == 0) return absl::OkStatus();
  const std::string what =
      Concat("answer.where is LAST_NUMBER, and ", missed, " of ", looked_at,
             " golds are not one number (first ", first, "); no answer to them can be right; ");
  if (missed == looked_at) return UsageError(what + "set answer.where to BOXED, TAGS or LAST_LINE");
  LogLine(Concat("warning: ", what, "set answer.where to BOXED, TAGS or LAST_LINE, or leave them out"));
  return absl::OkStatus();
}

std::optional<std::string> Scorer::Extract(const SampledAnswer& answer) const {
  return IsCut(answer) ? std::nullopt : form_.Extract(answer.text);
}

absl::StatusOr<Judgement> Scorer::Judge(const Problem& problem, const SampledAnswer& answer) const {
  Judgement wrong{.correct = 0, .dense = std::nullopt, .verdict = "none"};
  if (problems_->has_dense()) wrong.dense = 0;
  const std::optional<std::string> extracted = Extract(answer);
  if (extracted) return problems_->Judge(problem, *extracted);
  if (IsCut(answer)) wrong.verdict = "unfinished";
  return wrong;
}

Reward Scorer::Value(const Part& part, const Problem& problem, const SampledAnswer& answer,
                     const Judgement& judgement) const {
  switch (part.kind) {
    case Kind::kCorrect:
      return judgement.correct;
    case Kind::kDense:
      return judgement.dense;
    case Kind::kFormat:
      return FormatReward(part.format, answer.text);
    case Kind::kLanguage:
      return LanguageConsistency(part.script, answer.text).value_or(1.0);  // "42" is of every language
    case Kind::kRepetition: {
      // A text of fewer words repeats no run of them.
      const Reward repeated = RepeatedWords(part.words, answer.text);
      return repeated ? -*repeated : 0.0;
    }
    case Kind::kOverlong:
      return LengthReward(part.length, answer.num_tokens);
    case Kind::kCoin: {
      const RandomStream coin(answer.seed, Concat("reward/coin/", problem.index));
      return coin.Bits(answer.sample) & 1 ? 1 : 0;
    }
  }
  return std::nullopt;
}

ScoredAnswer Scorer::Combine(const Problem& problem, const SampledAnswer& answer,
                             const Judgement& judgement) const {
  ScoredAnswer scored{.reward = std::nullopt,
                      .correct = judgement.correct,
                      .parts = {},
                      .verdict = judgement.verdict,
                      .extracted = form_.Extract(answer.text).value_or(""),
                      .visible = judgement.visible};
  std::vector<RewardPart> weighted;
  for (const Part& part : parts_) {
    const Reward value = Value(part, problem, answer, judgement);
    weighted.push_back({part.weight, value});
    if (value) scored.parts.emplace_back(part.name, *value);
  }
  if (answer.finished || unfinished_ != Unfinished::kLeftOut) scored.reward = WeightedReward(weighted);
  return scored;
}

absl::StatusOr<ScoredAnswer> Scorer::Score(const Problem& problem, const SampledAnswer& answer) const {
  ASSIGN_OR_RETURN(const Judgement judgement, Judge(problem, answer));
  return Combine(problem, answer, judgement);
}

bool Scorer::JudgesAgain(const SampledAnswer& answer) const {
  return RandomStream(answer.seed, "reward/judge_again").Uniform(answer.sample) < judge_again_;
}

std::string Scorer::Demonstration(const Problem& problem, uint64_t seed) const {
  const WorkedAnswer worked = problems_->Demonstration(problem, seed);
  return worked.answer.empty() ? "" : form_.Write(worked);
}

}  // namespace moebius
