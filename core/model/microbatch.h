// One microbatch in flight: its tokens, how they lie, what the layers keep of it, and what came out.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "core/layers/layer.h"
#include "core/layers/loss_head.h"
#include "core/layers/moe_mlp.h"

namespace moebius {

// Answers to one prompt, whose tokens they share: the prompt is computed once.
struct AnswerGroup {
  struct Answer {
    std::vector<int32_t> tokens;  // at least one
    std::vector<float> weights;   // [tokens] of each token's cross-entropy; empty: 1 each
    // [tokens] whether a prediction of the token is made at all; empty: of each. A conversation of several
    // turns is one answer that has the later questions in it.
    std::vector<bool> counts = {};
    std::span<const Route> routes = {};  // of all tokens but the last, where the prompt has them; borrowed
  };
  std::vector<int32_t> prompt;  // at least one token
  std::vector<Answer> answers;  // at least one
  // Experts to replay (TokenLayout::routes), borrowed; empty: the router chooses. All groups of a microbatch
  // have them or none.
  std::span<const Route> prompt_routes = {};
  // Whether its tokens are in balance losses and expert counts; groups that only fill a rank's batch are not.
  // All groups of a microbatch are, or none.
  bool balances = true;

  int64_t Tokens() const;       // that a model runs over
  int64_t Predictions() const;  // tokens of answers that count
};

class Microbatch {
 public:
  Microbatch(Backend& backend, int num_slots) : backend_(backend), saved(backend, num_slots) {}
  // Whose memory others take turns with, of this backend.
  Microbatch(Backend& backend, BlockPool& pool, int num_slots) : backend_(backend), saved(pool, num_slots) {}

  // tokens: `sequences` rows of `length` + 1 host ids, the last of each only a label. document_starts: under
  // a document mask, for each sequence the positions > 0 at which a document starts; else empty. depths: MTP.
  void Load(Stream& stream, std::span<const int32_t> tokens, int64_t sequences, int64_t length, int depths,
            const std::vector<std::vector<int32_t>>& document_starts = {});
  // For scoring: sequences of any lengths, starts [n + 1] into ids; the target of each sequence's last token
  // is -1. attention_starts: under a document mask also where documents start, in ids, rising, `starts` among
  // them; else empty.
  void LoadRagged(Stream& stream, std::span<const int32_t> ids, std::span<const int32_t> starts,
                  std::span<const int32_t> attention_starts = {});

  // Groups one after another; a group is one sequence to balance losses, a copy of the prompt with an answer
  // is one to attention. Predictions: of every answer's tokens that count, in order. No MTP depths.
  void LoadGroups(Stream& stream, std::span<const AnswerGroup> groups);

  int64_t tokens() const { return layout.tokens(); }
  int64_t predictions() const { return targets.elements(); }

 private:
  Backend& backend_;
  std::vector<Tensor> memory_;  // of the views below, reused from load to load

  void Begin();  // a load: nothing of the one before stays
  void PutRoutes(Stream& stream, std::span<const AnswerGroup> groups);
  // `values` in memory number `index`.
  TensorView Put(Stream& stream, size_t index, std::span<const int32_t> values);
  TensorView Put(Stream& stream, size_t index, std::span<const float> values);
  TensorView Put(Stream& stream, size_t index, const void* values, DType dtype, int64_t n);

 public:
  Saved saved;
  TokenLayout layout;
  bool balances = true;  // AnswerGroup::balances
  TensorView ids;        // [T] i32
  // The head's N predictions (HeadArgs); but for LoadGroups one of each token.
  TensorView prediction_rows;  // [N] i32, or empty
  TensorView targets;          // [N] i32
  TensorView weights;          // [N] f32, or empty

  // Where weights depend on what the model says: called with the predictions' losses before their gradients
  // are computed; writes the weights. Set after a load, which clears it.
  std::function<void(std::span<const float> losses, std::span<float> weights)> weigh;
  void PutWeights(Stream& stream, std::span<const float> values);
  // Runs a teacher on the same tokens; called before the head runs, whose predictions are then drawn to it.
  // Its x is valid until the head has run. Set after a load, which clears it.
  std::function<HeadTeacher()> teach;
  // Called with what the predictions came to (entropies: empty unless the objective wants them).
  std::function<void(std::span<const float> losses, std::span<const float> entropies)> observe;

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
  TensorView hidden;     // [T, hidden] after the final norm (or the last block of a stage without head)
  TensorView losses;     // [N] f32
  TensorView entropies;  // [N] f32, or empty
  TensorView divergences, agreements;  // [N] f32, or empty: without a teacher
  TensorView d_hidden;  // gradient of `hidden`: from the head, or received by a stage without one
  std::vector<TensorView> block_inputs;
  TensorView record_words;             // [MoE layers, words] i64
  std::vector<RoutingRecord> records;  // of each MoE layer that ran: a row of record_words

  // Where a phase stands between its steps.
  struct Cursor {
    TensorView in, out;       // of the block at work: x and y, or dy and dx
    TensorView spare;         // takes turns with dy and dx
    Arena::Mark activations;  // what to give back after the block
    Arena::Mark gradients;
  };
  Cursor cursor;
};

// What each MoE layer that ran did; waits for the stream.
std::vector<RoutingStatistics> ReadRouting(Backend& backend, Stream& stream, const Microbatch& mb);
// A device's values [n] f32 on the host; waits for them.
std::vector<float> ToHost(Backend& backend, Stream& stream, TensorView values);
// losses [n] f32 summed in double on the host, rows with negative targets excluded by their zero loss.
double SumLosses(Backend& backend, Stream& stream, TensorView losses);

}  // namespace moebius
