#include "launch/verb_tokenizer.h"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <thread>

#include "core/base/status.h"
#include "core/base/strings.h"
#include "core/io/atomic_file.h"
#include "core/io/byte_source.h"
#include "core/io/json.h"
#include "core/io/line_reader.h"
#include "data/corpora/document.h"
#include "data/tokenizer/bpe_trainer.h"
#include "data/tokenizer/tokenizer.h"
#include "launch/run_folder.h"

namespace moebius {
namespace {

constexpr int64_t kMaxLineBytes = int64_t{1} << 30;

int NumThreads(const ParsedArgs& args) {
  const int64_t asked = args.Integer("threads");
  return static_cast<int>(asked > 0 ? asked : std::max(1u, std::thread::hardware_concurrency()));
}

absl::StatusOr<LineReader> OpenLines(const std::string& path) {
  return LineReader::Open(path == "-" ? "/dev/stdin" : path, {.max_line_bytes = kMaxLineBytes});
}

absl::Status WriteOut(std::string_view text) {
  if (std::fwrite(text.data(), 1, text.size(), stdout) == text.size() && std::fflush(stdout) == 0) {
    return absl::OkStatus();
  }
  return ErrnoError(errno, "write to standard output", true);
}

// One line of input and what became of it.
struct Line {
  std::string where, in, out;
  absl::Status status;
};

// Applies `convert` to every line of `path`, many at a time in `threads` threads, and writes the results in
// order. Ends at the first line that fails, after the results of the lines before it.
template <typename Convert>
absl::Status ConvertLines(const std::string& path, int threads, const Convert& convert) {
  constexpr size_t kBatchLines = 4096, kBatchBytes = size_t{8} << 20;
  ASSIGN_OR_RETURN(LineReader reader, OpenLines(path));
  std::vector<Line> batch;
  const auto flush = [&]() -> absl::Status {
    std::atomic<size_t> next = 0;
    const auto work = [&] {
      for (size_t i; (i = next.fetch_add(1)) < batch.size();) batch[i].status = convert(&batch[i]);
    };
    std::vector<std::thread> helpers;
    const size_t num_helpers = std::min<size_t>(threads, batch.size() / 8 + 1) - 1;
    for (size_t t = 0; t < num_helpers; ++t) helpers.emplace_back(work);
    work();
    for (std::thread& helper : helpers) helper.join();
    std::string out;
    absl::Status status;
    for (size_t i = 0; i < batch.size() && status.ok(); ++i) {
      status = batch[i].status;
      if (status.ok()) out += batch[i].out;
    }
    batch.clear();
    RETURN_IF_ERROR(WriteOut(out));
    return status;
  };
  size_t bytes = 0;
  for (std::string_view text;;) {
    const absl::StatusOr<bool> more = reader.Next(&text);
    if (!more.ok() || !*more || batch.size() >= kBatchLines || bytes >= kBatchBytes) {
      RETURN_IF_ERROR(flush());
      bytes = 0;
      if (!more.ok()) return more.status();
      if (!*more) return absl::OkStatus();
    }
    if (IsBlank(text)) continue;  // an empty line is nothing
    batch.push_back({reader.Where(), std::string(text), "", absl::OkStatus()});
    bytes += text.size();
  }
}

std::string IdsJson(const std::vector<int32_t>& ids) {
  std::string out = "{\"ids\":[";
  char digits[16];
  for (size_t i = 0; i < ids.size(); ++i) {
    if (i > 0) out += ',';
    out.append(digits, std::to_chars(digits, digits + sizeof(digits), ids[i]).ptr);
  }
  return out + "]}\n";
}

// Of a file, of a folder that has one, or of the model that a run's or a pipeline's folder stands for.
absl::StatusOr<Tokenizer> LoadTokenizer(const ParsedArgs& args) {
  const std::string path = args.Text("tokenizer");
  const bool has_none = FolderExists(path) && !FileExists(JoinPath(path, "tokenizer.json"));
  return Tokenizer::Load(has_none ? ModelFolderOf(path) : path);
}

absl::Status RunEncode(const ParsedArgs& args) {
  const EncodeOptions options = {.parse_special = !args.On("literal"), .add_special = args.On("add-special")};
  if (args.Given("text") == args.Given("jsonl")) {
    return UsageError(
        "give one of --text and --jsonl; encode has one input; see moebius tokenizer encode --help");
  }
  ASSIGN_OR_RETURN(const Tokenizer tokenizer, LoadTokenizer(args));
  if (args.Given("text")) return WriteOut(IdsJson(tokenizer.Encode(args.Text("text"), options)));
  return ConvertLines(args.Text("jsonl"), NumThreads(args), [&](Line* line) -> absl::Status {
    ASSIGN_OR_RETURN(const nlohmann::json object, ParseJson(line->in, line->where));
    ASSIGN_OR_RETURN(const std::string text, GetString(object, "text", line->where));
    line->out = IdsJson(tokenizer.Encode(text, options));
    return absl::OkStatus();
  });
}

absl::Status RunDecode(const ParsedArgs& args) {
  const SpecialTokens special = args.On("skip-special") ? SpecialTokens::kSkip : SpecialTokens::kKeep;
  ASSIGN_OR_RETURN(const Tokenizer tokenizer, LoadTokenizer(args));
  return ConvertLines(args.Text("jsonl"), NumThreads(args), [&](Line* line) -> absl::Status {
    ASSIGN_OR_RETURN(const nlohmann::json object, ParseJson(line->in, line->where));
    ASSIGN_OR_RETURN(const std::vector<int64_t> wide,
                     GetIntArray(object, "ids", line->where, 0, tokenizer.vocab_size() - 1));
    const std::vector<int32_t> ids(wide.begin(), wide.end());
    line->out = Concat("{\"text\":", DumpJson(nlohmann::json(tokenizer.DecodeText(ids, special))), "}\n");
    return absl::OkStatus();
  });
}

bool EndsWith(std::string_view text, std::string_view end) {
  return text.size() >= end.size() && text.substr(text.size() - end.size()) == end;
}

bool IsJsonLines(const std::string& path) {
  return EndsWith(path, ".jsonl") || EndsWith(path, ".jsonl.gz") || EndsWith(path, ".jsonl.zst");
}

absl::Status AddJsonLines(const std::string& path, const std::string& field, BpeTrainer* trainer) {
  constexpr size_t kBatchBytes = size_t{64} << 20;
  ASSIGN_OR_RETURN(LineReader reader, OpenLines(path));
  std::vector<std::string> texts;
  size_t bytes = 0;
  const auto flush = [&] {
    const std::vector<std::string_view> documents(texts.begin(), texts.end());
    trainer->AddDocuments(documents);
    texts.clear();
    bytes = 0;
  };
  for (std::string_view line;;) {
    ASSIGN_OR_RETURN(const bool more, reader.Next(&line));
    if (!more) break;
    if (IsBlank(line)) continue;
    ASSIGN_OR_RETURN(const nlohmann::json object, ParseJson(line, reader.Where()));
    ASSIGN_OR_RETURN(std::string text, GetString(object, field, reader.Where()));
    RETURN_IF_ERROR(CheckText(text, reader.Where()));
    bytes += text.size();
    texts.push_back(std::move(text));
    if (bytes >= kBatchBytes) flush();
  }
  flush();
  return absl::OkStatus();
}

// The whole file is one document, read in parts that are cut where no piece of text is divided.
absl::Status AddPlainText(const std::string& path, bool cuttable, BpeTrainer* trainer) {
  constexpr size_t kBufferBytes = size_t{64} << 20;
  ASSIGN_OR_RETURN(const std::unique_ptr<ByteSource> source,
                   OpenByteSource(path == "-" ? "/dev/stdin" : path));
  std::string buffer;
  size_t filled = 0;
  int64_t offset = 0;  // of the buffer in the file
  for (;;) {
    if (filled == buffer.size()) buffer.resize(std::max(kBufferBytes, filled * 2));
    ASSIGN_OR_RETURN(const size_t n, source->Read(std::span(buffer.data() + filled, buffer.size() - filled)));
    filled += n;
    if (n > 0 && (filled < buffer.size() || !cuttable)) continue;
    const std::string_view text(buffer.data(), filled);
    const size_t cut = n == 0 ? filled : PreTokenizer::SafeCut(text, filled - 1);
    const std::string_view document = text.substr(0, cut);
    RETURN_IF_ERROR(CheckText(document, path, offset));
    trainer->AddDocuments(std::span(&document, 1));
    if (n == 0) return absl::OkStatus();
    buffer.erase(0, cut);
    offset += static_cast<int64_t>(cut);
    filled -= cut;
    buffer.resize(kBufferBytes);
  }
}

absl::Status RunTokenizerTrain(const ParsedArgs& args) {
  BpeTrainerOptions options;
  options.vocab_size = static_cast<int32_t>(args.Integer("vocab-size"));
  options.pre_tokenizer = *PreTokenizerFromName(args.Text("pre-tokenizer"));
  options.min_count = args.Integer("min-count");
  options.threads = NumThreads(args);
  if (args.Given("special")) options.special_tokens = args.All("special");
  std::vector<std::string> inputs = args.All("input");
  inputs.insert(inputs.end(), args.positional().begin(), args.positional().end());
  if (inputs.empty()) return UsageError("no input; training needs text; give --input FILE");
  if (args.Text("out").empty())
    return UsageError("no --out; the tokenizer needs a file; give --out tokenizer.json");
  ASSIGN_OR_RETURN(BpeTrainer trainer, BpeTrainer::Create(options));
  const auto start = std::chrono::steady_clock::now();
  for (const std::string& path : inputs) {
    RETURN_IF_ERROR(IsJsonLines(path)
                        ? AddJsonLines(path, args.Text("field"), &trainer)
                        : AddPlainText(path, options.pre_tokenizer != PreTokenizerKind::kNone, &trainer));
  }
  ASSIGN_OR_RETURN(const Tokenizer tokenizer, trainer.Train());
  RETURN_IF_ERROR(WriteFileAtomically(args.Text("out"), tokenizer.json()).status());
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
  std::printf("%s: %s tokens from %s of text in %s\n", args.Text("out").c_str(),
              WithCommas(tokenizer.vocab_size()).c_str(),
              HumanBytes(static_cast<double>(trainer.bytes())).c_str(), HumanSeconds(took.count()).c_str());
  if (const std::string note = trainer.Shortfall(tokenizer); !note.empty()) {
    std::printf("%s\n", note.c_str());
  }
  return absl::OkStatus();
}

Flag TokenizerFlag() {
  return {.name = "tokenizer", .placeholder = "FILE", .help = "tokenizer.json, or a folder that has one"};
}
Flag JsonLinesFlag(const std::string& line) {
  return {.name = "jsonl",
          .placeholder = "FILE",
          .help = Concat("input, a line ", line, "; - for standard input")};
}

// Runs `run` once --tokenizer (and, if asked for, --jsonl) was given.
std::function<absl::Status(const ParsedArgs&)> Needing(std::vector<std::string> flags,
                                                       absl::Status (*run)(const ParsedArgs&)) {
  return [flags = std::move(flags), run](const ParsedArgs& args) -> absl::Status {
    for (const std::string& flag : flags) {
      if (args.Text(flag).empty()) return UsageError(Concat("no --", flag, "; it is needed; see --help"));
    }
    return run(args);
  };
}

}  // namespace

std::vector<Verb> TokenizerVerbs() {
  Verb train = {
      .name = "tokenizer train",
      .summary = "train a byte-level BPE tokenizer on text",
      .usage = "--input FILE [FILE...] --vocab-size N --out tokenizer.json",
      .flags =
          {{.name = "input",
            .kind = FlagKind::kRepeatedText,
            .placeholder = "FILE",
            .help = "text, each file a document; .jsonl: a document a line; .gz and .zst are unpacked"},
           {.name = "vocab-size",
            .kind = FlagKind::kInteger,
            .placeholder = "N",
            .fallback = "16384",
            .help = "tokens, special tokens and the 256 bytes included",
            .min = 256,
            .max = 1 << 22},
           {.name = "out", .placeholder = "FILE", .help = "the tokenizer.json to write"},
           {.name = "pre-tokenizer",
            .placeholder = "NAME",
            .fallback = "deepseek-v3",
            .help = "how text is split before pairs are merged",
            .choices = PreTokenizerNames()},
           {.name = "special",
            .kind = FlagKind::kRepeatedText,
            .placeholder = "TOKEN",
            .help =
                "special token, ids from 0 in this order (default: DeepSeek-V3's begin, end and padding)"},
           {.name = "min-count",
            .kind = FlagKind::kInteger,
            .placeholder = "N",
            .fallback = "1",
            .help = "a pair that occurs less often is not merged",
            .min = 1},
           {.name = "field",
            .placeholder = "NAME",
            .fallback = "text",
            .help = "where the text is in .jsonl lines"},
           ThreadsFlag()},
      .examples =
          {"moebius tokenizer train --input book.txt --vocab-size 4096 --out tokenizer.json",
           "moebius tokenizer train --input a.jsonl b.jsonl.zst --vocab-size 32768 --out tokenizer.json"},
      .max_positional = 1 << 20,
      .details = "The file works in Hugging Face tokenizers and holds the merges that its BpeTrainer finds.",
      .run = RunTokenizerTrain};
  Verb encode = {
      .name = "tokenizer encode",
      .summary = "turn text into token ids",
      .usage = "--tokenizer FILE (--jsonl FILE | --text TEXT)",
      .flags = {TokenizerFlag(),
                JsonLinesFlag("{\"text\": \"...\"}"),
                {.name = "text", .placeholder = "TEXT", .help = "one text instead of a file"},
                {.name = "literal",
                 .kind = FlagKind::kSwitch,
                 .help = "markers in the text are text like any other"},
                {.name = "add-special",
                 .kind = FlagKind::kSwitch,
                 .help = "add what the tokenizer's template puts around a text"},
                ThreadsFlag()},
      .examples = {"moebius tokenizer encode --tokenizer tokenizer.json --jsonl texts.jsonl > ids.jsonl",
                   "moebius tokenizer encode --tokenizer checkpoint/ --text 'Hello, world!'"},
      .details = "Writes a line {\"ids\": [...]} for every line {\"text\": \"...\"}, in order.",
      .run = Needing({"tokenizer"}, RunEncode)};
  Verb decode = {
      .name = "tokenizer decode",
      .summary = "turn token ids into text",
      .usage = "--tokenizer FILE --jsonl FILE",
      .flags = {TokenizerFlag(),
                JsonLinesFlag("{\"ids\": [...]}"),
                {.name = "skip-special", .kind = FlagKind::kSwitch, .help = "leave special tokens out"},
                ThreadsFlag()},
      .examples = {"moebius tokenizer decode --tokenizer tokenizer.json --jsonl ids.jsonl",
                   "echo '{\"ids\": [15496]}' | moebius tokenizer decode --tokenizer gpt2/ --jsonl -"},
      .details = "Writes a line {\"text\": \"...\"} for every line {\"ids\": [...]}, in order.",
      .run = Needing({"tokenizer", "jsonl"}, RunDecode)};
  return {std::move(train), std::move(encode), std::move(decode)};
}

}  // namespace moebius
