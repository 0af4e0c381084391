// Loss on held-out text, in nats a token and bits a byte (contract: "val/bpb").
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "data/loader.h"
#include "optim/trainer.h"

namespace moebius {

class Validation {
 public:
  // max_tokens: stop after that many labels, 0 for the whole file. document_mask: documents do not see one
  // another.
  static absl::StatusOr<Validation> Open(const std::string& path, int64_t sequence_length, int64_t vocab_size,
                                         int64_t max_tokens, bool document_mask);

  const TokenFile& file() const { return pass_.file(); }
  // That a rank's forward pass runs over; each of at most sequence_length + 1 tokens.
  static int64_t SequencesAtOnce(int64_t sequence_length);

  struct Result {
    double loss = 0;           // mean cross-entropy of the predicted tokens, nats
    double bits_per_byte = 0;  // of the whole file's text; an estimate when only a part was read
    bool whole_file = true;
  };
  enum class Extent { kUpToMaxTokens, kWholeFile };
  // Collective. Before each forward pass `stop`, collective too, is asked; nullopt where it says so.
  using Stop = std::function<absl::StatusOr<bool>()>;
  absl::StatusOr<std::optional<Result>> Run(Trainer& trainer, Extent extent, const Stop& stop) const;

 private:
  Validation(EvaluationPass pass, int64_t sequence_length, int64_t max_tokens, bool document_mask)
      : pass_(std::move(pass)),
        sequence_length_(sequence_length),
        max_tokens_(max_tokens),
        document_mask_(document_mask) {}

  EvaluationPass pass_;
  int64_t sequence_length_;
  int64_t max_tokens_;
  bool document_mask_;
};

}  // namespace moebius
