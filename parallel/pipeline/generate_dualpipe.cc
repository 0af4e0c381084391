// DualPipe and DualPipeV: the same eight phases a rank, over two lanes of microbatches.
#include <deque>

#include "core/base/check.h"
#include "parallel/pipeline/generators.h"

namespace moebius::generators {
namespace {

// A rank's view: lane 0 enters the pipeline on its side, lane 1 comes back (DualPipeV) or enters at the other
// end (DualPipe). `depth` is the rank's distance from where lane 0 enters, of `half` in all.
struct Lanes {
  int half;
  int depth;
  int lane_microbatches;  // of each lane
  int stage[2];
  int first_microbatch[2];
};

class RankBuilder {
 public:
  RankBuilder(const Lanes& lanes, std::vector<Action>& list) : lanes_(lanes), list_(list) {}

  void F(int lane) { Append(Next(ActionKind::kForward, lane, forward_)); }
  void B(int lane) { Append(Next(ActionKind::kBackward, lane, backward_)); }
  // Backward whose weights wait in line.
  void I(int lane) {
    const Compute part = Next(ActionKind::kBackwardInput, lane, backward_);
    Append(part);
    weights_.push_back({ActionKind::kBackwardWeight, part.stage, part.microbatch});
  }
  // The weights that have waited longest.
  void W() {
    CHECK(!weights_.empty());
    Append(weights_.front());
    weights_.pop_front();
  }
  void FandB(int forward_lane, int backward_lane) {
    const Compute f = Next(ActionKind::kForward, forward_lane, forward_);
    list_.push_back(OverlapAction(f, Next(ActionKind::kBackward, backward_lane, backward_)));
  }

 private:
  Compute Next(ActionKind kind, int lane, int (&counter)[2]) {
    return {kind, lanes_.stage[lane], lanes_.first_microbatch[lane] + counter[lane]++};
  }
  void Append(const Compute& part) { list_.push_back(ComputeAction(part.kind, part.stage, part.microbatch)); }

  const Lanes& lanes_;
  std::vector<Action>& list_;
  std::deque<Compute> weights_;
  int forward_[2] = {};
  int backward_[2] = {};
};

// The phases of DeepSeek-V3 section 3.2.1 as in the DualPipe repository.
void AppendPhases(const Lanes& lanes, std::vector<Action>& list) {
  const int k = lanes.depth, outer = lanes.half - k - 1;
  const bool turn = outer == 0;  // the middle ranks of DualPipe, the last one of DualPipeV
  RankBuilder rank(lanes, list);
  // 1-2: fill, lane 0 alone until lane 1 arrives.
  for (int i = 0; i < 2 * outer; ++i) rank.F(0);
  for (int i = 0; i <= k; ++i) {
    rank.F(0);
    rank.F(1);
  }
  // 3: first gradients of lane 1; the weights wait until the gradient has left.
  for (int i = 0; i < outer; ++i) {
    rank.I(1);
    rank.W();
    rank.F(1);
  }
  // 4: steady. At the turn the very first pair is not overlapped: its B would make the whole pipeline wait.
  for (int i = 0; i < lanes.lane_microbatches - 2 * lanes.half + k + 1; ++i) {
    if (i == 0 && turn) {
      rank.F(0);
      rank.B(1);
    } else {
      rank.FandB(0, 1);
    }
    rank.FandB(1, 0);
  }
  // 5: lane 0 has no forwards left.
  for (int i = 0; i < outer; ++i) {
    rank.B(1);
    rank.FandB(1, 0);
  }
  // 6: drain; of these 2(k+1) backwards the second half leave their weights for the waits of 7 and 8.
  for (int i = 0; i < 2 * (k + 1); ++i) {
    const int lane = i % 2 == 0 ? 1 : 0;
    i < k + 1 ? rank.B(lane) : rank.I(lane);
  }
  // 7-8: weights fill the waits for lane 0's last gradients; what is left is done at the end.
  for (int i = 0; i < outer; ++i) {
    rank.W();
    rank.I(0);
  }
  for (int i = 0; i <= k; ++i) rank.W();
}

}  // namespace

// Ranks of the second half see the same picture in a mirror: their lane 0 carries direction 1.
void DualPipe(Schedule& schedule) {
  const int ranks = schedule.ranks, each = schedule.microbatches / 2;
  for (int rank = 0; rank < ranks; ++rank) {
    const bool mirrored = rank >= ranks / 2;
    const int depth = mirrored ? ranks - 1 - rank : rank;
    AppendPhases({.half = ranks / 2,
                  .depth = depth,
                  .lane_microbatches = each,
                  .stage = {depth, ranks - 1 - depth},
                  .first_microbatch = {mirrored ? each : 0, mirrored ? 0 : each}},
                 schedule.actions[rank]);
  }
}

// One end of DualPipe folded onto the other: lane 1 is the way back of the same microbatches.
void DualPipeV(Schedule& schedule) {
  for (int rank = 0; rank < schedule.ranks; ++rank) {
    AppendPhases({.half = schedule.ranks,
                  .depth = rank,
                  .lane_microbatches = schedule.microbatches,
                  .stage = {rank, schedule.stages - 1 - rank},
                  .first_microbatch = {0, 0}},
                 schedule.actions[rank]);
  }
}

}  // namespace moebius::generators
