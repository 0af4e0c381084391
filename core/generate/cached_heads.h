// CachedAttention with the keys and values of every key head in the cache: what GQA has of its own accord,
// and MLA for exact decoding. They differ in how queries, keys and values come about.
#pragma once

#include "core/generate/cached_attention.h"

namespace moebius {

class CachedHeads : public CachedAttention {
 public:
  void Refresh(Backend&, Stream&) final {}
  void Reserve(Backend& backend, int64_t slots, int64_t capacity) final;
  void Copy(const Context& context, int64_t from, int64_t to, int64_t length) final;
  Projected Append(const Context& context, const TokenPlaces& places, TensorView x) final;
  void AttendPrompts(const Context& context, const TokenPlaces& places, TensorView x,
                     const Projected& projected, TensorView y) const final;
  void AttendNewest(const Context& context, const QueryPlaces& places, TensorView x,
                    const Projected& projected, TensorView y) const final;
  int64_t bytes_per_token() const final;

 protected:
  struct HeadShape {
    int64_t heads, kv_heads;
    int64_t qk_dim, v_dim;
    float scale;
  };
  CachedHeads(const HeadShape& shape, DType act) : shape_(shape), act_(act) {}

  // k [T, G, qk_dim], rotated, and v [T, G, v_dim] of x [T, hidden] act, in scratch.
  virtual Projected Project(const Context& context, TensorView x, TensorView positions) const = 0;
  // [T, H, qk_dim], rotated, in scratch.
  virtual TensorView Query(const Context& context, TensorView x, const Projected& projected,
                           TensorView positions) const = 0;
  // y [T, hidden] of o [T, H, v_dim].
  virtual void Output(const Context& context, TensorView o, TensorView y) const = 0;

 private:
  const HeadShape shape_;
  const DType act_;
  Tensor k_;  // [slots, capacity, G * qk_dim]
  Tensor v_;  // [slots, capacity, G * v_dim]
};

}  // namespace moebius
