#include "core/generate/decoder.h"

#include <algorithm>

#include "core/backend/ops.h"
#include "core/base/status.h"
#include "core/base/strings.h"
#include "core/generate/forward_mlp.h"
#include "core/generate/residual.h"
#include "core/layers/local_exchange.h"

namespace moebius {
namespace {

constexpr int64_t kStepInts = 5;        // a token; see Place
constexpr size_t kMaxRecordings = 128;  // each is a megabyte or so of the device's memory

// Exchanges between ranks wait for hosts, which no recording can hold.
bool StaysHere(const Model& model) {
  return std::all_of(model.blocks().begin(), model.blocks().end(), [](const auto& block) {
    return block->moe() == nullptr || dynamic_cast<LocalExchange*>(&block->moe()->exchange()) != nullptr;
  });
}

}  // namespace

// One pass through the model: tokens of whole new prompts, or the newest of each live sequence.
struct Decoder::Call {
  TensorView ids;  // [T] i32
  TokenPlaces tokens;
  QueryPlaces queries;  // of the newest tokens
  TensorView newest;    // [B] i32: their rows among the T; empty at a step, where they are all
  TensorView next;      // [T] i32: of prompts with drafts, the token after each
  TensorView hidden;    // with drafts: where the states that the logits are made from go
  TensorView routes;    // [MoE layers x T, K] i32, layer by layer, or empty
};

Decoder::Decoder(const Model& model, Backend& backend, Stream& stream, const DecoderOptions& options)
    : model_(model),
      backend_(backend),
      stream_(stream),
      options_(options),
      act_(model.options().storage.act),
      vocab_(model.config().vocab_size),
      scratch_(backend),
      context_{backend, stream, scratch_, options.profile},
      weights_(model, backend, options.int8 ? DecodeWeights::Format::kInt8 : DecodeWeights::Format::kOwn,
               options.drafts),
      records_(options.record && options.profile == nullptr && !options.drafts && StaysHere(model)) {
  const StageRange& stage = model.options().stage;
  CHECK(stage.embedding && stage.head && stage.first_layer == 0) << "generation needs the whole model";
  CHECK_EQ(static_cast<int64_t>(model.blocks().size()), model.config().num_hidden_layers);
  CHECK_GE(options.prefill_tokens, 1);
  CHECK(!options.exact || backend.batch_invariant()) << "exact decoding needs a batch-invariant backend";
  CHECK(!(options.exact && options.int8)) << "nothing in 8 bits is exact";
  weights_.Refresh(context_);
  const Decoding decoding = options.exact ? Decoding::kExact : Decoding::kFast;
  for (const auto& block : model.blocks()) {
    attention_.push_back(MakeCachedAttention(backend, stream, block->attention(), weights_, act_, decoding));
  }
  if (options.drafts) drafts_ = std::make_unique<DraftModule>(model, weights_, backend, stream, decoding);
  if (options.routes) {
    const ModelConfig& config = model.config();
    CHECK_LT(config.n_routed_experts, int64_t{kNoRoute});
    route_size_ = config.NumMoe(config.num_hidden_layers) * config.num_experts_per_tok;
  }
  max_positions_ = model.max_positions();
}

void Decoder::Refresh() {
  lengths_.clear();
  routes_.clear();
  num_logits_ = 0;
  weights_.Refresh(context_);
  for (const auto& attention : attention_) attention->Refresh(backend_, stream_);
  if (drafts_ != nullptr) drafts_->Refresh(backend_, stream_);
}

int64_t Decoder::cache_bytes_per_token() const {
  int64_t bytes = 0;
  for (const auto& attention : attention_) bytes += attention->bytes_per_token();
  if (drafts_ != nullptr) bytes += drafts_->bytes_per_token();
  return bytes;
}

absl::Status Decoder::CanReserve(int64_t slots, int64_t capacity) const {
  if (slots <= slots_ && capacity <= capacity_) return absl::OkStatus();
  const int64_t all_slots = std::max(slots, slots_), rows = all_slots * std::max(capacity, capacity_);
  const auto bytes = [&](int64_t of_slots, int64_t of_rows) {
    const double logits = static_cast<double>(vocab_) * (drafts_ != nullptr ? 8 : 4);
    return static_cast<double>(of_rows) * static_cast<double>(cache_bytes_per_token()) +
           static_cast<double>(of_slots) * logits;
  };
  // What is reserved now is given back first.
  const auto free = static_cast<double>(backend_.free_bytes());
  const double wanted = bytes(all_slots, rows);
  const bool fits = free == 0 || wanted <= free + bytes(slots_, slots_ * capacity_);
  if (rows < int64_t{1} << 31 && fits) return absl::OkStatus();
  return UnavailableError(
      Concat("a cache of ", slots, " sequences of ", capacity, " tokens takes ", HumanBytes(wanted),
             " with their logits",
             fits ? ", and its rows are numbered in 31 bits"
                  : Concat("; ", backend_.Name(), " has ", HumanBytes(free), " free"),
             "; generate fewer sequences at a time (--batch-size), or fewer tokens (--max-new)"));
}

void Decoder::Reserve(int64_t slots, int64_t capacity) {
  CHECK(slots > 0 && capacity > 0 && capacity <= max_positions_)
      << slots << " slots of " << capacity << " tokens";
  lengths_.clear();
  routes_.clear();
  if (slots <= slots_ && capacity <= capacity_) return;
  slots_ = std::max(slots, slots_);
  capacity_ = std::max(capacity, capacity_);
  CHECK_LT(slots_ * capacity_, int64_t{1} << 31) << "cache rows are numbered in 32 bits";
  recordings_.clear();  // they name the memory of before
  model_.ServePositions(backend_, stream_, capacity_);
  for (const auto& attention : attention_) attention->Reserve(backend_, slots_, capacity_);
  num_logits_ = 0;
  logits_ = Tensor();
  const int64_t rows = drafts_ != nullptr ? 2 * slots_ : slots_;
  logits_ = Tensor(backend_, DType::kF32, {rows, vocab_});
  step_ints_ = Tensor(backend_, DType::kI32, {kStepInts * rows});
  step_routes_ = Tensor();
  if (drafts_ != nullptr) drafts_->Reserve(context_, slots_, capacity_);
}

Decoder::Call Decoder::Place(std::span<const int32_t> ids, std::span<const int32_t> starts,
                             int64_t first_slot, Tensor& ints) {
  const bool step = starts.empty();
  const int64_t tokens = ids.size(), batch = step ? live() : std::ssize(starts) - 1;
  const int64_t turns = step ? tokens / batch : 1;  // tokens a sequence, all sequences' first ones first
  host_ints_.clear();
  const auto put = [&](int64_t count, const auto& value) {
    for (int64_t i = 0; i < count; ++i) host_ints_.push_back(static_cast<int32_t>(value(i)));
  };
  put(tokens, [&](int64_t i) { return ids[i]; });
  const auto each_token = [&](const auto& value) {  // value(slot, position)
    for (int64_t row = 0; row < turns * batch; ++row) {
      const int64_t s = row % batch, before = lengths_[first_slot + s] + row / batch;
      const int64_t count = step ? 1 : starts[s + 1] - starts[s];
      CHECK_LE(before + count, capacity_) << "slot " << first_slot + s << " is full";
      put(count, [&](int64_t i) { return value(first_slot + s, before + i); });
    }
  };
  each_token([](int64_t, int64_t position) { return position; });
  each_token([&](int64_t slot, int64_t position) { return slot * capacity_ + position; });
  const auto length = [&](int64_t row) {
    const int64_t s = row % batch;
    return lengths_[first_slot + s] + (step ? row / batch + 1 : starts[s + 1] - starts[s]);
  };
  put(turns * batch, length);
  put(turns * batch, [&](int64_t row) { return length(row) - 1; });
  if (!step) put(batch, [&](int64_t s) { return starts[s + 1] - 1; });
  const bool pairs = !step && drafts_ != nullptr;
  if (pairs) put(tokens, [&](int64_t i) { return ids[std::min(i + 1, tokens - 1)]; });

  const int64_t size = host_ints_.size();
  if (!ints || ints.view().elements() < size) ints = Tensor(backend_, DType::kI32, {2 * size});
  backend_.CopyToDevice(stream_, host_ints_.data(), ints.view().Rows(0, size));
  int64_t next = 0;
  const auto take = [&](int64_t count) { return ints.view().Rows(std::exchange(next, next + count), count); };
  Call call;
  call.ids = take(tokens);
  call.tokens = {.positions = take(tokens), .cache_rows = take(tokens), .starts = starts};
  const TensorView lengths = take(turns * batch);
  call.queries = {
      .positions = take(turns * batch), .lengths = lengths, .first_slot = first_slot, .per_sequence = turns};
  if (!step) call.newest = take(batch);
  if (pairs) call.next = take(tokens);
  return call;
}

void Decoder::PlaceRoutes(Call& call, Tensor& memory) {
  if (route_size_ == 0) return;
  const int64_t top_k = model_.config().num_experts_per_tok, size = route_size_ * call.ids.elements();
  // A step's memory has room for all slots from the start, so that it stays.
  const int64_t room = call.newest ? size : route_size_ * slots_ * (drafts_ != nullptr ? 2 : 1);
  if (!memory || memory.view().elements() < size) memory = Tensor(backend_, DType::kI32, {room});
  call.routes = memory.view().Rows(0, size).Reshape({size / top_k, top_k});
}

// Adds the routes of a call that has run to those of its sequences, whose lengths are still those before it.
void Decoder::KeepRoutes(const Call& call) {
  if (!call.routes) return;
  std::vector<int32_t> ids(call.routes.elements());
  backend_.CopyToHost(stream_, call.routes, ids.data());
  stream_.Synchronize();
  const int64_t tokens = call.ids.elements(), top_k = call.routes.cols(), layers = route_size_ / top_k;
  const std::span<const int32_t> starts = call.tokens.starts;
  // With drafts all tokens of prompts run through the last layer, and still only the newest one's choice is
  // said: drafts change nothing of what is sampled.
  const bool says_newest = call.newest && model_.blocks().back()->moe() != nullptr;
  const int64_t turns = call.queries.per_sequence, batch = call.queries.lengths.elements() / turns;
  for (int64_t s = 0; s < batch; ++s) {
    const int64_t count = call.newest ? starts[s + 1] - starts[s] : turns;
    const int64_t slot = call.queries.first_slot + s;
    routes_[slot].resize(lengths_[slot] * route_size_);
    for (int64_t i = 0; i < count; ++i) {
      const int64_t t = call.newest ? starts[s] + i : i * batch + s;
      for (int64_t layer = 0; layer < layers; ++layer) {
        const bool newest_alone = says_newest && layer + 1 == layers;
        const auto from = ids.begin() + (layer * tokens + (newest_alone && !call.next ? s : t)) * top_k;
        for (int64_t k = 0; k < top_k; ++k) {
          routes_[slot].push_back(newest_alone && i + 1 < count ? kNoRoute : static_cast<Route>(from[k]));
        }
      }
    }
  }
}

void Decoder::Prefill(std::span<const std::span<const int32_t>> prompts) {
  CHECK_LE(live() + std::ssize(prompts), slots_) << "no free slot";
  num_logits_ = std::ssize(prompts);
  for (size_t begin = 0, end = 0; begin < prompts.size(); begin = end) {
    int64_t tokens = 0;
    for (; end < prompts.size(); ++end) {
      CHECK(!prompts[end].empty()) << "prompt " << end << " is empty";
      tokens += std::ssize(prompts[end]);
      if (tokens > options_.prefill_tokens && end > begin) break;
    }
    PrefillSome(prompts.subspan(begin, end - begin), begin);
  }
}

void Decoder::PrefillSome(std::span<const std::span<const int32_t>> prompts, int64_t first_row) {
  std::vector<int32_t> ids, starts{0};
  for (const std::span<const int32_t> prompt : prompts) {
    ids.insert(ids.end(), prompt.begin(), prompt.end());
    starts.push_back(static_cast<int32_t>(ids.size()));
  }
  const int64_t first_slot = live();
  lengths_.resize(first_slot + prompts.size(), 0);
  routes_.resize(lengths_.size());
  Call call = Place(ids, starts, first_slot, prompt_ints_);
  PlaceRoutes(call, prompt_routes_);
  if (drafts_ != nullptr) call.hidden = drafts_->hidden().Rows(first_row, std::ssize(prompts));
  Run(call, logits().Rows(first_row, std::ssize(prompts)));
  KeepRoutes(call);
  for (size_t i = 0; i < prompts.size(); ++i)
    lengths_[first_slot + i] = static_cast<int32_t>(prompts[i].size());
}

void Decoder::Step(std::span<const int32_t> tokens) {
  num_logits_ = std::ssize(tokens);
  if (live() == 0) return;
  const int64_t turns = num_logits_ / live();
  CHECK(num_logits_ == turns * live() && (turns == 1 || (turns == 2 && drafts_ != nullptr)))
      << num_logits_ << " tokens for " << live() << " sequences";
  Call call = Place(tokens, {}, 0, step_ints_);
  PlaceRoutes(call, step_routes_);
  if (drafts_ != nullptr) call.hidden = drafts_->hidden().Rows(0, num_logits_);
  RunStep(call, logits());
  KeepRoutes(call);
  for (int32_t& length : lengths_) length += static_cast<int32_t>(turns);
}

std::span<const int32_t> Decoder::Draft(int64_t first_slot, std::span<const DraftPair> pairs) {
  CHECK(drafts_ != nullptr) << "DecoderOptions::drafts is off";
  CHECK_LE(first_slot, live());
  num_logits_ = live() - first_slot;
  if (num_logits_ == 0) return {};
  return drafts_->Draft(context_, first_slot, std::span(lengths_).subspan(first_slot), pairs, logits());
}

void Decoder::Truncate(int64_t slot, int64_t length) {
  CHECK(slot >= 0 && slot < live() && length > 0 && length <= lengths_[slot]) << slot << " to " << length;
  lengths_[slot] = static_cast<int32_t>(length);
  routes_[slot].resize(length * route_size_);
}

// The first step of a batch size makes its calls, so that whatever they prepare on the device exists when the
// second one records them.
void Decoder::RunStep(const Call& call, TensorView logits) {
  if (!records_) return Run(call, logits);
  const auto found = recordings_.find(call.ids.elements());
  if (found == recordings_.end()) {
    if (recordings_.size() >= kMaxRecordings) recordings_.clear();
    recordings_.emplace(call.ids.elements(), nullptr);
    return Run(call, logits);
  }
  std::unique_ptr<Recording>& recording = found->second;
  if (recording == nullptr) {
    recording = backend_.NewRecording(stream_, [&] { Run(call, logits); });
    records_ = recording != nullptr;
  }
  records_ ? recording->Replay(stream_) : Run(call, logits);
}

std::span<const float> Decoder::CopyLogits() {
  host_logits_.resize(num_logits_ * vocab_);
  backend_.CopyToHost(stream_, logits(), host_logits_.data());
  stream_.Synchronize();
  return host_logits_;
}

void Decoder::Run(const Call& call, TensorView logits) {
  ArenaScope scope(scratch_);
  const Shape shape{call.ids.elements(), model_.config().hidden_size};
  // The residual stream, a norm's output, and what a sublayer adds to the stream.
  TensorView h = scratch_.New(act_, shape), n = scratch_.New(act_, shape), y = scratch_.New(act_, shape);
  Embedding(context_, {.table = model_.embedding_table()->weight(), .ids = call.ids, .out = h});
  TensorView add;
  int64_t moe_layer = 0;
  for (size_t b = 0; b < attention_.size(); ++b) {
    const Block& block = *model_.blocks()[b];
    AddNorm(context_, h, add, block.norm1(), n);
    const Arena::Mark mark = scratch_.mark();
    CachedAttention::Projected projected = attention_[b]->Append(context_, call.tokens, n);
    if (call.newest && !call.next && b + 1 == attention_.size()) {
      // Of the last layer only the newest tokens' results are wanted.
      if (projected.latents) projected.latents = Gather(context_, projected.latents, call.newest);
      h = Gather(context_, h, call.newest);
      n = Gather(context_, n, call.newest);
      y = y.Rows(0, call.newest.elements());
      attention_[b]->AttendNewest(context_, call.queries, n, projected, y);
    } else {
      call.newest ? attention_[b]->AttendPrompts(context_, call.tokens, n, projected, y)
                  : attention_[b]->AttendNewest(context_, call.queries, n, projected, y);
      scratch_.Release(mark);
    }
    AddNorm(context_, h, y, block.norm2(), n);
    TensorView routes;
    if (call.routes && block.moe() != nullptr) {
      routes = call.routes.Rows(moe_layer++ * call.ids.elements(), n.rows());
    }
    add = ForwardMlp(context_, weights_, block, n, h, y, routes);
  }
  AddNorm(context_, h, add, model_.final_norm(), n);
  if (call.next) {
    drafts_->AppendPrompts(context_, call.tokens, n, call.next);
    n = Gather(context_, n, call.newest);
  }
  if (call.hidden) Cast(context_, n, call.hidden);
  weights_.Multiply(context_, n, *model_.head().weight(), logits);
}

void Decoder::Copy(int64_t from, int64_t to) {
  for (const auto& attention : attention_) attention->Copy(context_, from, to, lengths_[from]);
  if (drafts_ != nullptr) drafts_->Copy(context_, from, to, lengths_[from]);
}

void Decoder::Fork(int64_t slot) {
  CHECK(slot < live() && live() < slots_)
      << "fork of slot " << slot << " with " << live() << " of " << slots_;
  Copy(slot, live());
  lengths_.push_back(lengths_[slot]);
  routes_.push_back(routes_[slot]);
}

void Decoder::Drop(int64_t slot) {
  CHECK(slot >= 0 && slot < live()) << slot;
  const int64_t last = live() - 1;
  if (slot != last) {
    Copy(last, slot);
    lengths_[slot] = lengths_[last];
    routes_[slot] = std::move(routes_[last]);
  }
  lengths_.pop_back();
  routes_.pop_back();
}

}  // namespace moebius
