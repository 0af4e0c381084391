#include "core/generate/generate.h"

#include <algorithm>
#include <memory>

#include "core/base/strings.h"
#include "core/generate/batch_sampler.h"

namespace moebius {
namespace {

absl::Status Check(const GenerateRequest& r, size_t index, const Decoder& decoder) {
  const std::string name = Concat("request ", index);
  if (r.prompt.empty()) return UsageError(name + ": the prompt has no tokens; give at least one");
  if (r.max_new < 1)
    return UsageError(Concat(name, ": max_new = ", r.max_new, " is out of range; use 1 or more"));
  for (const int32_t id : r.prompt) {
    if (id < 0 || id >= decoder.vocab_size()) {
      return UsageError(Concat(name, ": token id ", id, " is outside the vocabulary of ",
                               decoder.vocab_size(), "; encode the prompt with this model's tokenizer"));
    }
  }
  const int64_t length = std::ssize(r.prompt) + r.max_new;
  if (length > decoder.max_positions()) {
    return UsageError(Concat(name, ": ", r.prompt.size(), " prompt tokens and ", r.max_new,
                             " new ones exceed the ", decoder.max_positions(),
                             " positions of the model; shorten one of them"));
  }
  return Annotate(Validate(r.sampling), name);
}

class Generation {
 public:
  Generation(Decoder& decoder, std::span<const GenerateRequest> requests, const GenerateOptions& options)
      : decoder_(decoder), requests_(requests), options_(options), results_(requests.size()) {}

  absl::StatusOr<std::vector<GenerateResult>> Run() {
    int64_t capacity = 1;
    for (size_t i = 0; i < requests_.size(); ++i) {
      RETURN_IF_ERROR(Check(requests_[i], i, decoder_));
      // The last token is never cached, but for a draft in its place.
      const int64_t uncached = decoder_.drafts() ? 0 : 1;
      capacity = std::max(capacity, std::ssize(requests_[i].prompt) + requests_[i].max_new - uncached);
    }
    batch_ = std::clamp<int64_t>(requests_.size(), 1, options_.max_batch);
    RETURN_IF_ERROR(decoder_.CanReserve(batch_, capacity));
    decoder_.Reserve(batch_, capacity);
    while (next_ < requests_.size() || !sequences_.empty()) {
      RETURN_IF_ERROR(Admit());
      RETURN_IF_ERROR(Step());
    }
    return std::move(results_);
  }

 private:
  struct Sequence {  // of slot i
    size_t request;
    std::unique_ptr<Sampler> sampler;  // draws_ points to it
    int32_t token = 0;                 // the newest, not yet in the cache
    bool done = false;
    // With drafts: what may follow `token`, and the rows of the logits that the last step's tokens are from.
    int32_t draft = 0;
    std::vector<int32_t> rows = {};
  };

  // Fills free slots with waiting requests, some at a time: a prefill of several is cheaper than several.
  absl::Status Admit() {
    const int64_t free = batch_ - std::ssize(sequences_);
    const int64_t waiting = requests_.size() - next_;
    if (waiting == 0 || (free < std::min(waiting, std::max<int64_t>(1, batch_ / 8)) && !sequences_.empty())) {
      return absl::OkStatus();
    }
    const size_t begin = next_, end = begin + std::min(free, waiting);
    std::vector<std::span<const int32_t>> prompts;
    std::vector<int64_t> prompt_of;  // of each admitted request, an index into prompts
    for (size_t i = begin; i < end; ++i) {
      if (i == begin || requests_[i].prompt != requests_[i - 1].prompt)
        prompts.push_back(requests_[i].prompt);
      prompt_of.push_back(std::ssize(prompts) - 1);
    }
    next_ = end;
    const int64_t first_slot = decoder_.live();
    decoder_.Prefill(prompts);
    draws_.clear();
    // First those in whose slots the prompts are, then the copies.
    for (int64_t p = 0; p < std::ssize(prompts); ++p) {
      const size_t i = begin + (std::find(prompt_of.begin(), prompt_of.end(), p) - prompt_of.begin());
      Start(i, p);
    }
    for (size_t i = begin + 1; i < end; ++i) {
      const int64_t p = prompt_of[i - begin];
      if (p != prompt_of[i - begin - 1]) continue;
      decoder_.Fork(first_slot + p);
      Start(i, p);
    }
    return Draw(first_slot);
  }

  void Start(size_t request, int64_t row) {
    const GenerateRequest& r = requests_[request];
    sequences_.push_back({request, std::make_unique<Sampler>(r.sampling, r.sequence, r.logprobs)});
    AddDraw(sequences_.back(), row, 0);
  }

  absl::Status Step() {
    if (sequences_.empty()) return absl::OkStatus();
    tokens_.clear();
    for (const Sequence& s : sequences_) tokens_.push_back(s.token);
    if (decoder_.drafts()) {
      for (const Sequence& s : sequences_) tokens_.push_back(s.draft);
    }
    decoder_.Step(tokens_);
    draws_.clear();
    const int64_t batch = std::ssize(sequences_);
    for (int64_t row = 0; row < std::ssize(tokens_); ++row)
      AddDraw(sequences_[row % batch], row, row / batch);
    return Draw(0);
  }

