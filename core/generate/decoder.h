// The decode engine: runs a model over prompts and then token by token, with cached keys and values. It knows
// nothing of sampling: generate.h does the whole job. Sequences live in slots [0, live()).
//
// On a device that records (Backend::NewRecording), the second step of a batch size is recorded and later
// ones are replayed: what changes from step to step (tokens, positions, lengths) lies in device memory.
// Logits stay on the device, so a step waits for nothing.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "core/generate/cached_attention.h"
#include "core/generate/decode_weights.h"
#include "core/generate/draft_module.h"
#include "core/model/model.h"

namespace moebius {

struct DecoderOptions {
  int64_t prefill_tokens = 2048;     // prompts are run together up to about this many tokens
  KernelProfile* profile = nullptr;  // counts the time of every kernel when given; then nothing is recorded
  bool record = true;                // steps, where the device can
  // Logits have the bits of Model::Forward's for the same tokens, whatever else is decoded beside them, for a
  // model whose products do not round (Rounding::kNone) and whose experts are all here. The backend must be
  // batch-invariant, for both. Steps are somewhat slower, and MLA caches whole keys and values.
  bool exact = false;
  // Multiplies by 8-bit copies of the model's matrices, which take half the memory of bf16 ones beside them
  // (decode_weights.h): faster, and less precise (docs/performance.md has both). Not with `exact`.
  bool int8 = false;
  // Speculative decoding: steps may append a second token, which the model's MTP module drafts. The model has
  // one. Prefill then runs the whole last layer, and steps are not recorded.
  bool drafts = false;
  bool routes = false;  // keeps which experts tokens went to: see Decoder::routes

  bool operator==(const DecoderOptions&) const = default;
};

class Decoder {
 public:
  // The model must be whole (all stages) and outlive the decoder; Refresh() after its weights have changed.
  Decoder(const Model& model, Backend& backend, Stream& stream, const DecoderOptions& options);

  // The weights have changed where they lie, as an optimizer changes them. All slots become free, as what
  // they hold is of the weights before; 8-bit copies and MLA's absorbed products are made again (in exact
  // mode there is nothing to do). Memory and recordings stay.
  void Refresh();

  const DecoderOptions& options() const { return options_; }
  int64_t vocab_size() const { return vocab_; }
  int64_t max_positions() const { return max_positions_; }  // longest sequence of the model
  int64_t cache_bytes_per_token() const;

  // UnavailableError where the device has no memory for what Reserve asks, or rows cannot be numbered.
  absl::Status CanReserve(int64_t slots, int64_t capacity) const;
  // Room for `slots` sequences of `capacity` tokens each, which is at most max_positions(). All slots become
  // free.
  void Reserve(int64_t slots, int64_t capacity);
  int64_t slots() const { return slots_; }
  int64_t live() const { return static_cast<int64_t>(lengths_.size()); }
  int64_t length(int64_t slot) const { return lengths_[slot]; }  // cached tokens

  // Runs prompts, none empty, into the next free slots, in order; logits of what follows each prompt.
  void Prefill(std::span<const std::span<const int32_t>> prompts);
  // Appends one token to every live sequence, or with drafts two: those of all sequences first, then the
  // second ones. Logits of what follows each, in the same order.
  void Step(std::span<const int32_t> tokens);
  // With drafts: guesses at what follows the newest token of each sequence from slot `first_slot` on. That
  // token is in no cache yet; the guess is what the next Step appends after it. Called once after a Prefill
  // or Step with its pairs, of slots in order, one for each token since. logits() are then the module's, a
  // row a slot. Waits for the device; valid until the next call.
  std::span<const int32_t> Draft(int64_t first_slot, std::span<const DraftPair> pairs);
  bool drafts() const { return drafts_ != nullptr; }
  // Forgets the tokens of `slot` from `length` on: refused drafts.
  void Truncate(int64_t slot, int64_t length);
  // Of the latest Prefill, Step or Draft: [n, V] f32, on the device.
  TensorView logits() const { return logits_.view().Rows(0, num_logits_); }
  // The same in host memory, valid until the next call of anything here; waits for the device.
  std::span<const float> CopyLogits();
  // With DecoderOptions::routes: the experts of the cached tokens of `slot`, [length, MoE layers, top-k],
  // until the next call of anything here. kNoRoute in the last layer for all tokens of a prompt but the
  // newest: Prefill runs it for that one alone (with drafts for all, to the same results). Otherwise, and
  // without experts, empty.
  std::span<const Route> routes(int64_t slot) const {
    return std::span<const Route>(routes_[slot]).first(lengths_[slot] * route_size_);
  }
  // Of this decoder's work, for kernels that use its logits.
  const Context& context() const { return context_; }

  // The next free slot becomes a copy of `slot`.
  void Fork(int64_t slot);
  // Frees `slot`; the last live slot moves there.
  void Drop(int64_t slot);

 private:
  struct Call;

  void PrefillSome(std::span<const std::span<const int32_t>> prompts, int64_t first_row);
  void Run(const Call& call, TensorView logits);
  void RunStep(const Call& call, TensorView logits);
  Call Place(std::span<const int32_t> ids, std::span<const int32_t> starts, int64_t first_slot, Tensor& ints);
  void PlaceRoutes(Call& call, Tensor& memory);
  void KeepRoutes(const Call& call);
  void Copy(int64_t from, int64_t to);

  const Model& model_;
  Backend& backend_;
  Stream& stream_;
  DecoderOptions options_;
  DType act_;
  int64_t vocab_;
  int64_t max_positions_;
  Arena scratch_;
  Context context_;
  DecodeWeights weights_;
  std::vector<std::unique_ptr<CachedAttention>> attention_;  // of each block
  std::unique_ptr<DraftModule> drafts_;
  int64_t slots_ = 0;
  int64_t capacity_ = 0;
  std::vector<int32_t> lengths_;    // of each live slot
  Tensor logits_;                   // [slots, V] f32; with drafts of two tokens a slot
  int64_t num_logits_ = 0;          // rows of the latest call
  std::vector<float> host_logits_;  // see CopyLogits
  std::vector<int32_t> host_ints_;  // of the current call; see Place
  Tensor prompt_ints_;
  Tensor step_ints_;                        // stays where it is, as recordings read it
  int64_t route_size_ = 0;                  // choices of a token in all layers; 0: routes are not kept
  std::vector<std::vector<Route>> routes_;  // of each live slot
  Tensor prompt_routes_;
  Tensor step_routes_;  // as step_ints_
  bool records_;
  std::map<int64_t, std::unique_ptr<Recording>> recordings_;  // by batch size; null: run once so far
};

}  // namespace moebius
