// From a sampled text to its reward: find the answer, judge it, weigh the parts. Pure but for programs, whose
// verdicts may depend on time.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "rl/problems/answer_form.h"
#include "rl/problems/problem.h"
#include "rl/reward/text_reward.h"

namespace moebius {

namespace proto {
class Reward;
}

struct SampledAnswer {
  std::string_view text;  // without the end marker
  int64_t num_tokens = 0;
  bool finished = true;  // false: cut at the limit of tokens
  // For "coin" and JudgesAgain: of the run, and the sample's number in it. The coin is a pure function of
  // both and of the problem's index.
  uint64_t seed = 0;
  uint64_t sample = 0;
};

struct ScoredAnswer {
  std::optional<double> reward;  // nullopt: a part could not be computed; leave the sample out and count it
  std::optional<double> correct;
  std::vector<std::pair<std::string, double>> parts;  // values without weights, of those that were computed
  std::string verdict;  // of the judgement; "none": the text has no answer; "unfinished" (unfinished: WRONG)
  std::string extracted;                         // "": the text has no answer
  std::optional<double> visible = std::nullopt;  // Judgement's
  // Of answers that were judged twice: whether the second judgement was another.
  std::optional<bool> differs = std::nullopt;
};

// Every method may be called from several threads.
class Scorer {
 public:
  // `problems` is borrowed and outlives the scorer. UsageError naming the field for an unknown part, an
  // option out of its range, a part twice, "dense" where the problems have no such score, "format" where
  // answers are not in tags, and LAST_NUMBER where no gold is one (where some are not, a warning is logged).
  static absl::StatusOr<Scorer> Make(const proto::Reward& reward, const proto::Answer& answer,
                                     const ProblemSet& problems);

  // Combine(Judge()). A text without an answer is wrong: correct 0, dense 0.
  absl::StatusOr<ScoredAnswer> Score(const Problem& problem, const SampledAnswer& answer) const;

  // The two halves, for who keeps a journal of judgements that depend on time. Judge is a function of the
  // problem and of Extract, the answer that is found in the text; nullopt where there is none, or where it
  // was cut short and such answers are wrong without a look.
  std::optional<std::string> Extract(const SampledAnswer& answer) const;
  absl::StatusOr<Judgement> Judge(const Problem& problem, const SampledAnswer& answer) const;
  ScoredAnswer Combine(const Problem& problem, const SampledAnswer& answer, const Judgement& judgement) const;

  // Whether an answer whose judgement depends on time is among the share that is judged twice, to see whether
  // the judge is to be trusted. A pure function of the answer's seed and sample.
  bool JudgesAgain(const SampledAnswer& answer) const;

  // ProblemSet::Demonstration in the form that the answer is looked for in; "" where there is none.
  std::string Demonstration(const Problem& problem, uint64_t seed) const;

 private:
  enum class Kind { kCorrect, kDense, kFormat, kLanguage, kRepetition, kOverlong, kCoin };
  struct Part {
    Kind kind;
    std::string name;
    double weight;
    FormatOptions format = {};
    Script script = Script::kLatin;
    int64_t words = 0;
    LengthShaping length = {};
  };
  enum class Unfinished { kJudged, kWrong, kLeftOut };

  Scorer(AnswerForm form, const ProblemSet& problems) : form_(std::move(form)), problems_(&problems) {}
  absl::Status CheckGoldsAreNumbers() const;
  // Wrong without a look.
  bool IsCut(const SampledAnswer& answer) const {
    return !answer.finished && unfinished_ == Unfinished::kWrong;
  }
  absl::StatusOr<Part> ReadPart(const proto::Reward& reward, int index) const;
  Reward Value(const Part& part, const Problem& problem, const SampledAnswer& answer,
               const Judgement& judgement) const;

  AnswerForm form_;
  const ProblemSet* problems_;
  std::vector<Part> parts_;
  Unfinished unfinished_ = Unfinished::kJudged;
  double judge_again_ = 0;  // share
};

}  // namespace moebius
