// One microbatch in flight: its tokens, how they lie, what the layers keep of it, and what came out.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/layers/layer.h"
#include "core/layers/moe_mlp.h"

namespace moebius {

class Microbatch {
 public:
  Microbatch(Backend& backend, int num_slots) : backend_(backend), saved(backend, num_slots) {}

  // tokens: `sequences` rows of `length` + 1 host ids, the last of each only a label. document_starts: under
  // a document mask, for each sequence the positions > 0 at which a document starts; else empty. depths: MTP.
  void Load(Stream& stream, std::span<const int32_t> tokens, int64_t sequences, int64_t length, int depths,
            const std::vector<std::vector<int32_t>>& document_starts = {});
  // For scoring: sequences of any lengths, starts [n + 1] into ids; the target of each sequence's last token
  // is -1.
  void LoadRagged(Stream& stream, std::span<const int32_t> ids, std::span<const int32_t> starts);

  int64_t tokens() const { return layout.tokens(); }

 private:
  Backend& backend_;
  std::vector<Tensor> memory_;  // of the views below, reused from load to load

  TensorView Put(Stream& stream, size_t index, std::span<const int32_t> values);

 public:
  Saved saved;
  TokenLayout layout;
  TensorView ids;      // [T] i32
  TensorView targets;  // [T] i32

  // MTP depth k (index k - 1): the positions with a target at that depth.
  struct Depth {
    TokenLayout layout;
    TensorView ids;      // [T_k] i32: token i + k
    TensorView targets;  // [T_k] i32: token i + k + 1
    TensorView output;   // [T_k, hidden]
    TensorView losses;   // [T_k] f32
    TensorView d_output;
  };
  std::vector<Depth> depths;

  // Results of Forward.
  TensorView hidden;    // [T, hidden] after the final norm (or the last block of a stage without head)
  TensorView losses;    // [T] f32
  TensorView d_hidden;  // gradient of `hidden`: from the head, or received by a stage without one
  std::vector<TensorView> block_inputs;
  std::vector<RoutingStatistics> routing;  // of each MoE layer

  // Where a phase stands between its steps.
  struct Cursor {
    TensorView in, out;       // of the block at work: x and y, or dy and dx
    TensorView spare;         // takes turns with dy and dx
    Arena::Mark activations;  // what to give back after the block
    Arena::Mark gradients;
  };
  Cursor cursor;
};

// losses [n] f32 summed in double on the host, rows with negative targets excluded by their zero loss.
double SumLosses(Backend& backend, Stream& stream, TensorView losses);

}  // namespace moebius
