// Which tokens of a file make up sequence i. Two packings: contiguous slices, and whole documents by best fit
// (Ding et al., "Fewer truncations improve language modeling", 2024), both without padding.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace moebius {

enum class Packing { kContiguous, kDocuments };

// Tokens [begin, begin + length) of a file, of one document with kDocuments.
struct Segment {
  int64_t begin = 0;
  int64_t length = 0;
};

// Sequences of exactly sequence_length + 1 tokens, of which the last is only a label.
class SequencePlan {
 public:
  // `document_starts`: ascending, first 0, all < num_tokens; used by kDocuments only and not kept.
  SequencePlan(Packing packing, std::span<const int64_t> document_starts, int64_t num_tokens,
               int64_t sequence_length);

  // 0 when the file is too short for one sequence. Contiguous sequences share their boundary token: there are
  // (num_tokens - 1) / sequence_length. What is left over at the end of the file waits for nobody: it is not
  // used.
  int64_t size() const { return size_; }
  // So many; of documents at most, as a token that only began the rest of a cut one counts.
  int64_t unused_tokens() const { return unused_; }

  // The segments of sequence i, in order; lengths sum to sequence_length + 1. Appends to *segments.
  void Segments(int64_t i, std::vector<Segment>* segments) const;

 private:
  void PackDocuments(std::span<const int64_t> document_starts, int64_t num_tokens);

  Packing packing_;
  int64_t sequence_length_;
  int64_t size_ = 0, unused_ = 0;
  std::vector<Segment> segments_;       // kDocuments: of all sequences
  std::vector<int64_t> first_segment_;  // kDocuments: size() + 1 positions in segments_
};

}  // namespace moebius
