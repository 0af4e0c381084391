#include "core/generate/decode_weights.h"

#include <unordered_set>

#include "core/backend/ops.h"
#include "core/base/status.h"
#include "core/base/strings.h"
#include "core/layers/mla_attention.h"

namespace moebius {
namespace {

Shape ShapeOf(const Parameter& w) {  // [groups, out, in]
  const Shape& shape = w.shape();
  return shape.rank() == 3 ? shape : Shape{1, shape[0], shape[1]};
}

// What decoding multiplies by in 8 bits.
std::unordered_set<const Parameter*> Rounded(const Model& model, bool drafts) {
  std::unordered_set<const Parameter*> out;
  for (const auto& parameter : model.parameters().all()) {
    const ParameterSpec& spec = parameter->spec();
    const bool multiplies = spec.shape.rank() >= 2 && !spec.keep_f32 && (drafts || !spec.mtp);
    if (multiplies) out.insert(parameter.get());
  }
  if (model.embedding_table() != model.head().weight()) out.erase(model.embedding_table());
  const auto leave_up_projection = [&](const Block& block) {
    const auto* mla = dynamic_cast<const MlaAttention*>(&block.attention());
    if (mla != nullptr) out.erase(mla->parameters().kv);
  };
  for (const auto& block : model.blocks()) leave_up_projection(*block);
  for (const auto& module : model.mtp()) leave_up_projection(module->block());
  return out;
}

}  // namespace

absl::Status DecodeWeights::CheckInt8(const Backend& backend) {
  if (backend.Int8Bytes({1, 1, 1}) > 0) return absl::OkStatus();
  return UsageError(Concat("weights of 8 bits on ", backend.Name(),
                           ", which has no products in 8 bits; leave --int8 out, or take --device cpu"));
}

DecodeWeights::DecodeWeights(const Model& model, Backend& backend, Format format, bool drafts) {
  if (format == Format::kOwn) return;
  for (const Parameter* parameter : Rounded(model, drafts)) {
    packed_.emplace(parameter, Tensor(backend, DType::kU8, {backend.Int8Bytes(ShapeOf(*parameter))}));
  }
}

void DecodeWeights::Refresh(const Context& context) const {
  for (const auto& [parameter, packed] : packed_) {
    const Shape shape = ShapeOf(*parameter);
    PackInt8(context, {.w = parameter->weight().Reshape(shape), .to = {shape, packed}});
  }
}

void DecodeWeights::Multiply(const Context& context, TensorView x, const Parameter& w, TensorView y,
                             const Parameter* bias) const {
  const TensorView added = bias != nullptr ? bias->weight() : TensorView();
  if (const auto packed = packed_.find(&w); packed != packed_.end()) {
    Int8MatMul(context, {.x = x, .w = {ShapeOf(w), packed->second}, .y = y, .bias = added});
  } else {
    MatMul(context, {.a = x, .b = w.weight(), .c = y, .transpose_b = Transpose::kYes, .bias = added});
  }
}

void DecodeWeights::MultiplyExperts(const Context& context, TensorView x, TensorView offsets,
                                    const Parameter& w, TensorView y) const {
  if (const auto packed = packed_.find(&w); packed != packed_.end()) {
    Int8MatMul(context, {.x = x, .w = {w.shape(), packed->second}, .y = y, .offsets = offsets});
  } else {
    GroupedMatMul(context,
                  {.kind = GroupedKind::kForward, .x = x, .w = w.weight(), .y = y, .offsets = offsets});
  }
}

}  // namespace moebius
