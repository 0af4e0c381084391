#include "data/packing.h"

#include <algorithm>
#include <map>

#include "core/base/check.h"

namespace moebius {
namespace {

struct Bin {
  std::vector<Segment> segments;
  int64_t room = 0;
};

// Best fit: every piece, longest first, goes where the least room is left over.
std::vector<Bin> BestFit(std::vector<Segment> pieces, int64_t capacity) {
  std::stable_sort(pieces.begin(), pieces.end(),
                   [](const Segment& a, const Segment& b) { return a.length > b.length; });
  std::vector<Bin> bins;
  std::map<int64_t, std::vector<size_t>> by_room;
  for (const Segment& piece : pieces) {
    const auto fit = by_room.lower_bound(piece.length);
    size_t index = bins.size();
    if (fit == by_room.end()) {
      bins.push_back({.segments = {}, .room = capacity});
    } else {
      index = fit->second.back();
      fit->second.pop_back();
      if (fit->second.empty()) by_room.erase(fit);
    }
    Bin& bin = bins[index];
    bin.segments.push_back(piece);
    bin.room -= piece.length;
    if (bin.room > 0) by_room[bin.room].push_back(index);
  }
  return bins;
}

// No padding: the emptiest bins are cut up to fill the others; at most one partly filled bin is dropped.
void FillRoom(std::vector<Bin>* bins) {
  std::stable_sort(bins->begin(), bins->end(), [](const Bin& a, const Bin& b) { return a.room < b.room; });
  size_t taker = 0;
  while (taker < bins->size()) {
    Bin& bin = (*bins)[taker];
    if (bin.room == 0) {
      ++taker;
      continue;
    }
    if (taker + 1 == bins->size()) {
      bins->pop_back();
      return;
    }
    Bin& donor = bins->back();
    Segment& last = donor.segments.back();
    const int64_t length = std::min(bin.room, last.length);
    bin.segments.push_back({last.begin, length});
    bin.room -= length;
    last = {last.begin + length, last.length - length};
    if (last.length == 0) donor.segments.pop_back();
    if (donor.segments.empty()) bins->pop_back();
  }
}

}  // namespace

SequencePlan::SequencePlan(Packing packing, std::span<const int64_t> document_starts, int64_t num_tokens,
                           int64_t sequence_length)
    : packing_(packing), sequence_length_(sequence_length) {
  CHECK_GE(sequence_length, 1);
  if (packing == Packing::kContiguous) {
    size_ = num_tokens < 1 ? 0 : (num_tokens - 1) / sequence_length;
    unused_ = size_ > 0 ? num_tokens - 1 - size_ * sequence_length : num_tokens;
  } else {
    PackDocuments(document_starts, num_tokens);
  }
}

void SequencePlan::PackDocuments(std::span<const int64_t> document_starts, int64_t num_tokens) {
  const int64_t capacity = sequence_length_ + 1;
  std::vector<Bin> bins;
  std::vector<Segment> pieces;
  for (size_t d = 0; d < document_starts.size(); ++d) {
    int64_t begin = document_starts[d];
    const int64_t end = d + 1 < document_starts.size() ? document_starts[d + 1] : num_tokens;
    // Full slices of a long document overlap by the label token, as contiguous sequences do.
    for (; end - begin > capacity; begin += sequence_length_) {
      bins.push_back({.segments = {{begin, capacity}}, .room = 0});
    }
    if (end > begin) pieces.push_back({begin, end - begin});
  }
  std::vector<Bin> packed = BestFit(std::move(pieces), capacity);
  for (const Bin& bin : packed) unused_ += capacity - bin.room;
  FillRoom(&packed);
  unused_ -= std::ssize(packed) * capacity;
  std::move(packed.begin(), packed.end(), std::back_inserter(bins));
  std::sort(bins.begin(), bins.end(),
            [](const Bin& a, const Bin& b) { return a.segments[0].begin < b.segments[0].begin; });
  first_segment_.push_back(0);
  for (const Bin& bin : bins) {
    segments_.insert(segments_.end(), bin.segments.begin(), bin.segments.end());
    first_segment_.push_back(static_cast<int64_t>(segments_.size()));
  }
  size_ = static_cast<int64_t>(bins.size());
}

void SequencePlan::Segments(int64_t i, std::vector<Segment>* segments) const {
  CHECK(i >= 0 && i < size_) << "sequence " << i << " of " << size_;
  if (packing_ == Packing::kContiguous) {
    segments->push_back({i * sequence_length_, sequence_length_ + 1});
    return;
  }
  segments->insert(segments->end(), segments_.begin() + first_segment_[i],
                   segments_.begin() + first_segment_[i + 1]);
}

}  // namespace moebius
