// Every sample of a step in an HDF5 file, for whoever wants to look into a run (h5py reads it):
//   /tokens /logprobs /sampling_logprobs (and /reference, /proximal where a run has them): all samples one
//   after another; /prompt_tokens; per sample: /token_ends /prompt_ends (in the arrays above) /problem
//   /reward /correct /advantage (NaN: not judged) /finished; /text with /text_ends, /verdict with
//   /verdict_ends: UTF-8.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "rl/loop/rollout.h"

namespace moebius {

std::string ArchivePath(const std::string& folder, int64_t step);
// advantages: of every sample, in order.
absl::Status WriteArchive(const std::string& path, const std::vector<RolloutGroup>& groups,
                          const std::vector<double>& advantages, uint64_t seed);

}  // namespace moebius
