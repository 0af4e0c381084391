#include "core/model/microbatch.h"

#include <algorithm>
#include <numeric>

namespace moebius {
namespace {

// Numbers of the memory of weights and routes; lower ones are the tokens of groups. MTP depths, which take
// others, and groups exclude each other.
constexpr size_t kWeightsMemory = 6;
constexpr size_t kRoutesMemory = 7;

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

TensorView Microbatch::Put(Stream& stream, size_t index, const void* values, DType dtype, int64_t n) {
  if (memory_.size() <= index) memory_.resize(index + 1);
  if (!memory_[index] || memory_[index].view().elements() < n) memory_[index] = Tensor(backend_, dtype, {n});
  TensorView view = memory_[index].view().Rows(0, n);
  view.dtype = dtype;
  backend_.CopyToDevice(stream, values, view);
  return view;
}

TensorView Microbatch::Put(Stream& stream, size_t index, std::span<const int32_t> values) {
  return Put(stream, index, values.data(), DType::kI32, std::ssize(values));
}

TensorView Microbatch::Put(Stream& stream, size_t index, std::span<const float> values) {
  return Put(stream, index, values.data(), DType::kF32, std::ssize(values));
}

void Microbatch::PutWeights(Stream& stream, std::span<const float> values) {
  CHECK_EQ(std::ssize(values), predictions());
  weights = Put(stream, kWeightsMemory, values);
}

void Microbatch::Begin() {
  layout = {};
  prediction_rows = weights = entropies = divergences = agreements = {};
  weigh = nullptr;
  teach = nullptr;
  observe = nullptr;
  depths.clear();
  balances = true;
}

void Microbatch::Load(Stream& stream, std::span<const int32_t> tokens, int64_t sequences, int64_t length,
                      int num_depths, const std::vector<std::vector<int32_t>>& document_starts) {
  CHECK_EQ(static_cast<int64_t>(tokens.size()), sequences * (length + 1));
  Begin();
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

void Microbatch::LoadRagged(Stream& stream, std::span<const int32_t> all, std::span<const int32_t> starts,
                            std::span<const int32_t> attention_starts) {
  Begin();
  const std::span<const int32_t> attention = attention_starts.empty() ? starts : attention_starts;
  layout.sequence_starts.assign(starts.begin(), starts.end());
  layout.attention_starts.assign(attention.begin(), attention.end());
  layout.positions = Put(stream, 0, Positions(layout.sequence_starts));
  std::vector<int32_t> next(all.size(), -1);
  for (size_t s = 0; s + 1 < starts.size(); ++s) {
    for (int32_t i = starts[s]; i + 1 < starts[s + 1]; ++i) next[i] = all[i + 1];
  }
  ids = Put(stream, 1, all);
  targets = Put(stream, 2, next);
}

int64_t AnswerGroup::Tokens() const {
  int64_t n = std::ssize(prompt);
  for (const Answer& answer : answers) n += std::ssize(answer.tokens) - 1;  // nothing follows the last
  return n;
}

int64_t AnswerGroup::Predictions() const {
  int64_t n = 0;
  for (const Answer& a : answers) {
    n += a.counts.empty() ? std::ssize(a.tokens) : std::count(a.counts.begin(), a.counts.end(), true);
  }
  return n;
}

void Microbatch::LoadGroups(Stream& stream, std::span<const AnswerGroup> groups) {
  Begin();
  std::vector<int32_t> all, positions, next, rows, attention_rows, token_rows;
  std::vector<float> by;
  bool shares = false, weighs = false;
  layout.sequence_starts = layout.attention_starts = {0};
  balances = groups.empty() || groups[0].balances;
  for (const AnswerGroup& group : groups) {
    CHECK(!group.prompt.empty() && !group.answers.empty());
    CHECK_EQ(group.balances, balances);
    const auto add = [&](int32_t id, int64_t position) {
      all.push_back(id);
      positions.push_back(static_cast<int32_t>(position));
    };
    const auto first = static_cast<int32_t>(all.size()), length = static_cast<int32_t>(group.prompt.size());
    for (int32_t i = 0; i < length; ++i) add(group.prompt[i], i);
    shares |= group.answers.size() > 1;
    for (size_t a = 0; a < group.answers.size(); ++a) {
      const AnswerGroup::Answer& answer = group.answers[a];
      const auto n = static_cast<int32_t>(answer.tokens.size());
      CHECK_GT(n, 0);
      for (int32_t i = 0; i < length; ++i) {
        if (a == 0) token_rows.push_back(static_cast<int32_t>(attention_rows.size()));
        attention_rows.push_back(first + i);
      }
      for (int32_t i = 0; i < n; ++i) {
        if (answer.counts.empty() || answer.counts[i]) {
          rows.push_back(i == 0 ? first + length - 1 : static_cast<int32_t>(all.size()) - 1);
          next.push_back(answer.tokens[i]);
          by.push_back(answer.weights.empty() ? 1.0f : answer.weights[i]);
          weighs |= by.back() != 1.0f;
        }
        if (i + 1 == n) break;
        token_rows.push_back(static_cast<int32_t>(attention_rows.size()));
        attention_rows.push_back(static_cast<int32_t>(all.size()));
        add(answer.tokens[i], length + i);
      }
      layout.attention_starts.push_back(static_cast<int32_t>(attention_rows.size()));
    }
    layout.sequence_starts.push_back(static_cast<int32_t>(all.size()));
  }
  layout.positions = Put(stream, 0, positions);
  ids = Put(stream, 1, all);
  targets = Put(stream, 2, next);
  prediction_rows = Put(stream, 3, rows);
  if (weighs) PutWeights(stream, by);
  PutRoutes(stream, groups);
  if (!shares) return;
  layout.attention_rows = Put(stream, 4, attention_rows);
  layout.token_rows = Put(stream, 5, token_rows);
}

// In the order of the tokens: each prompt's, then those of its answers.
void Microbatch::PutRoutes(Stream& stream, std::span<const AnswerGroup> groups) {
  if (groups.empty() || groups[0].prompt_routes.empty()) return;
  const int64_t width = std::ssize(groups[0].prompt_routes) / std::ssize(groups[0].prompt);
  std::vector<Route>& all = layout.host_routes;
  const auto add = [&](std::span<const Route> routes, int64_t tokens) {
    CHECK_EQ(std::ssize(routes), tokens * width) << "routes of " << tokens << " tokens";
    all.insert(all.end(), routes.begin(), routes.end());
  };
  for (const AnswerGroup& group : groups) {
    add(group.prompt_routes, std::ssize(group.prompt));
    for (const AnswerGroup::Answer& answer : group.answers) add(answer.routes, std::ssize(answer.tokens) - 1);
  }
  std::vector<int32_t> ids(all.size());
  std::transform(all.begin(), all.end(), ids.begin(),
                 [](Route route) { return route == kNoRoute ? -1 : int32_t{route}; });
  layout.routes = Put(stream, kRoutesMemory, ids).Reshape({tokens(), width});
}

std::vector<RoutingStatistics> ReadRouting(Backend& backend, Stream& stream, const Microbatch& mb) {
  std::vector<RoutingStatistics> routing;
  if (mb.records.empty()) return routing;
  std::vector<int64_t> words(mb.record_words.elements());
  backend.CopyToHost(stream, mb.record_words, words.data());
  stream.Synchronize();
  for (size_t i = 0; i < mb.records.size(); ++i) {
    routing.push_back(mb.records[i].Read(words.data() + i * mb.record_words.cols()));
  }
  return routing;
}

std::vector<float> ToHost(Backend& backend, Stream& stream, TensorView values) {
  if (!values || values.elements() == 0) return {};
  std::vector<float> host(values.elements());
  backend.CopyToHost(stream, values, host.data());
  stream.Synchronize();
  return host;
}

double SumLosses(Backend& backend, Stream& stream, TensorView losses) {
  const std::vector<float> host = ToHost(backend, stream, losses);
  return std::accumulate(host.begin(), host.end(), 0.0);
}

}  // namespace moebius
