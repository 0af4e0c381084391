// Mixture-of-experts MLP (DeepSeek-V3 §2.1.2; deepseek.md 1.2-1.3): y = shared(x) + sum of w_e · FFN_e(x)
// over the chosen experts. Dropless. The phases are cut where tokens travel, so that a schedule can run
// something else between a post and its wait.
//
// Bounded memory. Where a microbatch brings this rank more rows than RecomputePolicy::max_expert_rows, the
// experts run in chunks of so many rows and keep nothing but the rows themselves: what is wide (gate_up, h)
// is scratch of a chunk, computed again in BackwardInput, which then also adds the experts' weight gradients
// (BackwardWeight has nothing left of them) and puts the rows' gradients where those of their outputs were.
// Everything equals a run in one piece to rounding (1e-6 in fp32; products choose their kernel by the rows of
// a group, so not to the bit). In FP8 the tiles of a weight gradient start anew with a chunk's rows: there
// the runs differ as FP8 rounds.
#pragma once

#include <optional>

#include "core/layers/layer.h"
#include "core/layers/parameter.h"
#include "core/layers/swiglu_mlp.h"

namespace moebius {

struct MoeParameters {
  Parameter* router;          // [experts, hidden] f32
  Parameter* bias = nullptr;  // [experts] f32: for selection only, not trained by gradient
  Parameter* gate_up;         // [local experts, 2 I, hidden]
  Parameter* down;            // [local experts, hidden, I]
  Parameter* shared_gate_up = nullptr;
  Parameter* shared_down = nullptr;
};

// What one microbatch did to one layer's routing.
struct RoutingStatistics {
  std::vector<int64_t> counts;  // [experts] tokens that chose each
  double balance_loss_sum = 0;  // sequence-wise loss without its factor, summed over sequences
  double auxiliary_loss_sum = 0;
  double z_sum = 0;  // summed over tokens
  // Under routing replay: tokens whose experts were given, and those of them for which the router would have
  // chosen others (as a set).
  int64_t routes_given = 0;
  int64_t routes_changed = 0;
};

// The same as the device has it, in one row of i64 words, so that those of a microbatch are read at once:
// where each expert's tokens begin when they are sorted [experts + 1]; then as floats, two a word, the
// sequence-wise and the auxiliary losses [sequences each] and z.
struct RoutingRecord {
  int64_t experts = 0;
  int64_t sequences = 0;
  int64_t routes_given = 0;
  int64_t routes_changed = 0;

  static int64_t Words(int64_t experts, int64_t sequences) { return experts + 1 + sequences + 1; }
  RoutingStatistics Read(const int64_t* words) const;  // of the host
};

class MoeMlp {
 public:
  // layer: number among the model's MoE layers, its columns of TokenLayout::routes.
  MoeMlp(SlotCounter& slots, const RouterSpec& spec, const MoeParameters& parameters, TokenExchange* exchange,
         int64_t layer = 0);

  // Forward, in this order; x [T, hidden] stays valid until the weight phase.
  void Route(const Pass& pass, TensorView x) const;
  void PostDispatch(const Pass& pass) const;
  void SharedExpert(const Pass& pass, TensorView y) const;  // y = shared(x); nothing when there is none
  void Experts(const Pass& pass) const;                     // waits for the tokens, runs the experts
  void PostCombine(const Pass& pass) const;
  void WaitCombine(const Pass& pass, TensorView add, TensorView y) const;

  // BackwardInput, in this order.
  void PostCombineBackward(const Pass& pass, TensorView dy) const;
  void SharedExpertBackward(const Pass& pass, TensorView dy, TensorView dx) const;
  void ExpertsBackward(const Pass& pass) const;
  void PostDispatchBackward(const Pass& pass) const;
  void WaitDispatchBackward(const Pass& pass, TensorView add,
                            TensorView dx) const;  // dx = add + dispatch + router

  // Lets go of the rows that have come: after the phase that needs them last, or before Forward runs again.
  void Forget(const Pass& pass) const { pass.saved.exchange(handle_).reset(); }

  void BackwardWeight(const Pass& pass) const;
  // Its two parts: ExpertWeights may run before WaitDispatchBackward, OtherWeights after it.
  void ExpertWeights(const Pass& pass) const;
  void OtherWeights(const Pass& pass) const;
  void SetInput(const Pass& pass, TensorView x) const;

  bool has_shared() const { return shared_.has_value(); }
  const SwiGluMlp& shared() const { return *shared_; }  // with has_shared
  const RouterSpec& spec() const { return spec_; }
  const MoeParameters& parameters() const { return parameters_; }
  TokenExchange& exchange() const { return *exchange_; }
  // After Route. words: [RoutingRecord::Words or more] i64, zeros. Under routing replay it waits for the
  // stream.
  RoutingRecord Record(const Pass& pass, TensorView words) const;
  // After Route, for verification: how little would have changed a choice. The least lead, over tokens, of
  // the last chosen selection score before the next one, of the last chosen group's score, and of what the
  // sequence-wise loss counts where it is on; infinity where there was no choice. Waits for the stream.
  double RoutingMargin(const Pass& pass) const;

 private:
  struct Chunk {
    int64_t first, count;  // rows
    TensorView offsets;    // [local experts + 1] i64: those of the experts among them
  };
  bool InChunks(const Pass& pass) const;                                  // after WaitDispatch
  std::vector<Chunk> Chunks(const Pass& pass, TensorView offsets) const;  // in scratch
  void ChunkForward(const Pass& pass, const TokenExchange::Dispatched& d, const Chunk& chunk) const;
  void ChunkBackward(const Pass& pass, const TokenExchange::Dispatched& d, const Chunk& chunk) const;
  RoundedCopies ExpertsSwiGluBackward(const Pass& pass, const TokenExchange::Dispatched& dispatched,
                                      TensorView dh) const;
  TensorView InputF32(const Pass& pass, Arena& arena) const;
  void Choose(const Pass& pass, TensorView given, TensorView chosen) const;
  void CountReplayed(const Pass& pass, RoutingRecord& record) const;

  RouterSpec spec_;
  MoeParameters parameters_;
  TokenExchange* exchange_;
  int64_t layer_;
  std::optional<SwiGluMlp> shared_;
  int x_, logits_, scores_, chosen_, weights_, f_, losses_, auxiliary_f_, auxiliary_losses_, z_, dlogits_;
  int live_;  // [T, K] i32: what the router would have chosen, under routing replay alone
  int rows_, gate_up_out_, h_, out_, dout_, d_gate_up_, d_rows_, d_row_weights_, handle_;
  // For gradients of weights, where operands are kept rounded.
  int h_columns_, dout_columns_, d_gate_up_columns_;
};

}  // namespace moebius
