#include "launch/model_flags.h"

#include "core/base/strings.h"
#include "core/io/file.h"
#include "launch/run_folder.h"
#include "optim/checkpoint.h"

namespace moebius {

std::vector<Flag> SamplingFlags(const SamplingFallbacks& fallbacks) {
  return {{.name = "temperature",
           .kind = FlagKind::kNumber,
           .placeholder = "T",
           .fallback = fallbacks.temperature,
           .help = "0 takes the most probable token always",
           .min = 0},
          {.name = "top-p",
           .kind = FlagKind::kNumber,
           .placeholder = "P",
           .fallback = fallbacks.top_p,
           .help = "draw among the best that together have probability P",
           .min = 0,
           .max = 1},
          {.name = "seed",
           .kind = FlagKind::kInteger,
           .placeholder = "N",
           .fallback = "0",
           .help = "of the random numbers: " + fallbacks.reproduces,
           .min = 0}};
}

absl::StatusOr<SamplingParams> SamplingOf(const ParsedArgs& args) {
  const SamplingParams sampling = {.temperature = args.Number("temperature"),
                                   .top_p = args.Number("top-p"),
                                   .seed = static_cast<uint64_t>(args.Integer("seed"))};
  RETURN_IF_ERROR(Validate(sampling));
  if (args.Given("top-p") && sampling.top_p < 1 && sampling.temperature == 0) {
    return UsageError("--top-p with --temperature 0, which always takes the likeliest token; leave one out");
  }
  return sampling;
}

std::vector<Flag> ModelFlags() {
  return {{.name = "compute",
           .placeholder = "TYPE",
           .fallback = "auto",
           .help = "dtype of weights and activations; auto: bf16 if the checkpoint is not fp32",
           .choices = {"auto", "fp32", "bf16"}},
          {.name = "int8",
           .kind = FlagKind::kSwitch,
           .help = "multiply by weights of 8 bits: faster, less precise (CPU)"},
          DeviceFlag(),
          ThreadsFlag()};
}

absl::StatusOr<std::string> VerifiedModelFolder(const std::string& path) {
  const std::string folder = ModelFolderOf(path);
  // The manifest of a data build is none of a model's.
  if (FileExists(JoinPath(folder, "manifest.json")) && FileExists(JoinPath(folder, "config.json"))) {
    RETURN_IF_ERROR(VerifyCheckpoint(folder, CheckpointPart::kModel));
  }
  return folder;
}

DeviceOptions DeviceOf(const ParsedArgs& args) {
  return {.device = *DeviceFromName(args.Text("device")),
          .threads = static_cast<int>(args.Integer("threads"))};
}

absl::StatusOr<std::unique_ptr<LanguageModel>> LoadAsked(const ParsedArgs& args, const std::string& folder,
                                                         const std::optional<ChatTemplate>& chat) {
  return LanguageModel::Load(
      folder,
      {.device = DeviceOf(args), .compute = args.Text("compute"), .int8 = args.On("int8"), .chat = chat});
}

std::vector<Flag> Joined(std::vector<Flag> flags, const std::vector<std::vector<Flag>>& more) {
  for (const std::vector<Flag>& list : more) flags.insert(flags.end(), list.begin(), list.end());
  return flags;
}

}  // namespace moebius
