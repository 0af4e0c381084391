#include "core/generate/draft_module.h"

#include <algorithm>
#include <utility>

#include "core/backend/draw.h"
#include "core/backend/ops.h"
#include "core/generate/forward_mlp.h"
#include "core/generate/residual.h"

namespace moebius {
namespace {

const MtpModule& FirstModule(const Model& model) {
  CHECK(!model.mtp().empty()) << "drafts need a model with an MTP module";
  return *model.mtp()[0];
}

}  // namespace

DraftModule::DraftModule(const Model& model, const DecodeWeights& weights, Backend& backend, Stream& stream,
                         Decoding decoding)
    : model_(model),
      module_(FirstModule(model)),
      weights_(weights),
      act_(model.options().storage.act),
      attention_(MakeCachedAttention(backend, stream, module_.block().attention(), weights, act_, decoding)) {
}

void DraftModule::Reserve(const Context& context, int64_t slots, int64_t capacity) {
  Backend& backend = context.backend;
  capacity_ = capacity;
  attention_->Reserve(backend, slots, capacity);
  hidden_ = Tensor(backend, act_, {2 * slots, model_.config().hidden_size});
  scales_ = Tensor(backend, DType::kF32, {slots});
  uniforms_ = Tensor(backend, DType::kF64, {slots});
  Fill(context, scales_, DrawScale(0));
  Zero(context, uniforms_);
}

DraftModule::Entered DraftModule::Enter(const Context& context, const TokenPlaces& places, TensorView hidden,
                                        TensorView next) {
  const int64_t tokens = hidden.rows(), width = hidden.cols();
  Arena& scratch = context.scratch;
  const TensorView embedding = scratch.New(act_, {tokens, width});
  Embedding(context, {.table = model_.embedding_table()->weight(), .ids = next, .out = embedding});
  const TensorView joined = scratch.New(act_, {tokens, 2 * width});
  AddNorm(context, embedding, {}, module_.embedding_norm(), joined.Columns(0, width));
  AddNorm(context, hidden, {}, module_.hidden_norm(), joined.Columns(width, width));
  Entered out{
      .x = scratch.New(act_, {tokens, width}), .n = scratch.New(act_, {tokens, width}), .projected = {}};
  weights_.Multiply(context, joined, module_.projection().weight(), out.x);
  AddNorm(context, out.x, {}, module_.block().norm1(), out.n);
  out.projected = attention_->Append(context, places, out.n);
  return out;
}

// The rest of the block and the shared head.
void DraftModule::Leave(const Context& context, const QueryPlaces& queries, const Entered& newest,
                        TensorView logits) {
  const Block& block = module_.block();
  const TensorView y = context.scratch.New(act_, newest.x.shape);
  attention_->AttendNewest(context, queries, newest.n, newest.projected, y);
  AddNorm(context, newest.x, y, block.norm2(), newest.n);
  const TensorView add = ForwardMlp(context, weights_, block, newest.n, newest.x, y);
  AddNorm(context, newest.x, add, module_.output_norm(), newest.n);
  weights_.Multiply(context, newest.n, *model_.head().weight(), logits);
}

void DraftModule::AppendPrompts(const Context& context, const TokenPlaces& places, TensorView hidden,
                                TensorView next) {
  ArenaScope scope(context.scratch);
  Enter(context, places, hidden, next);
}

// host_ints_: of T pairs token, row, position and row of the cache; of B slots the newest pair, its position,
// the cached pairs, and 0, 1, ...
void DraftModule::Place(int64_t first_slot, std::span<const int32_t> lengths,
                        std::span<const DraftPair> pairs) {
  std::vector<int32_t> positions, newest(lengths.size(), -1);
  for (size_t i = 0; i < pairs.size(); ++i) {
    const int64_t s = pairs[i].slot - first_slot;
    CHECK(s >= 0 && s < std::ssize(lengths) && (i == 0 || pairs[i].slot >= pairs[i - 1].slot))
        << "pair " << i << " of slot " << pairs[i].slot;
    newest[s] = static_cast<int32_t>(i);
  }
  for (size_t i = 0; i < pairs.size(); ++i) {
    const int64_t s = pairs[i].slot - first_slot;
    positions.push_back(lengths[s] - 1 - (newest[s] - static_cast<int32_t>(i)));
    CHECK(positions.back() >= 0 && positions.back() < capacity_) << positions.back();
  }
  host_ints_.clear();
  const auto put = [&](int64_t count, const auto& value) {
    for (int64_t i = 0; i < count; ++i) host_ints_.push_back(static_cast<int32_t>(value(i)));
  };
  const int64_t tokens = std::ssize(pairs), batch = std::ssize(lengths);
  put(tokens, [&](int64_t i) { return pairs[i].token; });
  put(tokens, [&](int64_t i) { return pairs[i].row; });
  put(tokens, [&](int64_t i) { return positions[i]; });
  put(tokens, [&](int64_t i) { return pairs[i].slot * capacity_ + positions[i]; });
  put(batch, [&](int64_t s) {
    CHECK_GE(newest[s], 0) << "no pair of slot " << first_slot + s;
    return newest[s];
  });
  put(batch, [&](int64_t s) { return lengths[s] - 1; });
  put(batch, [&](int64_t s) { return lengths[s]; });
  put(batch, [&](int64_t s) { return s; });
}

std::span<const int32_t> DraftModule::Draft(const Context& context, int64_t first_slot,
                                            std::span<const int32_t> lengths,
                                            std::span<const DraftPair> pairs, TensorView logits) {
  Place(first_slot, lengths, pairs);
  const int64_t tokens = std::ssize(pairs), batch = std::ssize(lengths), size = std::ssize(host_ints_);
  if (!ints_ || ints_.view().elements() < size + batch) {
    ints_ = Tensor(context.backend, DType::kI32, {2 * (size + batch)});
  }
  context.backend.CopyToDevice(context.stream, host_ints_.data(), ints_.view().Rows(0, size));
  int64_t next = 0;
  const auto take = [&](int64_t count) {
    return ints_.view().Rows(std::exchange(next, next + count), count);
  };
  const TensorView ids = take(tokens), rows = take(tokens);
  TokenPlaces places{.positions = take(tokens), .cache_rows = {}, .starts = {}};
  places.cache_rows = take(tokens);
  const TensorView newest = take(batch);
  QueryPlaces queries{.positions = take(batch), .lengths = {}, .first_slot = first_slot};
  queries.lengths = take(batch);
  const TensorView each = take(batch), drafts = take(batch);

  ArenaScope scope(context.scratch);
  Entered entered = Enter(context, places, Gather(context, hidden_, rows), ids);
  if (tokens != batch) {
    entered.x = Gather(context, entered.x, newest);
    entered.n = Gather(context, entered.n, newest);
    TensorView& latents = entered.projected.latents;
    if (latents) latents = Gather(context, latents, newest);
  }
  Leave(context, queries, entered, logits);
  DrawTokens(context, {.logits = logits,
                       .rows = each,
                       .scales = scales_.view().Rows(0, batch),
                       .uniforms = uniforms_.view().Rows(0, batch),
                       .tokens = drafts});
  drafts_.resize(batch);
  context.backend.CopyToHost(context.stream, drafts, drafts_.data());
  context.stream.Synchronize();
  for (int32_t& draft : drafts_) draft = std::max(draft, 0);
  return drafts_;
}

}  // namespace moebius
