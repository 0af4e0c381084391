#include "core/model/microbatch.h"

#include <numeric>

namespace moebius {
namespace {

// Positions 0, 1, ... of sequences that lie one after another.
std::vector<int32_t> Positions(const std::vector<int32_t>& starts) {
  std::vector<int32_t> positions(starts.back());
  for (size_t s = 0; s + 1 < starts.size(); ++s) {
    std::iota(positions.begin() + starts[s], positions.begin() + starts[s + 1], 0);
  }
  return positions;
}

std::vector<int32_t> EvenStarts(int64_t sequences, int64_t length) {
  std::vector<int32_t> starts(sequences + 1);
  for (int64_t s = 0; s <= sequences; ++s) starts[s] = s * length;
  return starts;
}

// Sequence starts with the documents' starts below `length` merged in.
std::vector<int32_t> MaskedStarts(int64_t sequences, int64_t length,
                                  const std::vector<std::vector<int32_t>>& document_starts) {
  if (document_starts.empty()) return EvenStarts(sequences, length);
  CHECK_EQ(document_starts.size(), static_cast<size_t>(sequences));
  std::vector<int32_t> starts;
  for (int64_t s = 0; s < sequences; ++s) {
    starts.push_back(s * length);
    for (const int32_t start : document_starts[s]) {
      if (start > 0 && start < length) starts.push_back(s * length + start);
    }
  }
  starts.push_back(sequences * length);
  return starts;
}

}  // namespace

TensorView Microbatch::Put(Stream& stream, size_t index, std::span<const int32_t> values) {
  if (memory_.size() <= index) memory_.resize(index + 1);
  const int64_t n = values.size();
  if (!memory_[index] || memory_[index].view().elements() < n)
    memory_[index] = Tensor(backend_, DType::kI32, {n});
  const TensorView view = memory_[index].view().Rows(0, n);
  backend_.CopyToDevice(stream, values.data(), view);
  return view;
}

void Microbatch::Load(Stream& stream, std::span<const int32_t> tokens, int64_t sequences, int64_t length,
                      int num_depths, const std::vector<std::vector<int32_t>>& document_starts) {
  CHECK_EQ(static_cast<int64_t>(tokens.size()), sequences * (length + 1));
  // Token `shift` places after each of the first `count` positions of every sequence.
  const auto shifted = [&](int64_t count, int64_t shift) {
    std::vector<int32_t> out;
    out.reserve(sequences * count);
    for (int64_t s = 0; s < sequences; ++s) {
      const auto row = tokens.begin() + s * (length + 1) + shift;
      out.insert(out.end(), row, row + count);
    }
    return out;
  };
  const auto make_layout = [&](size_t index, int64_t count) {
    TokenLayout out;
    out.sequence_starts = EvenStarts(sequences, count);
    out.attention_starts = MaskedStarts(sequences, count, document_starts);
    out.positions = Put(stream, index, Positions(out.sequence_starts));
    return out;
  };
  layout = make_layout(0, length);
  ids = Put(stream, 1, shifted(length, 0));
  targets = Put(stream, 2, shifted(length, 1));
  depths.resize(num_depths);
  for (int k = 1; k <= num_depths; ++k) {
    Depth& depth = depths[k - 1];
    const int64_t count = std::max<int64_t>(length - k, 0);
    depth.layout = make_layout(3 * k, count);
    depth.ids = Put(stream, 3 * k + 1, shifted(count, k));
    depth.targets = Put(stream, 3 * k + 2, shifted(count, k + 1));
  }
}

void Microbatch::LoadRagged(Stream& stream, std::span<const int32_t> all, std::span<const int32_t> starts) {
  layout.sequence_starts.assign(starts.begin(), starts.end());
  layout.attention_starts = layout.sequence_starts;
  layout.positions = Put(stream, 0, Positions(layout.sequence_starts));
  std::vector<int32_t> next(all.size(), -1);
  for (size_t s = 0; s + 1 < starts.size(); ++s) {
    for (int32_t i = starts[s]; i + 1 < starts[s + 1]; ++i) next[i] = all[i + 1];
  }
  ids = Put(stream, 1, all);
  targets = Put(stream, 2, next);
  depths.clear();
}

double SumLosses(Backend& backend, Stream& stream, TensorView losses) {
  std::vector<float> host(losses.elements());
  backend.CopyToHost(stream, losses, host.data());
  stream.Synchronize();
  return std::accumulate(host.begin(), host.end(), 0.0);
}

}  // namespace moebius
