#include "launch/verb_generate.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "core/base/nearest.h"
#include "core/base/strings.h"
#include "core/generate/generate.h"
#include "core/io/json.h"
#include "core/io/line_reader.h"
#include "core/model/model_folder.h"
#include "core/model/weights.h"
#include "data/tokenizer/tokenizer.h"
#include "launch/model_flags.h"
#include "launch/terminal_text.h"

namespace moebius {
namespace {

// Encodes with the model's tokenizer.json, which only text needs.
class Text {
 public:
  static absl::StatusOr<Text> Load(const std::string& folder, const ModelConfig& config) {
    Text text;
    text.folder_ = folder;
    text.start_ = config.bos_token_id >= 0 ? config.bos_token_id : config.eos_token_id;
    if (std::filesystem::exists(std::filesystem::path(folder) / "tokenizer.json")) {
      ASSIGN_OR_RETURN(text.tokenizer_, Tokenizer::Load(folder));
    }
    return text;
  }

  const Tokenizer* tokenizer() const { return tokenizer_ ? &*tokenizer_ : nullptr; }

  absl::StatusOr<std::vector<int32_t>> Prompt(const std::string& prompt) const {
    if (!tokenizer_ && prompt.empty() && start_ >= 0)
      return std::vector<int32_t>{static_cast<int32_t>(start_)};
    if (!tokenizer_) {
      return MissingError(
          folder_ +
          " has no tokenizer.json, so text cannot become tokens; put one there, or give token "
          "ids with --batch");
    }
    RETURN_IF_ERROR(tokenizer_->CheckNothingIsLost(prompt, {.parse_special = true}));
    std::vector<int32_t> ids = tokenizer_->Encode(prompt, {.parse_special = true, .add_special = true});
    if (ids.empty() && start_ >= 0) ids.push_back(static_cast<int32_t>(start_));
    if (ids.empty()) {
      return UsageError(
          "the prompt is empty and the model has neither bos_token_id nor eos_token_id to start from; "
          "give --prompt some text");
    }
    return ids;
  }

