// Checkpoints: a Hugging Face folder that transformers loads as it lies, with what training needs beside it
// (contract; architecture.md section 4):
//   config.json  generation_config.json  tokenizer.json  tokenizer_config.json  chat_template.jinja
//   model-*.safetensors (fp32 masters)
//   optimizer-*.safetensors ("m.NAME", "v.NAME", "ema.NAME", or "m.NAME[FIRST:LAST]" for a slice of the flat
//   tensor)  trainer_state.json  manifest.json (SHA-256 of all)
// Everything is stored by logical tensor and slice, so any layout loads any other layout's checkpoint. Each
// rank writes what it owns into files of its own; rank 0 closes the set with the manifest.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "optim/trainer.h"

namespace moebius {

struct CheckpointOptions {
  std::string tokenizer_json = {};         // "" where unknown
  std::string tokenizer_config_json = {};  // for transformers, beside tokenizer.json
  std::string chat_template_jinja = {};    // "" where there is none
  std::vector<int32_t> end_ids = {};       // that end a text, beside the config's
  std::string instruction_set = {};        // resume is bit-exact on the same one only; recorded
};

// Collective. Writes to a temporary folder, reads every file back, fsyncs and renames: `folder` appears whole
// or not at all. All ranks get the same answer.
absl::Status SaveCheckpoint(const std::string& folder, Trainer& trainer, const CheckpointOptions& options);

// Collective. Weights, moments and counters of `folder` into `trainer`, whose model must have the same
// config; whatever layout wrote it. Every file is checked against the manifest first (DamagedError).
// `warning`: set when bit-exactness is lost (another instruction set), else "".
absl::Status LoadCheckpoint(const std::string& folder, Trainer& trainer, const std::string& instruction_set,
                            std::string* warning);

// OK if the folder has a manifest and every file in it has the hash that the manifest says. kModel: of files
// that only training reads, most of the bytes, nothing is said. `ranks` that each ask as one of them have
// read every file between them.
enum class CheckpointPart { kAll, kModel };
absl::Status VerifyCheckpoint(const std::string& folder, CheckpointPart part = CheckpointPart::kAll,
                              int rank = 0, int ranks = 1);
// Collective: all ranks at once, and one answer.
absl::Status VerifyCheckpoint(const std::string& folder, CheckpointPart part, Mesh& mesh);

// Only the counters of trainer_state.json.
absl::StatusOr<TrainerState> ReadTrainerState(const std::string& folder);

}  // namespace moebius
