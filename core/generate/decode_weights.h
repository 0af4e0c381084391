// The matrices that decoding multiplies by: the model's own, or copies of them in 8 bits (kernel_args.h,
// Int8Weight), which are read and multiplied in half the time. Routers, norms, the embedding, attention's own
// products and MLA's up-projection of the latent, absorbed or not, stay as they are.
#pragma once

#include <unordered_map>

#include "absl/status/status.h"
#include "core/model/model.h"

namespace moebius {

class DecodeWeights {
 public:
  enum class Format { kOwn, kInt8 };
  // UsageError where the backend has no products in 8 bits.
  static absl::Status CheckInt8(const Backend& backend);

  // Of all that decoding reads; of MTP modules too where `drafts`. The model outlives this. kInt8 needs a
  // backend that CheckInt8 accepts.
  DecodeWeights(const Model& model, Backend& backend, Format format, bool drafts);

  // The copies are made again, where they lie.
  void Refresh(const Context& context) const;

  // y [T, out] act or f32 = x [T, in] act · wᵀ (+ bias [out] f32).
  void Multiply(const Context& context, TensorView x, const Parameter& w, TensorView y,
                const Parameter* bias = nullptr) const;
  // The same of one matrix an expert: w [E, out, in], rows [offsets[e], offsets[e + 1]) of x.
  void MultiplyExperts(const Context& context, TensorView x, TensorView offsets, const Parameter& w,
                       TensorView y) const;

 private:
  std::unordered_map<const Parameter*, Tensor> packed_;
};

}  // namespace moebius
