// Zero-bubble schedules with the memory of 1F1B: weight gradients wait for what would be idle time.
#include <algorithm>

#include "parallel/pipeline/generators.h"

namespace moebius::generators {
// ZB-H1 is 1F1B whose rank r does W of a microbatch r microbatches late: the PP-r microbatches that rank r
// holds in 1F1B and these r make PP on every rank. In the cool-down each I is followed by a W of the debt,
// where 1F1B waited for the next gradient.
void ZeroBubbleH1(Schedule& schedule) {
  const int total = schedule.microbatches;
  for (int rank = 0; rank < schedule.ranks; ++rank) {
    std::vector<Action>& list = schedule.actions[rank];
    const int ahead = std::min(total, schedule.ranks - 1 - rank);
    int weights = 0;
    const auto backward = [&](int m) {
      list.push_back(ComputeAction(kI, rank, m));
      if (m >= rank) list.push_back(ComputeAction(kW, rank, weights++));
    };
    for (int m = 0; m < ahead; ++m) list.push_back(ComputeAction(kF, rank, m));
    for (int m = ahead; m < total; ++m) {
      list.push_back(ComputeAction(kF, rank, m));
      backward(m - ahead);
    }
    for (int m = total - ahead; m < total; ++m) backward(m);
    while (weights < total) list.push_back(ComputeAction(kW, rank, weights++));
  }
}

// ZB-V at F = I = W: rank r holds chunk 0 (stage r) on the way down and chunk 1 (stage 2·PP-1-r) on the way
// back, so the last stage and the loss lie on rank 0 and its first backward starts after one trip. The
// pattern takes 2·PP-1 microbatches to fill; of fewer, it is what remains when the others are left out.
void ZeroBubbleV(Schedule& schedule) {
  const int ranks = schedule.ranks;
  const int total = std::max(schedule.microbatches, 2 * ranks - 1);
  for (int rank = 0; rank < ranks; ++rank) {
    std::vector<Action>& list = schedule.actions[rank];
    int next[3][2] = {};  // [F, I, W][chunk]: the next microbatch
    const auto append = [&](ActionKind kind, int chunk) {
      const int row = kind == kF ? 0 : kind == kI ? 1 : 2;
      const int m = next[row][chunk]++;
      const int stage = chunk == 0 ? rank : schedule.stages - 1 - rank;
      if (m < schedule.microbatches) list.push_back(ComputeAction(kind, stage, m));
    };
    const auto done = [&](ActionKind kind, int chunk) {
      return next[kind == kF ? 0 : kind == kI ? 1 : 2][chunk];
    };

    // Fill: chunk 0 until its first microbatch is back as chunk 1, then both, then chunk 1 with its backward.
    for (int i = 0; i < 2 * (ranks - rank) - 1; ++i) append(kF, 0);
    for (int i = 0; i < rank; ++i) {
      append(kF, 1);
      append(kF, 0);
    }
    for (int i = 0; i < ranks - rank; ++i) {
      append(kF, 1);
      append(kI, 1);
      append(kW, 1);
    }
    // Steady: one F, I and W of each chunk in turn.
    while (done(kF, 1) < done(kF, 0) || done(kF, 0) < total) {
      if (done(kF, 0) < total) append(kF, 0);
      append(kI, 0);
      append(kW, 0);
      append(kF, 1);
      append(kI, 1);
      append(kW, 1);
    }
    // Drain: gradients of the last microbatches go first, their weights fill the waits.
    for (int i = 0; i < rank; ++i) {
      append(kI, 0);
      append(kI, 1);
    }
    for (int i = 0; i < ranks - rank; ++i) {
      append(kI, 0);
      append(kW, 0);
    }
    while (done(kW, 1) < done(kI, 1)) append(kW, 1);
    while (done(kW, 0) < done(kI, 0)) append(kW, 0);
  }
}

}  // namespace moebius::generators
