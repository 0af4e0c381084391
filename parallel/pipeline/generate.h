// The published schedules, by name. A generator only appends compute actions; see lower.h for the rest.
//
// clang-format off
//   name         stages  rank of stage s      microbatches             source
//   gpipe        PP      s                    any                      Huang et al. 2019
//   1f1b         PP      s                    any                      Narayanan et al. 2019 (PipeDream-Flush)
//   interleaved  v·PP    s mod PP             rounds of equal size     Narayanan et al. 2021 (Megatron-LM)
//   zb_h1        PP      s                    any                      Qi et al. 2023, section 2.3
//   zbv          2·PP    V: s, then 2·PP-1-s  any                      Qi et al. 2024
//   dualpipe     PP      s and PP-1-s         even, >= 2·PP; PP even   DeepSeek-V3 section 3.2.1
//   dualpipev    2·PP    V                    >= 2·PP                  DeepSeek DualPipe repository
// clang-format on
//
// Interleaved microbatches go in max(1, M / PP) rounds, which must be of equal size: any multiple of PP does,
// and so does any number below 2·PP. PP is the number of pipeline ranks. The DualPipe papers count
// DualPipeV's stages as PP and its ranks as PP/2.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "parallel/pipeline/schedule.h"

namespace moebius {

struct ScheduleSpec {
  std::string name = "1f1b";
  int ranks = 1;
  int microbatches = 1;
  int chunks = 2;  // interleaved only: stages a rank (v)
};

inline constexpr int kMaxPipelineRanks = 256;
inline constexpr int kMaxStages = 16384;
inline constexpr int kMaxMicrobatches = 65536;
// Stages times microbatches: bounds the memory of a schedule and of everything that reads it.
inline constexpr int64_t kMaxStageMicrobatches = int64_t{1} << 22;

// In the order of the table above.
std::vector<std::string> ScheduleNames();

// Compute actions only. UsageError for an unknown name (with the nearest one) and for numbers that the
// schedule cannot run (with the nearest valid ones).
absl::StatusOr<Schedule> GenerateSchedule(const ScheduleSpec& spec);

}  // namespace moebius