 private:
  std::string folder_;
  int64_t start_ = -1;  // what an empty prompt starts with
  std::optional<Tokenizer> tokenizer_;
};

struct Prompt {
  std::vector<int32_t> ids;
  int64_t max_new = 0;
};

struct Length {
  int64_t max_new;
  bool asked;
};

// How many new tokens a prompt gets: as many as were asked for, else as the model has room for.
absl::Status SetLength(const Length& length, const ModelConfig& config, const std::string& where,
                       Prompt& prompt) {
  const int64_t tokens = std::ssize(prompt.ids), room = config.max_position_embeddings - tokens;
  prompt.max_new = length.asked ? length.max_new : std::min(length.max_new, room);
  if (room >= 1 && prompt.max_new <= room) return absl::OkStatus();
  return UsageError(
      Concat(where, ": ", tokens, " prompt tokens ",
             room < 1 ? std::string("leave no room in") : Concat("and ", prompt.max_new, " new ones exceed"),
             " the ", config.max_position_embeddings, " positions of the model; shorten ",
             room < 1 ? "it" : "one of them"));
}

absl::Status CheckFields(const nlohmann::json& object, const std::string& where) {
  const std::vector<std::string> known = {"ids", "prompt", "max_new"};
  if (!object.is_object())
    return DamagedError(
        Concat(where, ": is ", DescribeJson(object), "; a line is one JSON object; correct it"));
  for (const auto& [name, value] : object.items()) {
    if (std::find(known.begin(), known.end(), name) != known.end()) continue;
    const std::string nearest = Nearest(name, known);
    return DamagedError(Concat(where, ": has no field \"", Printable(name), "\"; a line has ", Join(known),
                               "; ",
                               nearest.empty() ? "leave it out" : Concat("did you mean ", nearest, "?")));
  }
  if (HasJsonField(object, "ids") != HasJsonField(object, "prompt")) return absl::OkStatus();
  return DamagedError(Concat(where, HasJsonField(object, "ids") ? ": has both" : ": has neither", " \"ids\" ",
                             HasJsonField(object, "ids") ? "and" : "nor",
                             " \"prompt\"; one of them is continued; correct it"));
}

// Lines {"ids": [...]} or {"prompt": "text"}, with "max_new" where the answer's length is not the flag's.
absl::StatusOr<std::vector<Prompt>> ReadBatch(const std::string& path, const ModelConfig& config,
                                              const Text& text, const Length& standard) {
  std::vector<Prompt> prompts;
  ASSIGN_OR_RETURN(LineReader lines, LineReader::Open(path == "-" ? "/dev/stdin" : path));
  std::string_view line;
  while (true) {
    ASSIGN_OR_RETURN(const bool more, lines.Next(&line));
    if (!more) return prompts;
    if (IsBlank(line)) continue;
    ASSIGN_OR_RETURN(const nlohmann::json object, ParseJson(line, lines.Where()));
    RETURN_IF_ERROR(CheckFields(object, lines.Where()));
    Length length = standard;
    if (HasJsonField(object, "max_new")) {
      length.asked = true;
      ASSIGN_OR_RETURN(length.max_new, GetInt(object, "max_new", lines.Where(), 1, 1 << 24));
    }
    if (HasJsonField(object, "prompt")) {
      ASSIGN_OR_RETURN(const std::string prompt, GetString(object, "prompt", lines.Where()));
      auto ids = text.Prompt(prompt);
      if (!ids.ok()) return Annotate(ids.status(), lines.Where());
      prompts.push_back({.ids = *std::move(ids)});
    } else {
      ASSIGN_OR_RETURN(const std::vector<int64_t> ids,
                       GetIntArray(object, "ids", lines.Where(), 0, config.vocab_size - 1));
      if (ids.empty()) return DamagedError(lines.Where() + ": ids is empty; a prompt has one token or more");
      prompts.push_back({.ids = {ids.begin(), ids.end()}});
    }
    RETURN_IF_ERROR(SetLength(length, config, lines.Where(), prompts.back()));
  }
}

nlohmann::ordered_json ToJson(const GenerateResult& result, const Tokenizer* tokenizer) {
  nlohmann::ordered_json json;
  json["ids"] = result.tokens;
  if (tokenizer != nullptr) json["text"] = tokenizer->DecodeText(result.tokens, SpecialTokens::kSkip);
  json["finish_reason"] = result.reason == StopReason::kStopToken ? "stop" : "length";
  if (!result.logprobs.empty()) json["logprobs"] = result.logprobs;
  return json;
}

void Print(const std::string& text) {
  static const bool terminal = isatty(STDOUT_FILENO) != 0;
  const std::string shown = terminal ? TerminalText(text) : text;
  std::fwrite(shown.data(), 1, shown.size(), stdout);
  std::fflush(stdout);
}

struct Run {
  Decoder& decoder;
  const Tokenizer* tokenizer;
  std::vector<GenerateRequest> requests;
  int64_t max_batch;
};

// One text, written as it grows, after its prompt.
absl::StatusOr<std::vector<GenerateResult>> Stream1(const Run& run) {
  StreamDecoder stream(*run.tokenizer, SpecialTokens::kSkip);
  // With the first token: what is refused prints nothing.
  std::string prompt = run.tokenizer->DecodeText(run.requests[0].prompt, SpecialTokens::kSkip);
  auto results = Generate(run.decoder, run.requests,
                          {.max_batch = 1, .on_token = [&](size_t, const SampledToken& token) {
                             Print(std::exchange(prompt, "") + stream.Push(token.id));
                             return true;
                           }});
  if (results.ok()) Print(prompt + stream.Finish() + "\n");
  return results;
}

std::string TextOf(const Run& run, size_t i, const GenerateResult& result, bool json) {
  if (json || run.tokenizer == nullptr) return DumpJson(ToJson(result, run.tokenizer)) + "\n";
  std::vector<int32_t> all = run.requests[i].prompt;
  all.insert(all.end(), result.tokens.begin(), result.tokens.end());
  return Concat("--- ", i + 1, "\n", run.tokenizer->DecodeText(all, SpecialTokens::kSkip), "\n");
}

// In the order of the requests, each as soon as those before it are done: what is written stays where the run
// is stopped.
absl::StatusOr<std::vector<GenerateResult>> PrintAll(const Run& run, bool json) {
  std::map<size_t, std::string> waiting;
  size_t next = 0;
  return Generate(run.decoder, run.requests,
                  {.max_batch = run.max_batch, .on_result = [&](size_t i, const GenerateResult& result) {
                     waiting[i] = TextOf(run, i, result, json);
                     for (auto it = waiting.find(next); it != waiting.end(); it = waiting.find(++next)) {
                       Print(it->second);
                       waiting.erase(it);
                     }
                   }});
}

absl::StatusOr<std::vector<GenerateRequest>> Requests(const ParsedArgs& args, const std::string& folder,
                                                      const ModelConfig& config, const Text& text) {
  std::vector<Prompt> prompts;
  const Length length{args.Integer("max-new"), args.Given("max-new")};
  if (args.Given("batch")) {
    ASSIGN_OR_RETURN(prompts, ReadBatch(args.Text("batch"), config, text, length));
  }
  std::vector<std::string> texts = args.All("prompt");
  if (texts.empty() && !args.Given("batch")) texts.emplace_back();
  for (size_t i = 0; i < texts.size(); ++i) {
    Prompt& prompt = prompts.emplace_back();
    ASSIGN_OR_RETURN(prompt.ids, text.Prompt(texts[i]));
    const std::string where = texts.size() > 1 ? Concat("--prompt number ", i + 1) : "--prompt";
    RETURN_IF_ERROR(SetLength(length, config, where, prompt));
  }
  std::vector<int32_t> stop;
  if (!args.On("ignore-eos")) {
    ASSIGN_OR_RETURN(stop, EndOfTextIds(folder, config));
  }
  ASSIGN_OR_RETURN(SamplingParams sampling, SamplingOf(args));
  sampling.top_k = args.Integer("top-k");
  std::vector<GenerateRequest> requests;
  for (const Prompt& prompt : prompts) {
    for (int64_t sample = 0; sample < args.Integer("samples"); ++sample) {
      requests.push_back({.prompt = prompt.ids,
                          .max_new = prompt.max_new,
                          .sampling = sampling,
                          .sequence = requests.size(),
                          .stop = stop,
                          .logprobs = args.On("logprobs") ? LogProbs::kYes : LogProbs::kNo});
    }
  }
  return requests;
}

absl::Status RunGenerate(const ParsedArgs& args) {
  const bool json = args.On("json") || args.Given("batch");
  if (args.On("logprobs") && !json)
    return UsageError("--logprobs needs --json or --batch; a text has no place for them; add --json");
  ASSIGN_OR_RETURN(const std::string folder, VerifiedModelFolder(args.positional()[0]));
  ASSIGN_OR_RETURN(const std::unique_ptr<Backend> backend, MakeBackend(DeviceOf(args)));
  if (args.On("int8")) RETURN_IF_ERROR(DecodeWeights::CheckInt8(*backend));
  const std::unique_ptr<Stream> stream = backend->NewStream(StreamKind::kCompute);
  ASSIGN_OR_RETURN(const ModelConfig config, LoadConfig(folder));
  ASSIGN_OR_RETURN(const Text text, Text::Load(folder, config));
  ASSIGN_OR_RETURN(std::vector<GenerateRequest> requests, Requests(args, folder, config, text));
  ASSIGN_OR_RETURN(const DType act, ComputeTypeOf(args.Text("compute"), folder));
  ModelOptions options;
  options.storage = {.act = act, .training = false};
  options.mtp = args.On("drafts");
  options.positions_on_demand = true;
  if (options.mtp && config.num_nextn_predict_layers == 0) {
    return UsageError(
        Concat("--drafts with ", folder,
               "; drafts come from an MTP module, and the model has none "
               "(num_nextn_predict_layers is 0 in its config.json); leave --drafts out, or take "
               "a model that was trained with one"));
  }
  ASSIGN_OR_RETURN(const LoadedModel loaded, LoadModel(folder, *backend, *stream, options));
  Decoder decoder(*loaded.model, *backend, *stream, {.int8 = args.On("int8"), .drafts = options.mtp});

  Run run{decoder, text.tokenizer(), std::move(requests), args.Integer("batch-size")};
  const auto start = std::chrono::steady_clock::now();
  const bool stream1 = run.requests.size() == 1 && !json && run.tokenizer != nullptr;
  ASSIGN_OR_RETURN(const std::vector<GenerateResult> results, stream1 ? Stream1(run) : PrintAll(run, json));
  if (args.On("stats")) {
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    int64_t tokens = 0, drafts = 0, accepted = 0;
    for (const GenerateResult& result : results) {
      tokens += std::ssize(result.tokens);
      drafts += result.drafts;
      accepted += result.accepted_drafts;
    }
    std::fprintf(stderr, "%lld tokens in %.3f s: %.1f tokens/s", static_cast<long long>(tokens), seconds,
                 tokens / seconds);
    if (decoder.drafts()) {
      std::fprintf(stderr, "; %lld of %lld drafts accepted (%.1f %%)", static_cast<long long>(accepted),
                   static_cast<long long>(drafts), 100.0 * accepted / std::max<double>(1, drafts));
    }
    std::fputc('\n', stderr);
  }
  return absl::OkStatus();
}

}  // namespace

std::vector<Verb> GenerateVerbs() {
  return {
      {.name = "generate",
       .summary = "continue prompts with sampled text",
       .usage = "MODEL [--prompt TEXT]... [--batch FILE.jsonl] [flags]",
       .flags = Joined(
           {{.name = "prompt",
             .kind = FlagKind::kRepeatedText,
             .placeholder = "TEXT",
             .help = "text to continue; may be given several times"},
            {.name = "batch",
             .placeholder = "FILE",
             .help = "lines {\"ids\": [...]} or {\"prompt\": TEXT}, with \"max_new\" by choice; - is "
                     "standard input; answers are "
                     "JSON lines in the same order"},
            {.name = "max-new",
             .kind = FlagKind::kInteger,
             .placeholder = "N",
             .fallback = "128",
             .help = "new tokens at most; not given: fewer where the model has less room",
             .min = 1,
             .max = 1e9},
            {.name = "top-k",
             .kind = FlagKind::kInteger,
             .placeholder = "N",
             .fallback = "0",
             .help = "draw among the N best, 0 for all",
             .min = 0},
            {.name = "samples",
             .kind = FlagKind::kInteger,
             .placeholder = "N",
             .fallback = "1",
             .help = "texts a prompt",
             .min = 1,
             .max = 1e6},
            {.name = "ignore-eos", .kind = FlagKind::kSwitch, .help = "go on after end-of-text tokens"},
            {.name = "json",
             .kind = FlagKind::kSwitch,
             .help = "one line {\"ids\", \"text\", \"finish_reason\"} a text, without its prompt"},
            {.name = "logprobs",
             .kind = FlagKind::kSwitch,
             .help = "add the natural log-probability of every new token to the JSON"},
            {.name = "drafts",
             .kind = FlagKind::kSwitch,
             .help = "speculative decoding: the model's MTP module guesses a token ahead; the texts are "
                     "drawn from the same distribution, in fewer steps"},
            {.name = "stats",
             .kind = FlagKind::kSwitch,
             .help = "tokens a second on standard error, and how many drafts were accepted"},
            {.name = "batch-size",
             .kind = FlagKind::kInteger,
             .placeholder = "N",
             .fallback = "64",
             .help = "texts decoded at once",
             .min = 1,
             .max = 65536}},
           {SamplingFlags(
                {.temperature = "1", .top_p = "1", .reproduces = "the same seed gives the same text"}),
            ModelFlags()}),
       .examples =
           {"moebius generate runs/quickstart --prompt \"It is a truth\" --max-new 64",
            "moebius generate some-model --batch prompts.jsonl --temperature 0.7 --top-p 0.95 --samples 8"},
       .min_positional = 1,
       .max_positional = 1,
       .details =
           "Without a prompt the text starts from the model's begin-of-text token. Texts end at the model's "
           "end-of-text tokens (config.json, generation_config.json) or after --max-new.",
       .run = RunGenerate}};
}

}  // namespace moebius
