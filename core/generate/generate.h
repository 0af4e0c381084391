// Text generation over token ids: many requests through one Decoder, in a batch that sequences join when
// there is room and leave when they end.
//
// With a decoder that drafts (DecoderOptions::drafts) a step also runs the token that the MTP module expects
// next. It is kept exactly when it is the token that the sequence draws there anyway, by the random number of
// that position; then the step has given two tokens. So drafts change no distribution, and no text at all
// where a token's logits do not depend on the batch (an exact decoder; elsewhere they differ by rounding).
// The chance to keep a draft is its probability under the model, as in the rule of Leviathan et al.
// (arXiv:2211.17192) for a draft that is certain.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "core/base/status.h"
#include "core/generate/decoder.h"
#include "core/generate/sampler.h"

namespace moebius {

struct GenerateRequest {
  std::vector<int32_t> prompt;  // not empty
  int64_t max_new = 128;        // 1 or more
  SamplingParams sampling = {};
  uint64_t sequence = 0;           // tells apart requests of one seed (samples of one prompt); below 2^32
  std::vector<int32_t> stop = {};  // ids that end the sequence
  LogProbs logprobs = LogProbs::kNo;
};

enum class StopReason { kStopToken, kLength };

struct GenerateResult {
  std::vector<int32_t> tokens;           // new tokens, the stop token included
  std::vector<float> logprobs;           // of each, when asked for: see SampledToken. With kAsTrained and an
                                         // exact decoder, the bits of the training forward's
  std::vector<float> sampling_logprobs;  // likewise
  // Decoder::routes of the prompt and all new tokens but the last, where the decoder keeps them.
  std::vector<Route> routes;
  StopReason reason = StopReason::kLength;
  int64_t drafts = 0;           // of the MTP module, one a step
  int64_t accepted_drafts = 0;  // those that were the token drawn
};

struct GenerateOptions {
  int64_t max_batch = 64;  // sequences decoded at once
  // Called for every token as it is drawn; false ends that request.
  std::function<bool(size_t request, const SampledToken& token)> on_token = nullptr;
  // Called for every request as it ends, in whatever order they do.
  std::function<void(size_t request, const GenerateResult& result)> on_result = nullptr;
};

// Results in the order of the requests. Neither batch size nor company changes a request's random numbers
// (its logits only by rounding). Requests in a row with the same prompt share its prefill. UsageError names
// the request whose prompt is empty, holds an unknown id or is too long; BadNumbersError when logits are not
// finite.
absl::StatusOr<std::vector<GenerateResult>> Generate(Decoder& decoder,
                                                     std::span<const GenerateRequest> requests,
                                                     const GenerateOptions& options);

}  // namespace moebius