  // `ahead`: how many tokens after the one that the sequence gets next.
  void AddDraw(const Sequence& s, int64_t row, int64_t ahead) {
    const int64_t position = std::ssize(requests_[s.request].prompt) + std::ssize(results_[s.request].tokens);
    draws_.push_back({s.sampler.get(), static_cast<int32_t>(row), position + ahead});
  }

  // Draws draws_: those of the sequences from `first` on, and after a step with drafts those that follow the
  // drafts. Sequences that are done leave, the others get their next drafts.
  absl::Status Draw(int64_t first) {
    const auto tokens = batch_sampler_.Sample(decoder_, draws_);
    const int64_t batch = std::ssize(sequences_) - first;
    const bool drafted = std::ssize(tokens) > batch;
    for (int64_t i = 0; i < batch; ++i) {
      Sequence& s = sequences_[first + i];
      s.rows = {draws_[i].row};
      RETURN_IF_ERROR(Take(s, tokens[i]));
      if (!drafted) continue;
      const bool accepted = s.token == s.draft;
      ++results_[s.request].drafts;
      results_[s.request].accepted_drafts += accepted;
      if (s.done) continue;
      if (accepted) {
        s.rows.push_back(draws_[batch + i].row);
        RETURN_IF_ERROR(Take(s, tokens[batch + i]));
      } else {
        decoder_.Truncate(first + i, decoder_.length(first + i) - 1);
      }
    }
    DropDone();
    if (decoder_.drafts()) Draft(first);
    return absl::OkStatus();
  }

  // Of the sequences from `first` on, which have just drawn.
  void Draft(int64_t first) {
    pairs_.clear();
    for (int64_t i = first; i < std::ssize(sequences_); ++i) {
      const Sequence& s = sequences_[i];
      const auto drawn = results_[s.request].tokens.end() - std::ssize(s.rows);
      for (size_t k = 0; k < s.rows.size(); ++k) pairs_.push_back({i, s.rows[k], drawn[k]});
    }
    const std::span<const int32_t> drafts = decoder_.Draft(first, pairs_);
    for (size_t i = 0; i < drafts.size(); ++i) sequences_[first + i].draft = drafts[i];
  }

  absl::Status Take(Sequence& s, const absl::StatusOr<SampledToken>& token) {
    const GenerateRequest& r = requests_[s.request];
    GenerateResult& result = results_[s.request];
    if (!token.ok()) return Annotate(token.status(), Concat("request ", s.request));
    s.token = token->id;
    result.tokens.push_back(token->id);
    if (r.logprobs != LogProbs::kNo) {
      result.logprobs.push_back(token->logprob);
      result.sampling_logprobs.push_back(token->sampling_logprob);
    }
    const bool stop = std::find(r.stop.begin(), r.stop.end(), token->id) != r.stop.end();
    if (stop) result.reason = StopReason::kStopToken;
    s.done = stop || std::ssize(result.tokens) >= r.max_new;
    if (options_.on_token != nullptr && !options_.on_token(s.request, *token)) s.done = true;
    return absl::OkStatus();
  }

  // From the end, as the last slot moves into the freed one.
  void DropDone() {
    for (int64_t i = std::ssize(sequences_); i-- > 0;) {
      if (!sequences_[i].done) continue;
      GenerateResult& result = results_[sequences_[i].request];
      // A draft, kept or not, may stand in the cache in the place of the last token.
      decoder_.Truncate(i,
                        std::ssize(requests_[sequences_[i].request].prompt) + std::ssize(result.tokens) - 1);
      const std::span<const Route> routes = decoder_.routes(i);
      result.routes.assign(routes.begin(), routes.end());
      decoder_.Drop(i);
      if (options_.on_result != nullptr) options_.on_result(sequences_[i].request, result);
      if (i + 1 < std::ssize(sequences_)) sequences_[i] = std::move(sequences_.back());
      sequences_.pop_back();
    }
  }

  Decoder& decoder_;
  std::span<const GenerateRequest> requests_;
  const GenerateOptions& options_;
  std::vector<GenerateResult> results_;
  std::vector<Sequence> sequences_;  // one a live slot, in order
  std::vector<int32_t> tokens_;
  std::vector<BatchSampler::Item> draws_;
  std::vector<DraftPair> pairs_;
  BatchSampler batch_sampler_;
  size_t next_ = 0;  // request to admit
  int64_t batch_ = 0;
};

}  // namespace

absl::StatusOr<std::vector<GenerateResult>> Generate(Decoder& decoder,
                                                     std::span<const GenerateRequest> requests,
                                                     const GenerateOptions& options) {
  return Generation(decoder, requests, options).Run();
}

}  // namespace moebius
