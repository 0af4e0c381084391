#include "core/generate/batch_sampler.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "core/backend/ops.h"

namespace moebius {
namespace {

// [n] elements of four bytes after `before` others, in memory that views it as something else.
TensorView Part(const Tensor& memory, DType dtype, int64_t before, int64_t n) {
  return TensorView(static_cast<char*>(memory.view().data) + 4 * before, dtype, {n});
}

}  // namespace

std::span<const absl::StatusOr<SampledToken>> BatchSampler::Sample(Decoder& decoder,
                                                                   std::span<const Item> items) {
  results_.assign(items.size(), SampledToken());
  const auto choose = [&](bool from_all) {
    chosen_.clear();
    for (size_t i = 0; i < items.size(); ++i) {
      if (items[i].sampler->DrawsFromAll(decoder.vocab_size()) == from_all) chosen_.push_back(i);
    }
    return !chosen_.empty();
  };
  if (choose(true)) DrawOnDevice(decoder, items);
  if (choose(false)) DrawOnHost(decoder, items);
  ScoreAsTrained(decoder, items);
  return results_;
}

void BatchSampler::DrawOnDevice(Decoder& decoder, std::span<const Item> items) {
  const Context& context = decoder.context();
  const int64_t n = std::ssize(chosen_);
  host_in_.resize(2 * n);
  char* rows_and_scales = reinterpret_cast<char*>(host_in_.data() + n);
  bool logprobs = false;
  for (int64_t i = 0; i < n; ++i) {
    const Item& item = items[chosen_[i]];
    const float scale = item.sampler->scale();
    host_in_[i] = item.sampler->Uniform(item.position);
    std::memcpy(rows_and_scales + 4 * i, &item.row, 4);
    std::memcpy(rows_and_scales + 4 * (n + i), &scale, 4);
    logprobs |= item.sampler->logprobs() != LogProbs::kNo;
  }
  if (!in_ || in_.view().elements() < 2 * n) {
    const int64_t room = std::max(n, decoder.slots());
    in_ = Tensor(context.backend, DType::kF64, {2 * room});
    out_ = Tensor(context.backend, DType::kI32, {3 * room});
  }
  context.backend.CopyToDevice(context.stream, host_in_.data(), in_.view().Rows(0, 2 * n));
  DrawTokens(context, {.logits = decoder.logits(),
                       .rows = Part(in_, DType::kI32, 2 * n, n),
                       .scales = Part(in_, DType::kF32, 3 * n, n),
                       .uniforms = in_.view().Rows(0, n),
                       .tokens = out_.view().Rows(0, n),
                       .logprobs = logprobs ? Part(out_, DType::kF32, n, n) : TensorView(),
                       .sampling_logprobs = logprobs ? Part(out_, DType::kF32, 2 * n, n) : TensorView()});
  host_out_.resize(logprobs ? 3 * n : n);
  context.backend.CopyToHost(context.stream, out_.view().Rows(0, std::ssize(host_out_)), host_out_.data());
  context.stream.Synchronize();
  for (int64_t i = 0; i < n; ++i) {
    const Item& item = items[chosen_[i]];
    SampledToken token{.id = host_out_[i]};
    if (item.sampler->logprobs() != LogProbs::kNo) {
      token.logprob = std::bit_cast<float>(host_out_[n + i]);
      token.sampling_logprob = std::bit_cast<float>(host_out_[2 * n + i]);
    }
    auto& result = results_[chosen_[i]];
    if (token.id < 0) {
      result = NotFiniteError(item.position);
    } else {
      result = token;
    }
  }
}

void BatchSampler::ScoreAsTrained(Decoder& decoder, std::span<const Item> items) {
  chosen_.clear();
  for (size_t i = 0; i < items.size(); ++i) {
    if (items[i].sampler->logprobs() == LogProbs::kAsTrained && results_[i].ok()) chosen_.push_back(i);
  }
  // Temperature by temperature; few calls have more than one.
  for (auto begin = chosen_.begin(); begin != chosen_.end();) {
    const float wanted = items[*begin].sampler->inverse_temperature();
    const auto end = std::stable_partition(
        begin, chosen_.end(), [&](size_t i) { return items[i].sampler->inverse_temperature() == wanted; });
    ScoreSome(decoder, items, {begin, end});
    begin = end;
  }
}

void BatchSampler::ScoreSome(Decoder& decoder, std::span<const Item> items, std::span<const size_t> some) {
  const Context& context = decoder.context();
  const int64_t n = std::ssize(some), vocab = decoder.vocab_size();
  if (!scored_ || scored_.view().elements() < 3 * n) {
    scored_ = Tensor(context.backend, DType::kI32, {3 * std::max(n, decoder.slots())});
  }
  host_out_.resize(2 * n);
  bool in_order = true;  // the rows of the logits as they lie
  for (int64_t i = 0; i < n; ++i) {
    host_out_[i] = items[some[i]].row;
    host_out_[n + i] = results_[some[i]]->id;
    in_order &= host_out_[i] == host_out_[0] + i;
  }
  context.backend.CopyToDevice(context.stream, host_out_.data(), scored_.view().Rows(0, 2 * n));
  const TensorView rows = scored_.view().Rows(0, n), targets = scored_.view().Rows(n, n),
                   losses = Part(scored_, DType::kF32, 2 * n, n);
  ArenaScope scope(context.scratch);
  const int64_t piece = in_order ? n : std::clamp<int64_t>(context.backend.piece_bytes() / (4 * vocab), 1, n);
  const TensorView gathered = in_order ? TensorView() : context.scratch.New(DType::kF32, {piece, vocab});
  for (int64_t begin = 0; begin < n; begin += piece) {
    const int64_t count = std::min(piece, n - begin);
    TensorView logits = in_order ? decoder.logits().Rows(host_out_[0], n) : gathered.Rows(0, count);
    if (!in_order) {
      GatherRows(context, {.x = decoder.logits(), .index = rows.Rows(begin, count), .out = logits});
    }
    CrossEntropy(context, {.logits = logits,
                           .targets = targets.Rows(begin, count),
                           .losses = losses.Rows(begin, count),
                           .inverse_temperature = items[some[0]].sampler->inverse_temperature()});
  }
  host_out_.resize(n);
  context.backend.CopyToHost(context.stream, losses, host_out_.data());
  context.stream.Synchronize();
  for (int64_t i = 0; i < n; ++i) results_[some[i]]->logprob = -std::bit_cast<float>(host_out_[i]);
}

void BatchSampler::DrawOnHost(Decoder& decoder, std::span<const Item> items) {
  const std::span<const float> logits = decoder.CopyLogits();
  const int64_t vocab = decoder.vocab_size();
  for (const size_t i : chosen_) {
    const Item& item = items[i];
    results_[i] = item.sampler->Sample(logits.subspan(item.row * vocab, vocab), item.position);
  }
}

}  // namespace moebius
