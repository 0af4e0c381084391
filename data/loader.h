// Training sequences from token files. Which tokens make up sample g is a pure function of the options and g:
// it does not depend on batch sizes, ranks or what was read before, so a run resumes, reshards and ramps its
// batch exactly.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "data/mixture.h"
#include "data/packing.h"
#include "data/token_view.h"

namespace moebius {

struct LoaderOptions {
  struct Part {
    std::string path;   // token file
    double weight = 1;  // share of samples, relative to the other parts
  };
  std::vector<Part> parts;
  int64_t sequence_length = 0;  // S: positions of a sequence that have a label
  bool shuffle = true;          // another order in every epoch; else the order of the file
  Packing packing = Packing::kContiguous;
  uint64_t seed = 1;
  int64_t vocab_size = 0;  // of the model; files with a larger vocabulary are refused; 0: unknown
  double fim_rate = 0;     // share of documents rearranged prefix-suffix-middle (token_view.h)
};

// n sequences. tokens[i, j + 1] is the label of tokens[i, j]; all positions count.
struct Batch {
  int64_t first_sample = 0;
  int64_t num_sequences = 0;    // n
  int64_t sequence_length = 0;  // S
  std::vector<int32_t> tokens;  // [n, S + 1]
  // For each sequence the positions in [0, S) where a document (or a cut part of one) begins, ascending,
  // first 0.
  std::vector<std::vector<int32_t>> document_starts;
};

class Loader {
 public:
  // Errors: a missing (66) or damaged (65) file; UsageError (64) naming both numbers for a file whose
  // vocabulary is larger than the model's, for a file too short for one sequence, for parts made with
  // different tokenizers, and for fim_rate > 0 with a tokenizer without the three fill-in-the-middle tokens.
  static absl::StatusOr<std::unique_ptr<Loader>> Open(const LoaderOptions& options);

  // Sample g >= 0 into tokens[S + 1]; document_starts as in Batch. Samples go on for ever: after an epoch of
  // a part its next one begins. Thread-safe.
  absl::Status GetSequence(int64_t sample, std::span<int32_t> tokens,
                           std::vector<int32_t>* document_starts) const;
  // Samples [first, first + count).
  absl::Status GetBatch(int64_t first, int64_t count, Batch* batch) const;

  int64_t sequence_length() const { return options_.sequence_length; }
  // Sequences of part k in one epoch, and how often its data have been used once `samples` samples are done.
  int64_t sequences(int64_t k) const { return plans_[k].size(); }
  int64_t unused_tokens(int64_t k) const { return plans_[k].unused_tokens(); }  // in no sequence
  double epochs(int64_t k, int64_t samples) const;
  int64_t num_parts() const { return static_cast<int64_t>(views_.size()); }
  const TokenFile& file(int64_t k) const { return views_[k].file(); }

 private:
  Loader(LoaderOptions options, MixturePattern mixture)
      : options_(std::move(options)), mixture_(std::move(mixture)) {}
  absl::Status AddPart(const std::string& path);

  LoaderOptions options_;
  MixturePattern mixture_;
  std::vector<TokenView> views_;     // a part
  std::vector<SequencePlan> plans_;  // a part
};

// A whole token file in order, for validation: sequence i has the inputs [i*S, min((i+1)*S, num_tokens - 1)),
// each with the next token as label, so every token but the first is predicted once, the tail too.
class EvaluationPass {
 public:
  // Errors as Loader::Open.
  static absl::StatusOr<EvaluationPass> Open(const std::string& path, int64_t sequence_length,
                                             int64_t vocab_size);

  int64_t num_sequences() const { return num_sequences_; }
  int64_t num_labels() const { return file_->num_tokens() - 1; }
  // Of the text: bits per byte = sum of negative log-likelihoods (natural) / (ln 2 * bytes).
  int64_t bytes() const { return file_->info().bytes; }
  const TokenFile& file() const { return *file_; }
  // Resizes *tokens to inputs + 1: S + 1 but for the last sequence. document_starts as in Batch.
  absl::Status GetSequence(int64_t i, std::vector<int32_t>* tokens,
                           std::vector<int32_t>* document_starts) const;

 private:
  EvaluationPass(std::unique_ptr<TokenFile> file, int64_t sequence_length, int64_t num_sequences)
      : file_(std::move(file)), sequence_length_(sequence_length), num_sequences_(num_sequences) {}
  std::unique_ptr<TokenFile> file_;
  int64_t sequence_length_, num_sequences_;
};

}  // namespace moebius
