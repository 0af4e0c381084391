#include "rl/evaluation/evaluate.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "core/base/check.h"
#include "core/base/status.h"
#include "core/base/strings.h"
#include "rl/evaluation/ask.h"

namespace moebius {
namespace {

// Characters of UTF-8 text.
int64_t Characters(std::string_view text) {
  return std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; });
}

std::string_view WithoutLeadingBlank(std::string_view text) {
  text.remove_prefix(text.starts_with(' ') ? 1 : 0);
  return text;
}

class Evaluator {
 public:
  Evaluator(LanguageModel& model, const Benchmark& benchmark, const EvaluateOptions& options,
            const EvaluationEvents& events)
      : model_(model),
        benchmark_(benchmark),
        options_(options),
        events_(events),
        positions_(model.decoder().max_positions()),
        verdicts_(benchmark.questions.size()) {
    out_.max_new = options.max_new.value_or(benchmark.max_new);
  }

  absl::StatusOr<Evaluation> Run() {
    const auto start = std::chrono::steady_clock::now();
    const int64_t questions = std::ssize(benchmark_.questions);
    const bool compares = benchmark_.grader == nullptr;
    samples_ = compares ? 1 : options_.samples;
    total_ = questions * samples_;
    CHECK_LT(total_, int64_t{1} << 32) << "sequences are numbered in 32 bits";
    // Two batches at a time: a batch's slots stay full and verdicts come while the rest is written.
    const int64_t step = compares ? 1 : std::max<int64_t>(1, 2 * options_.max_batch / samples_);
    for (int64_t begin = 0; begin < questions; begin += step) {
      const int64_t end = std::min(begin + step, questions);
      RETURN_IF_ERROR(compares ? Compare(begin) : Write(begin, end));
    }
    if (questions > 0 && out_.too_long == total_) {
      return UsageError(Concat(benchmark_.name, ": no question fits the model's ", positions_,
                               " positions; their prompts are longer; use another benchmark or model"));
    }
    out_.tally = TallyVerdicts(benchmark_.questions, verdicts_, benchmark_.grader.get());
    out_.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    return std::move(out_);
  }

 private:
  // The prompt with as many examples as fit beside `room` more tokens; nothing where even none does.
  template <typename MakePrompt>
  auto Fit(const MakePrompt& make, const Question& question, int64_t room) -> decltype(make(0)) {
    const int64_t most =
        std::min<int64_t>(benchmark_.shots, std::ssize(benchmark_.examples[question.examples].examples));
    for (int64_t shots = most;; --shots) {
      auto prompt = make(shots);
      if (!prompt.ok()) return prompt;
      const bool fits = Tokens(*prompt) + room <= positions_;
      if (fits && shots < most) ++out_.fewer_shots;
      if (fits) return prompt;
      if (shots == 0) {
        prompt->clear();
        return prompt;
      }
    }
  }
  static int64_t Tokens(const std::vector<int32_t>& ids) { return std::ssize(ids); }
  static int64_t Tokens(const std::vector<OptionTokens>& options) {
    int64_t longest = 0;
    for (const OptionTokens& o : options)
      longest = std::max(longest, std::ssize(o.before) + std::ssize(o.option));
    return longest;
  }

  absl::Status TooLong(const Question& question, size_t index) {
    for (int64_t s = 0; s < samples_; ++s) {
      Sample sample{.question = question, .index = s};
      sample.graded = {.outcome = Outcome::kWrong, .verdict = "too long"};
      ++out_.too_long;
      RETURN_IF_ERROR(Take(std::move(sample), index));
      Progress();
    }
    return absl::OkStatus();
  }

  absl::Status Take(Sample sample, size_t question) {
    out_.cut += sample.cut;
    out_.tokens += sample.tokens;
    verdicts_[question].push_back(sample.graded);
    return events_.on_sample == nullptr ? absl::OkStatus() : events_.on_sample(sample);
  }

  void Progress() {
    ++done_;
    if (events_.on_progress != nullptr) events_.on_progress(done_, total_);
  }

