// Attention that remembers: the keys and values of earlier tokens lie in a cache, one sequence a slot, so
// that a new token costs one query. GQA caches keys and values of each key head. MLA caches the normalised
// latent and the rotated shared key, [kv_lora_rank + rope] a token, and attends in latent space
// (deepseek.md 1.4, "absorbed"):
//   score = (W_ukᵀ q_nope) · c_kv + q_rope · k_rope,   o = W_uv (sum of weights · c_kv)
// Exact decoding has a cache of MLA's whole keys and values instead.
#pragma once

#include <memory>
#include <span>

#include "core/generate/decode_weights.h"

namespace moebius {

// Where the T tokens of a call belong.
struct TokenPlaces {
  TensorView positions;   // [T] i32, each in its sequence
  TensorView cache_rows;  // [T] i32: slot * capacity + position
  std::span<const int32_t>
      starts;  // prompts: [sequences + 1] as in AttentionArgs; empty when each is a step's token
};

// Queries of each sequence's newest tokens, n of each, in turns: row j * B + i is the j-th of sequence i of
// B, which is in slot first_slot + i. n = 1 unless drafts are judged.
struct QueryPlaces {
  TensorView positions;  // [n * B] i32
  TensorView lengths;    // [n * B] i32: cached tokens that the query sees, its own included
  int64_t first_slot = 0;
  int64_t per_sequence = 1;  // n

  int64_t sequences() const { return lengths.elements() / per_sequence; }  // B
};

class CachedAttention {
 public:
  // What Append computed on the way and the Attend calls use again; in the context's scratch.
  struct Projected {
    TensorView latents = {};  // MLA: [T, q_lora_rank + kv_lora_rank + rope_dim]
    TensorView k = {};        // CachedHeads: [T, G, qk_dim]
    TensorView v = {};
  };

  virtual ~CachedAttention() = default;

  // The weights have changed in place: makes again what was derived from them, where it lay. What is cached
  // is of the weights before.
  virtual void Refresh(Backend& backend, Stream& stream) = 0;
  // Room for `slots` sequences of `capacity` tokens; what was cached is gone.
  virtual void Reserve(Backend& backend, int64_t slots, int64_t capacity) = 0;
  // The first `length` tokens of slot `from`, in slot `to` as well.
  virtual void Copy(const Context& context, int64_t from, int64_t to, int64_t length) = 0;

  // Stores keys and values of x [T, hidden] act.
  virtual Projected Append(const Context& context, const TokenPlaces& places, TensorView x) = 0;
  // y [T, hidden] = attention of every token of new sequences to those before it.
  virtual void AttendPrompts(const Context& context, const TokenPlaces& places, TensorView x,
                             const Projected& projected, TensorView y) const = 0;
  // y [n * B, hidden] = attention of the newest tokens, whose rows x and projected.latents hold, to their
  // caches.
  virtual void AttendNewest(const Context& context, const QueryPlaces& places, TensorView x,
                            const Projected& projected, TensorView y) const = 0;

  virtual int64_t bytes_per_token() const = 0;
};

// kExact: results have the bits of the training forward's, on a batch-invariant backend.
enum class Decoding { kFast, kExact };

// For a MlaAttention or GqaAttention of activations `act`; `weights` outlive it. For fast decoding MLA's
// up-projection is copied, arranged for the absorbed products; see Refresh.
std::unique_ptr<CachedAttention> MakeCachedAttention(Backend& backend, Stream& stream, const Layer& attention,
                                                     const DecodeWeights& weights, DType act,
                                                     Decoding decoding);

// DecodeAttention of queries in turns: q [n * B, H, d], k and v the caches of the B slots, o [n * B, H, dv].
struct CacheQuery {
  TensorView q;
  TensorView k;
  TensorView v;
  float scale;
  TensorView o;
};
void AttendCaches(const Context& context, const QueryPlaces& places, const CacheQuery& query);

}  // namespace moebius
