// The layer seam: three phases as peers. There is no tape: explicit phases are what zero-bubble and DualPipe
// schedules, recomputation and exact memory accounting need.
#pragma once

#include <cstdint>
#include <limits>
#include <vector>

#include "core/backend/context.h"
#include "core/layers/saved.h"

namespace moebius {

// Which experts tokens went to, on the host: [tokens, MoE layers of the model (MTP modules left out), top-k].
// Where nobody knows, every choice of the token in that layer is kNoRoute.
using Route = uint16_t;
inline constexpr Route kNoRoute = std::numeric_limits<Route>::max();

// How a microbatch's T tokens lie: sequences one after another.
//
// Answers to one prompt may share its tokens (Microbatch::LoadGroups): then attention alone works on E rows
// in which every answer has a copy of its prompt before it, and everything else on the T tokens.
struct TokenLayout {
  TensorView positions;                  // [T] i32: position of each token in its sequence
  std::vector<int32_t> sequence_starts;  // [sequences + 1], first 0, last T: what balance losses average over
  std::vector<int32_t> attention_starts;  // the same, or finer under a document mask: what attention sees

  TensorView attention_rows;  // [E] i32: the token of each row; empty: E = T, row by row
  TensorView token_rows;      // [T] i32: a row of each token; the others of a shared token are its copies

  // Routing replay: experts that were chosen before and are taken again, whatever the router prefers now;
  // gates stay the live router's. Empty: the router chooses.
  TensorView routes;               // [T, MoE layers x top-k] i32; below 0: kNoRoute, the router chooses
  std::vector<Route> host_routes;  // the same

  int64_t tokens() const { return sequence_starts.back(); }
  int64_t sequences() const { return static_cast<int64_t>(sequence_starts.size()) - 1; }
  bool shares_prompts() const { return static_cast<bool>(attention_rows); }
};

// What the forward throws away and the backward computes again. V3's choice: norms, MLA up-projection,
// SwiGLU.
struct RecomputePolicy {
  bool norms = false;
  bool mla_up = false;
  bool swiglu = true;
  bool blocks = false;  // whole blocks: only their inputs are kept
  // More routed rows than this run through their experts in chunks of so many, computed again; 0: no bound.
  int64_t max_expert_rows = 0;
};

// Factors of the auxiliary terms of the trained objective, already divided by what they are averaged over in
// the global batch (sequences, or tokens for z), so that splitting a batch never changes a gradient.
struct BalanceFactors {
  float sequence = 0;   // V3's sequence-wise balance loss
  float auxiliary = 0;  // the classic loss over the experts really chosen
  float z = 0;          // logsumexp(router logits)²
};

// One microbatch on its way through the layers.
struct Pass {
  const Context& context;
  const TokenLayout& layout;
  Saved& saved;
  RecomputePolicy recompute = {};
  BalanceFactors balance = {};
  Rounding rounding = Rounding::kNone;  // of the operands of linear layers and experts

  TensorView Keep(int slot, DType dtype, Shape shape) const {  // a slot filled by the forward
    return saved[slot] = saved.activations().New(dtype, shape);
  }
  TensorView KeepGradient(int slot, DType dtype, Shape shape) const {  // by BackwardInput
    return saved[slot] = saved.gradients().New(dtype, shape);
  }
  // Memory for x, or what has its dtype and shape, rounded; empty where operands are not rounded, or where
  // products do it themselves.
  TensorView NewRounded(Arena& memory, const TensorView& x, RoundedBy by, int64_t groups = 1) const {
    const int64_t bytes = rounding == Rounding::kNone ? 0 : context.backend.RoundedBytes(x, by, groups);
    return bytes == 0 ? TensorView() : memory.New(DType::kU8, {bytes});
  }
  // Both: the rows for the phase that is running, the columns for the weights' gradients.
  RoundedCopies NewRoundedGradient(const TensorView& dy, int64_t groups = 1) const {
    const TensorView rows = NewRounded(context.scratch, dy, RoundedBy::kRows);
    if (!rows) return {};
    return {.rows = rows, .columns = NewRounded(saved.gradients(), dy, RoundedBy::kColumns, groups)};
  }
  // Whether SwiGLU makes h, of this dtype and shape, and in the backward its gradients rounded. Then nobody
  // has them otherwise, so products must take them: `hidden`, the width on their other side, counts too.
  bool RoundsSwiGlu(const TensorView& h, int64_t hidden) const {
    return recompute.swiglu && rounding != Rounding::kNone && h.cols() % 128 == 0 && hidden % 8 == 0 &&
           context.backend.RoundedBytes(h, RoundedBy::kRows, 1) > 0;
  }
};

// Phases of a layer on hidden states [T, hidden] act. x, y, dy and dx belong to the caller; x and dy stay
// valid and unchanged until BackwardWeight of the same microbatch has run. y and dx are overwritten. Weight
// gradients accumulate (+=) into Parameter::grad().
class Layer {
 public:
  virtual ~Layer() = default;
  virtual void Forward(const Pass& pass, TensorView x, TensorView y) const = 0;
  virtual void BackwardInput(const Pass& pass, TensorView dy, TensorView dx) const = 0;
  virtual void BackwardWeight(const Pass& pass) const = 0;
  // Replaces the input that the forward kept by the same values elsewhere: for whoever computed them again.
  virtual void SetInput(const Pass& pass, TensorView x) const = 0;
};

}  // namespace moebius
