#include "launch/train/validation.h"

#include <algorithm>
#include <cmath>

#include "core/base/strings.h"

namespace moebius {
namespace {

constexpr int64_t kTokensAtOnce = 4096;

}  // namespace

absl::StatusOr<Validation> Validation::Open(const std::string& path, int64_t sequence_length,
                                            int64_t vocab_size, int64_t max_tokens, bool document_mask) {
  ASSIGN_OR_RETURN(EvaluationPass pass, EvaluationPass::Open(path, sequence_length, vocab_size));
  if (pass.bytes() <= 0 || pass.num_labels() <= 0) {
    return DamagedError(Concat(path, ": holds no text to validate on; build it with moebius data build"));
  }
  return Validation(std::move(pass), sequence_length, max_tokens, document_mask);
}

int64_t Validation::SequencesAtOnce(int64_t sequence_length) {
  return std::max<int64_t>(1, kTokensAtOnce / sequence_length);
}

absl::StatusOr<std::optional<Validation::Result>> Validation::Run(Trainer& trainer, Extent extent,
                                                                  const Stop& stop) const {
  const int64_t wanted = max_tokens_ > 0 && extent == Extent::kUpToMaxTokens
                             ? std::min(max_tokens_, pass_.num_labels())
                             : pass_.num_labels();
  const int64_t at_once = SequencesAtOnce(sequence_length_) * trainer.mesh().layout().batch_shards();
  double nats = 0;
  int64_t labels = 0;
  std::vector<int32_t> tokens, ids, document_starts;
  for (int64_t i = 0; i < pass_.num_sequences() && labels < wanted;) {
    ASSIGN_OR_RETURN(const bool stopped, stop());
    if (stopped) return std::nullopt;
    ids.clear();
    std::vector<int32_t> starts{0}, documents{0};
    for (int64_t k = 0; k < at_once && i < pass_.num_sequences() && labels < wanted; ++k, ++i) {
      RETURN_IF_ERROR(pass_.GetSequence(i, &tokens, &document_starts));
      for (const int32_t start : document_starts) {
        if (start > 0 && start < std::ssize(tokens)) documents.push_back(starts.back() + start);
      }
      ids.insert(ids.end(), tokens.begin(), tokens.end());
      starts.push_back(static_cast<int32_t>(ids.size()));
      documents.push_back(starts.back());
      labels += static_cast<int64_t>(tokens.size()) - 1;
    }
    ASSIGN_OR_RETURN(const double sum,
                     trainer.Evaluate(ids, starts, document_mask_ ? documents : std::vector<int32_t>()));
    nats += sum;
  }
  Result result;
  result.whole_file = labels == pass_.num_labels();
  result.loss = nats / static_cast<double>(labels);
  result.bits_per_byte =
      result.loss * static_cast<double>(pass_.num_labels()) / (M_LN2 * static_cast<double>(pass_.bytes()));
  return result;
}

}  // namespace moebius
