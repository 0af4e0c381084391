// Schedules with a whole backward: GPipe, 1F1B, interleaved 1F1B.
#include <algorithm>

#include "parallel/pipeline/generators.h"

namespace moebius::generators {
void GPipe(Schedule& schedule) {
  for (int rank = 0; rank < schedule.ranks; ++rank) {
    std::vector<Action>& list = schedule.actions[rank];
    for (int m = 0; m < schedule.microbatches; ++m) list.push_back(ComputeAction(kF, rank, m));
    for (int m = 0; m < schedule.microbatches; ++m) list.push_back(ComputeAction(kB, rank, m));
  }
}

// Rank r runs ahead by just the PP-1-r forwards that it takes until its first gradient comes back, and then
// holds no more than PP-r microbatches.
void OneFOneB(Schedule& schedule) {
  const int total = schedule.microbatches;
  for (int rank = 0; rank < schedule.ranks; ++rank) {
    std::vector<Action>& list = schedule.actions[rank];
    const int ahead = std::min(total, schedule.ranks - 1 - rank);
    for (int m = 0; m < ahead; ++m) list.push_back(ComputeAction(kF, rank, m));
    for (int m = ahead; m < total; ++m) {
      list.push_back(ComputeAction(kF, rank, m));
      list.push_back(ComputeAction(kB, rank, m - ahead));
    }
    for (int m = total - ahead; m < total; ++m) list.push_back(ComputeAction(kB, rank, m));
  }
}

// 1F1B over v chunks: microbatches go in rounds of `round`, and within a round every chunk of the rank runs
// all of the round's microbatches before the next chunk does (backward: chunks from the last). The forwards
// run ahead by all chunks but the last, and by two for each rank below, so that gradients meet them in time.
void Interleaved(Schedule& schedule) {
  const int ranks = schedule.ranks, chunks = schedule.stages / ranks;
  const int round = schedule.microbatches / std::max(1, schedule.microbatches / ranks);
  const int total = schedule.microbatches * chunks;
  for (int rank = 0; rank < ranks; ++rank) {
    std::vector<Action>& list = schedule.actions[rank];
    const auto append = [&](ActionKind kind, int step) {
      const int chunk = step / round % chunks;
      const int stage = rank + ranks * (kind == kF ? chunk : chunks - 1 - chunk);
      list.push_back(ComputeAction(kind, stage, step / (round * chunks) * round + step % round));
    };
    const int ahead = std::min(total, (chunks - 1) * round + 2 * (ranks - 1 - rank));
    for (int step = 0; step < ahead; ++step) append(kF, step);
    for (int step = ahead; step < total; ++step) {
      append(kF, step);
      append(kB, step - ahead);
    }
    for (int step = total - ahead; step < total; ++step) append(kB, step);
  }
}

}  // namespace moebius::generators
