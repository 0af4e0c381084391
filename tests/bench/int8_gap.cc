// What weights of 8 bits cost in precision: int8_gap MODEL TEXT [SEQUENCES [LENGTH]] decodes SEQUENCES pieces
// of LENGTH tokens of a text file token by token, once with the model's own weights and once with 8-bit
// copies, and prints one JSON line: nats a token of both, the mean KL divergence, how far apart the
// log-probabilities of the text's tokens are, and how often both have the same best token.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "core/generate/decoder.h"
#include "core/io/file.h"
#include "rl/evaluation/language_model.h"

namespace moebius {
namespace {

// ln p of every token of a row of logits.
std::vector<double> LogSoftmax(std::span<const float> logits) {
  const double largest = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float v : logits) sum += std::exp(v - largest);
  std::vector<double> out(logits.begin(), logits.end());
  for (double& v : out) v -= largest + std::log(sum);
  return out;
}

struct Gap {
  double own = 0, rounded = 0, divergence = 0, apart = 0, agreed = 0;

  void Add(std::span<const float> own_logits, std::span<const float> rounded_logits, int32_t token) {
    const std::vector<double> p = LogSoftmax(own_logits), q = LogSoftmax(rounded_logits);
    own -= p[token];
    rounded -= q[token];
    apart += std::abs(p[token] - q[token]);
    for (size_t i = 0; i < p.size(); ++i) divergence += std::exp(p[i]) * (p[i] - q[i]);
    agreed +=
        std::max_element(p.begin(), p.end()) - p.begin() == std::max_element(q.begin(), q.end()) - q.begin();
  }
};

int Main(int argc, char** argv) {
  if (argc < 3) return std::fprintf(stderr, "usage: int8_gap MODEL TEXT [SEQUENCES [LENGTH]]\n"), 64;
  const int64_t sequences = argc > 3 ? std::atoll(argv[3]) : 16,
                length = argc > 4 ? std::atoll(argv[4]) : 256;
  const auto model = LanguageModel::Load(argv[1], {});
  if (!model.ok()) return std::fprintf(stderr, "%s\n", model.status().ToString().c_str()), 66;
  const auto text = ReadFile(argv[2]);
  if (!text.ok()) return std::fprintf(stderr, "%s\n", text.status().ToString().c_str()), 66;
  if (sequences < 1 || length < 2 || length > (*model)->decoder().max_positions()) {
    return std::fprintf(stderr, "SEQUENCES is 1 or more, LENGTH 2 to the model's positions\n"), 64;
  }
  if (const absl::Status status = DecodeWeights::CheckInt8((*model)->backend()); !status.ok()) {
    return std::fprintf(stderr, "%s\n", status.ToString().c_str()), 64;
  }
  const std::vector<int32_t> ids = (*model)->tokenizer().Encode(*text);
  if (std::ssize(ids) < sequences * length) return std::fprintf(stderr, "the text is too short\n"), 64;
  const auto token = [&](int64_t s, int64_t t) { return ids[s * length + t]; };

  Decoder& own = (*model)->decoder();
  Decoder rounded((*model)->model(), (*model)->backend(), (*model)->stream(), {.int8 = true});
  std::vector<std::span<const int32_t>> starts;
  for (int64_t s = 0; s < sequences; ++s) starts.push_back(std::span(ids).subspan(s * length, 1));
  for (Decoder* decoder : {&own, &rounded}) {
    decoder->Reserve(sequences, length);
    decoder->Prefill(starts);
  }
  Gap gap;
  const int64_t vocab = own.vocab_size();
  for (int64_t t = 1; t < length; ++t) {
    const std::span<const float> a = own.CopyLogits(), b = rounded.CopyLogits();
    std::vector<int32_t> next;
    for (int64_t s = 0; s < sequences; ++s) {
      next.push_back(token(s, t));
      gap.Add(a.subspan(s * vocab, vocab), b.subspan(s * vocab, vocab), next.back());
    }
    if (t + 1 == length) break;
    own.Step(next);
    rounded.Step(next);
  }
  const double n = static_cast<double>(sequences * (length - 1));
  std::printf(
      "{\"tokens\":%.0f,\"nats_own\":%.5f,\"nats_int8\":%.5f,\"kl\":%.6f,\"logprob_gap\":%.5f,\"same_best\":%"
      ".4f}\n",
      n, gap.own / n, gap.rounded / n, gap.divergence / n, gap.apart / n, gap.agreed / n);
  return 0;
}

}  // namespace
}  // namespace moebius

int main(int argc, char** argv) { return moebius::Main(argc, argv); }
