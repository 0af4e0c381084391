// How a run is laid out over ranks: a printable value, checked as a whole before anything is built.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "core/model/config.h"
#include "parallel/exchange/exchange_options.h"
#include "parallel/pipeline/schedule.h"

namespace moebius {

// ranks = pipeline x data x expert. Every (data, expert) pair of coordinates has sequences of its own.
struct Layout {
  int pipeline = 1;
  int data = 1;
  int expert = 1;
  std::string schedule = "1f1b";  // of GenerateSchedule, or a file NAME.txt in the form of schedule_text.h
  int chunks = 2;                 // stages a rank, for "interleaved"
  ExchangeOptions exchange = {};

  int ranks() const { return pipeline * data * expert; }
  int batch_shards() const { return data * expert; }  // parts of the global batch
};
std::string ToText(const Layout& layout);  // "pipeline 2 x data 1 x expert 4, 1f1b"

// Where a rank stands. Expert ranks are neighbours (their traffic is the heaviest, so they share a node
// first), then data ranks, and pipeline ranks are the farthest apart.
struct Coordinates {
  int pipeline = 0;
  int data = 0;
  int expert = 0;
  // Which part of the global batch is this rank's: the same for all its pipeline peers.
  int batch_shard(const Layout& layout) const { return data * layout.expert + expert; }
};
Coordinates CoordinatesOf(const Layout& layout, int rank);
int RankOf(const Layout& layout, const Coordinates& at);

// Sizes that a layout has to fit.
struct BatchSizes {
  int64_t sequences = 1;             // the global batch (the smallest, under a ramp)
  int64_t microbatch_sequences = 0;  // 0: a rank's whole share at once
  int64_t length = 0;                // tokens of a sequence; 0: of no matter
};
// Tokens that one pass may have: far more than fit any memory, and few enough for 32-bit positions.
inline constexpr int64_t kMostMicrobatchTokens = int64_t{1} << 27;
int64_t MicrobatchesOf(const Layout& layout, const BatchSizes& batch);

// `data` 0 becomes what is left of `ranks`. Every size that does not fit is named in one UsageError, each
// with the nearest valid choices.
absl::StatusOr<Layout> FitLayout(Layout layout, int ranks, const ModelConfig& model, const BatchSizes& batch);

// Whether the schedule is a user's file, which is made for one number of microbatches.
bool IsScheduleFile(const Layout& layout);
// The schedule of one step: compute actions only, but for a user's file that has communication of its own. A
// file must be valid and made for this many pipeline ranks and microbatches.
absl::StatusOr<Schedule> ScheduleOf(const Layout& layout, int64_t microbatches);
// Stages and holders, which do not depend on the number of microbatches; actions are any.
absl::StatusOr<Schedule> ScheduleShape(const Layout& layout);

}  // namespace moebius