  absl::Status Write(int64_t begin, int64_t end) {
    const bool chat = model_.chat().has_value();
    const int64_t room = std::max<int64_t>(1, std::min(out_.max_new, positions_ / 4));
    std::vector<AnswerRequest> requests;
    std::vector<std::vector<int32_t>> prompts;
    for (int64_t q = begin; q < end; ++q) {
      const Question& question = benchmark_.questions[q];
      const auto make = [&](int64_t shots) {
        return chat ? model_.ChatPrompt(BenchmarkMessages(benchmark_, question, shots))
                    : model_.TextPrompt(BenchmarkText(benchmark_, question, shots));
      };
      ASSIGN_OR_RETURN(std::vector<int32_t> prompt, Fit(make, question, room));
      const int64_t max_new = std::min(out_.max_new, positions_ - std::ssize(prompt));
      for (int64_t s = 0; s < samples_ && !prompt.empty(); ++s)
        requests.push_back(
            {.prompt = prompt, .max_new = max_new, .sequence = static_cast<uint64_t>(q * samples_ + s)});
      prompts.push_back(std::move(prompt));
    }
    ASSIGN_OR_RETURN(std::vector<ModelAnswer> answers, WriteAnswers(model_, requests,
                                                                    {.sampling = options_.sampling,
                                                                     .stops = benchmark_.stops,
                                                                     .max_batch = options_.max_batch,
                                                                     .on_done = [&] { Progress(); }}));
    std::vector<Attempt> attempts;
    for (size_t i = 0; i < answers.size(); ++i) {
      // The prompt of such a template has opened the thoughts.
      if (chat && model_.chat()->opens_thinking) answers[i].text.insert(0, "<think>\n");
      attempts.push_back({.question = requests[i].sequence / samples_, .answer = answers[i].text});
    }
    ASSIGN_OR_RETURN(std::vector<Graded> graded, benchmark_.grader->Grade(attempts));
    size_t next = 0;
    for (int64_t q = begin; q < end; ++q) {
      const Question& question = benchmark_.questions[q];
      const std::vector<int32_t>& prompt = prompts[q - begin];
      if (prompt.empty()) {
        RETURN_IF_ERROR(TooLong(question, q));
        continue;
      }
      const std::string text = model_.tokenizer().DecodeText(prompt);
      for (int64_t s = 0; s < samples_; ++s, ++next) {
        RETURN_IF_ERROR(Take({.question = question,
                              .index = s,
                              .prompt = text,
                              .answer = std::move(answers[next].text),
                              .logprobs = {},
                              .graded = std::move(graded[next]),
                              .tokens = answers[next].tokens,
                              .cut = !answers[next].finished},
                             q));
      }
    }
    return absl::OkStatus();
  }

  absl::Status Compare(int64_t q) {
    const Question& question = benchmark_.questions[q];
    const auto make = [&](int64_t shots) -> absl::StatusOr<std::vector<OptionTokens>> {
      const std::string text = BenchmarkText(benchmark_, question, shots);
      std::vector<OptionTokens> options;
      for (const std::string& option : question.options) {
        ASSIGN_OR_RETURN(options.emplace_back(), SplitOption(model_, text, option));
      }
      return options;
    };
    ASSIGN_OR_RETURN(const std::vector<OptionTokens> options, Fit(make, question, 0));
    if (options.empty()) return TooLong(question, q);
    Sample sample{.question = question, .logprobs = OptionLogProbs(model_, options)};
    for (const double logprob : sample.logprobs) {
      if (std::isfinite(logprob)) continue;
      return BadNumbersError(Concat(question.id,
                                    ": a log-probability is not finite; the weights hold NaN or "
                                    "far too large numbers; take an earlier checkpoint"));
    }
    size_t best = 0;
    std::vector<double> scores;
    for (size_t i = 0; i < options.size(); ++i) {
      const int64_t length = std::max<int64_t>(1, Characters(WithoutLeadingBlank(question.options[i])));
      scores.push_back(sample.logprobs[i] / static_cast<double>(length));
      if (scores[i] > scores[best]) best = i;
    }
    sample.prompt = model_.tokenizer().DecodeText(options[0].before);
    sample.answer = WithoutLeadingBlank(question.options[best]);
    const std::string letter(1, static_cast<char>('A' + best));
    const bool right = letter == question.gold;
    sample.graded = {.outcome = right ? Outcome::kRight : Outcome::kWrong,
                     .extracted = letter,
                     .verdict = right ? "equal" : "different"};
    Progress();
    return Take(std::move(sample), q);
  }

  LanguageModel& model_;
  const Benchmark& benchmark_;
  const EvaluateOptions& options_;
  const EvaluationEvents& events_;
  const int64_t positions_;
  std::vector<std::vector<Graded>> verdicts_;
  Evaluation out_;
  int64_t samples_ = 1, done_ = 0, total_ = 0;
};

}  // namespace

std::string BenchmarkText(const Benchmark& benchmark, const Question& question, int64_t shots) {
  const ExampleSet& set = benchmark.examples[question.examples];
  std::string text = set.header;
  for (int64_t i = 0; i < std::min(shots, std::ssize(set.examples)); ++i)
    text += set.examples[i].ask + set.examples[i].answer + "\n\n";
  return text + question.ask;
}

std::vector<ChatMessage> BenchmarkMessages(const Benchmark& benchmark, const Question& question,
                                           int64_t shots) {
  const ExampleSet& set = benchmark.examples[question.examples];
  std::vector<ChatMessage> messages;
  for (int64_t i = 0; i < std::min(shots, std::ssize(set.examples)); ++i) {
    messages.push_back({"user", set.examples[i].ask});
    messages.push_back({"assistant", std::string(WithoutLeadingBlank(set.examples[i].answer))});
  }
  messages.push_back({"user", question.ask});
  return messages;
}

absl::StatusOr<Evaluation> Evaluate(LanguageModel& model, const Benchmark& benchmark,
                                    const EvaluateOptions& options, const EvaluationEvents& events) {
  return Evaluator(model, benchmark, options, events).Run();
}

}  // namespace moebius
