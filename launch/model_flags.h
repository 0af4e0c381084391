// Flags that verbs which ask a model share (generate, chat, eval), and what they mean.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/backend/device.h"
#include "core/generate/sampler.h"
#include "launch/cli.h"
#include "rl/evaluation/language_model.h"

namespace moebius {

struct SamplingFallbacks {
  std::string temperature, top_p;
  std::string reproduces;  // what the same seed gives, as help says it: "the same seed gives the same text"
};

// --temperature, --top-p, --seed.
std::vector<Flag> SamplingFlags(const SamplingFallbacks& fallbacks);
// UsageError for values that do not go together.
absl::StatusOr<SamplingParams> SamplingOf(const ParsedArgs& args);

// --compute, --int8, --device, --threads.
std::vector<Flag> ModelFlags();
DeviceOptions DeviceOf(const ParsedArgs& args);
// The folder of the model that a command's MODEL names (ModelFolderOf), whose files have the hashes of its
// manifest.json if it has one; the optimizer's, which no such command reads, are not looked at. DamagedError
// otherwise.
absl::StatusOr<std::string> VerifiedModelFolder(const std::string& path);
// The model of `folder` by those flags.
absl::StatusOr<std::unique_ptr<LanguageModel>> LoadAsked(const ParsedArgs& args, const std::string& folder,
                                                         const std::optional<ChatTemplate>& chat);

// One list after the other.
std::vector<Flag> Joined(std::vector<Flag> flags, const std::vector<std::vector<Flag>>& more);

}  // namespace moebius
