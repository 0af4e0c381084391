// Every sample of a step in an HDF5 file, for whoever wants to look into a run (h5py reads it):
//   /tokens, /logprobs (of the sampling policy), /sampling_logprobs, /proximal and /live (of the policy at
//   the start of the step and after it, by the training forward), /reference (where a run has one): all
//   samples one after another; /prompt_tokens; per sample: /token_ends /prompt_ends (in the arrays above)
//   /problem /sequence /reward /reward_PART /correct /visible (by the tests that the prompt shows) /differs
//   (the second verdict did) /advantage /finished; NaN: not judged, or, of an advantage, in a group that made
//   room for another; /text, /verdict and /extracted (what was judged), UTF-8, with /text_ends ... A sample's
//   random numbers are those of the attribute `seed` and its /sequence. /routes (of models with experts): the
//   experts of each sample's prompt tokens and of its tokens but the last, which no model ran on: [prompt +
//   tokens - 1, attribute route_size] u16, a token's MoE layers one after another; 65535: not known.
//   /route_ends per sample, in that array.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "rl/loop/rollout.h"

namespace moebius {

std::string ArchivePath(const std::string& folder, int64_t step);
// advantages: of the first samples, in order.
absl::Status WriteArchive(const std::string& path, const std::vector<RolloutGroup>& groups,
                          const std::vector<double>& advantages, uint64_t seed);

}  // namespace moebius
