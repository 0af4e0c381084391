#include "rl/evaluation/ask.h"

#include <algorithm>
#include <cmath>
#include <span>

#include "core/base/check.h"

namespace moebius {
namespace {

// The text of one answer while it grows.
class GrowingAnswer {
 public:
  GrowingAnswer(const Tokenizer& tokenizer, const std::vector<std::string>& stops)
      : decoder_(tokenizer), stops_(stops) {}

  void Push(int32_t id) { Append(decoder_.Push(id)); }
  std::string Finish() {
    if (!stopped_) Append(decoder_.Finish());
    return std::move(text_);
  }
  bool stopped() const { return stopped_; }

 private:
  void Append(const std::string& piece) {
    const size_t before = text_.size();
    text_ += piece;
    size_t cut = text_.npos;
    for (const std::string& stop : stops_) {
      const size_t from = before - std::min(before, stop.size() - 1);
      cut = std::min(cut, text_.find(stop, from));
    }
    if (cut == text_.npos) return;
    text_.resize(cut);
    stopped_ = true;
  }

  StreamDecoder decoder_;
  const std::vector<std::string>& stops_;
  std::string text_;
  bool stopped_ = false;
};

double LogProb(std::span<const float> logits, int32_t id) {
  const double highest = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float logit : logits) sum += std::exp(logit - highest);
  return logits[id] - highest - std::log(sum);
}

}  // namespace

absl::StatusOr<std::vector<ModelAnswer>> WriteAnswers(LanguageModel& model,
                                                      const std::vector<AnswerRequest>& requests,
                                                      const AnswerOptions& options) {
  const std::vector<int32_t>& ends = model.stop_ids();
  std::vector<GenerateRequest> generate;
  std::vector<GrowingAnswer> growing;
  std::vector<ModelAnswer> out(requests.size());
  for (const AnswerRequest& request : requests) {
    generate.push_back({.prompt = request.prompt,
                        .max_new = request.max_new,
                        .sampling = options.sampling,
                        .sequence = request.sequence,
                        .stop = ends});
    growing.emplace_back(model.tokenizer(), options.stops);
  }
  const auto on_token = [&](size_t i, const SampledToken& token) {
    const bool end = std::find(ends.begin(), ends.end(), token.id) != ends.end();
    if (!end) growing[i].Push(token.id);
    out[i].finished = end || growing[i].stopped();
    const bool done = out[i].finished || ++out[i].tokens >= requests[i].max_new;
    if (done && options.on_done != nullptr) options.on_done();
    return !done;
  };
  ASSIGN_OR_RETURN(
      const std::vector<GenerateResult> results,
      Generate(model.decoder(), generate, {.max_batch = options.max_batch, .on_token = on_token}));
  for (size_t i = 0; i < results.size(); ++i) {
    out[i].text = growing[i].Finish();
    out[i].tokens = std::ssize(results[i].tokens);
  }
  return out;
}

absl::StatusOr<OptionTokens> SplitOption(const LanguageModel& model, const std::string& prompt,
                                         const std::string& option) {
  ASSIGN_OR_RETURN(const std::vector<int32_t> alone, model.TextPrompt(prompt));
  ASSIGN_OR_RETURN(const std::vector<int32_t> whole, model.TextPrompt(prompt + option));
  if (whole.size() < 2)
    return UsageError("prompt and option are one token; there is nothing to compare; give more text");
  const size_t split = std::min(alone.size(), whole.size() - 1);
  return OptionTokens{{whole.begin(), whole.begin() + split}, {whole.begin() + split, whole.end()}};
}

std::vector<double> OptionLogProbs(LanguageModel& model, const std::vector<OptionTokens>& options) {
  Decoder& decoder = model.decoder();
  int64_t capacity = 1;
  for (const OptionTokens& o : options)
    capacity = std::max<int64_t>(capacity, std::ssize(o.before) + std::ssize(o.option) - 1);
  CHECK_LE(capacity, decoder.max_positions());
  decoder.Reserve(std::ssize(options), capacity);
  // Different prompts get the first slots, options that share one get copies.
  std::vector<std::span<const int32_t>> prompts;
  std::vector<int64_t> prompt_of, slot_of;
  for (const OptionTokens& o : options) {
    const auto same = [&](std::span<const int32_t> p) {
      return std::equal(p.begin(), p.end(), o.before.begin(), o.before.end());
    };
    const int64_t p = std::find_if(prompts.begin(), prompts.end(), same) - prompts.begin();
    if (p == std::ssize(prompts)) prompts.push_back(o.before);
    prompt_of.push_back(p);
  }
  decoder.Prefill(prompts);
  const int64_t vocab = decoder.vocab_size();
  std::span<const float> logits = decoder.CopyLogits();
  std::vector<double> sums;
  for (size_t i = 0; i < options.size(); ++i)
    sums.push_back(LogProb(logits.subspan(prompt_of[i] * vocab, vocab), options[i].option[0]));
  for (size_t i = 0; i < options.size(); ++i) {
    const bool first =
        std::find(prompt_of.begin(), prompt_of.begin() + i, prompt_of[i]) == prompt_of.begin() + i;
    slot_of.push_back(first ? prompt_of[i] : decoder.live());
    if (!first) decoder.Fork(prompt_of[i]);
  }
  size_t longest = 0;
  for (const OptionTokens& o : options) longest = std::max(longest, o.option.size());
  std::vector<int32_t> tokens(options.size());
  for (size_t t = 0; t + 1 < longest; ++t) {
    // An option that has ended goes on with its last token, which nobody looks at.
    for (size_t i = 0; i < options.size(); ++i)
      tokens[slot_of[i]] = options[i].option[std::min(t, options[i].option.size() - 1)];
    decoder.Step(tokens);
    logits = decoder.CopyLogits();
    for (size_t i = 0; i < options.size(); ++i)
      if (t + 1 < options[i].option.size())
        sums[i] += LogProb(logits.subspan(slot_of[i] * vocab, vocab), options[i].option[t + 1]);
  }
  return sums;
}

}  // namespace moebius
