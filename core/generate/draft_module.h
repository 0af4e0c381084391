// Drafts for speculative decoding (DeepSeek-V3 §2.2, §5.4.3; deepseek.md 1.5): the first MTP module of a
// model, run against a cache of its own. Entry i of a sequence is the pair of the main model's state of token
// i, after the final norm, and the embedding of token i + 1; what the module makes of it predicts token i
// + 2. Its best guess is the draft: no random number is spent on it.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "core/generate/cached_attention.h"
#include "core/model/model.h"

namespace moebius {

// A token that was drawn from a row of a decoder's latest logits, for the sequence in a slot.
struct DraftPair {
  int64_t slot;
  int32_t row;
  int32_t token;
};

class DraftModule {
 public:
  // The model has an MTP module; both outlive this.
  DraftModule(const Model& model, const DecodeWeights& weights, Backend& backend, Stream& stream,
              Decoding decoding);

  // As in CachedAttention.
  void Refresh(Backend& backend, Stream& stream) { attention_->Refresh(backend, stream); }
  void Reserve(const Context& context, int64_t slots, int64_t capacity);
  void Copy(const Context& context, int64_t from, int64_t to, int64_t length) {
    attention_->Copy(context, from, to, length);
  }
  int64_t bytes_per_token() const { return attention_->bytes_per_token(); }

  // [2 * slots, hidden] act: the states that the rows of the decoder's logits were made from. The decoder
  // writes them.
  TensorView hidden() const { return hidden_; }

  // Caches the pairs of new prompts: hidden [T, hidden] act of all their tokens, next [T] i32 the token after
  // each. What `next` says of a prompt's last token may be anything: Draft writes that pair again.
  void AppendPrompts(const Context& context, const TokenPlaces& places, TensorView hidden, TensorView next);

  // Caches `pairs`, whose slots are first_slot, first_slot + 1, ..., each once or more, and drafts a token a
  // slot; lengths: of each, the tokens that the main model has cached. logits [lengths.size(), V] f32 are the
  // module's. Waits for the device; valid until the next call. A draft of bad numbers is token 0.
  std::span<const int32_t> Draft(const Context& context, int64_t first_slot, std::span<const int32_t> lengths,
                                 std::span<const DraftPair> pairs, TensorView logits);

 private:
  struct Entered {
    TensorView x;  // [T, hidden]: what goes into the block
    TensorView n;  // its norm
    CachedAttention::Projected projected;
  };

  Entered Enter(const Context& context, const TokenPlaces& places, TensorView hidden, TensorView next);
  void Leave(const Context& context, const QueryPlaces& queries, const Entered& newest, TensorView logits);
  void Place(int64_t first_slot, std::span<const int32_t> lengths, std::span<const DraftPair> pairs);

  const Model& model_;
  const MtpModule& module_;
  const DecodeWeights& weights_;
  const DType act_;
  std::unique_ptr<CachedAttention> attention_;
  int64_t capacity_ = 0;
  Tensor hidden_;
  Tensor scales_;    // [slots] f32: of greedy draws
  Tensor uniforms_;  // [slots] f64, as good as any
  Tensor ints_;
  std::vector<int32_t> host_ints_;  // see Place
  std::vector<int32_t> drafts_;
};

}  // namespace moebius
