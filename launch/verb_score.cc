#include "launch/verb_score.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "core/backend/device.h"
#include "core/base/strings.h"
#include "core/io/json.h"
#include "core/io/line_reader.h"
#include "core/model/model_folder.h"
#include "core/model/score.h"
#include "core/model/weights.h"
#include "launch/model_flags.h"

namespace moebius {
namespace {

constexpr int64_t kTokensAtOnce = 4096;

struct Sequences {
  std::vector<int32_t> ids;
  std::vector<int32_t> starts = {0};
};

absl::Status PrintScores(const std::vector<std::vector<float>>& rows) {
  for (const auto& row : rows) {
    if (!std::all_of(row.begin(), row.end(), [](float x) { return std::isfinite(x); })) {
      return BadNumbersError(
          "a log-probability is not finite; the weights hold NaN, infinity or far too large numbers; "
          "score an earlier checkpoint");
    }
    std::fputs("{\"logprobs\":[", stdout);
    for (size_t i = 0; i < row.size(); ++i) std::printf(i > 0 ? ",%.7g" : "%.7g", row[i]);
    std::fputs("]}\n", stdout);
  }
  return absl::OkStatus();
}

absl::Status RunScore(const ParsedArgs& args) {
  ASSIGN_OR_RETURN(const std::string folder, VerifiedModelFolder(args.positional()[0]));
  ASSIGN_OR_RETURN(const std::unique_ptr<Backend> backend, MakeBackend(DeviceOf(args)));
  const std::unique_ptr<Stream> stream = backend->NewStream(StreamKind::kCompute);
  ASSIGN_OR_RETURN(const DType act, ComputeTypeOf(args.Text("compute"), folder));
  ModelOptions options;
  options.storage = {.act = act, .training = false};
  options.mtp = false;
  options.positions_on_demand = true;
  ASSIGN_OR_RETURN(const LoadedModel loaded, LoadModel(folder, *backend, *stream, options));
  Arena scratch(*backend);
  const Context context{*backend, *stream, scratch};
  Microbatch microbatch(*backend, loaded.model->num_slots());
  ASSIGN_OR_RETURN(LineReader lines,
                   LineReader::Open(args.Text("tokens") == "-" ? "/dev/stdin" : args.Text("tokens")));
  Sequences batch;
  const auto flush = [&]() -> absl::Status {
    if (batch.ids.empty()) return absl::OkStatus();
    RETURN_IF_ERROR(PrintScores(ScoreSequences(*loaded.model, context, microbatch, batch.ids, batch.starts)));
    batch = Sequences();
    return absl::OkStatus();
  };
  std::string_view line;
  while (true) {
    ASSIGN_OR_RETURN(const bool more, lines.Next(&line));
    if (!more) break;
    if (IsBlank(line)) continue;
    ASSIGN_OR_RETURN(const nlohmann::json object, ParseJson(line, lines.Where()));
    ASSIGN_OR_RETURN(const std::vector<int64_t> ids,
                     GetIntArray(object, "ids", lines.Where(), 0, loaded.config.vocab_size - 1));
    const int64_t n = ids.size();
    if (n == 0)
      return DamagedError(Concat(lines.Where(), ": ids is empty; a sequence has one token or more"));
    if (n > loaded.config.max_position_embeddings) {
      return DamagedError(Concat(lines.Where(), ": ids has ", n,
                                 " tokens; the model's max_position_embeddings is ",
                                 loaded.config.max_position_embeddings, "; split the sequence"));
    }
    if (static_cast<int64_t>(batch.ids.size()) + n > kTokensAtOnce) RETURN_IF_ERROR(flush());
    batch.ids.insert(batch.ids.end(), ids.begin(), ids.end());
    batch.starts.push_back(static_cast<int32_t>(batch.ids.size()));
  }
  return flush();
}

}  // namespace

std::vector<Verb> ScoreVerbs() {
  return {{.name = "score",
           .summary = "log-probability of every token of given sequences",
           .usage = "MODEL --tokens FILE.jsonl [flags]",
           .flags = {{.name = "tokens",
                      .placeholder = "FILE",
                      .fallback = "-",
                      .help = "lines {\"ids\": [...]}; - is standard input"},
                     {.name = "compute",
                      .placeholder = "TYPE",
                      .fallback = "fp32",
                      .help = "dtype of weights and activations; auto: bf16 if the checkpoint is not fp32",
                      .choices = {"auto", "fp32", "bf16"}},
                     DeviceFlag(),
                     ThreadsFlag()},
           .examples = {"moebius score runs/quickstart --tokens sequences.jsonl",
                        "echo '{\"ids\":[5,6,7]}' | moebius score some-model"},
           .min_positional = 1,
           .max_positional = 1,
           .details = "Prints a line {\"logprobs\": [...]} for each input line that is not empty: natural "
                      "logarithms for tokens "
                      "2 to n.",
           .run = RunScore}};
}

}  // namespace moebius
