#include "launch/verb_eval.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <system_error>
#include <thread>

#include "core/base/strings.h"
#include "core/io/file.h"
#include "core/io/json.h"
#include "core/io/json_lines.h"
#include "launch/eval/eval_report.h"
#include "launch/eval/task_knobs.h"
#include "launch/model_flags.h"
#include "launch/progress.h"
#include "rl/evaluation/evaluate.h"

namespace moebius {
namespace {

// How far a benchmark is, on standard error: redrawn on a terminal, else a line each quarter of a minute.
class EvalProgress {
 public:
  explicit EvalProgress(std::string name)
      : name_(std::move(name)), terminal_(DetectTerminal(STDERR_FILENO)) {}
  ~EvalProgress() {
    if (drawn_) std::fputs("\r\x1b[K", stderr);
  }

  void Update(int64_t done, int64_t total) {
    const auto now = std::chrono::steady_clock::now();
    const double wait_s = terminal_.interactive ? 0.1 : 15;
    if (std::chrono::duration<double>(now - last_).count() < wait_s) return;
    last_ = now;
    const double seconds = std::chrono::duration<double>(now - start_).count();
    const std::string left =
        HumanSeconds(seconds / static_cast<double>(done) * static_cast<double>(total - done));
    const std::string text = Concat(name_, ": ", done, " of ", total, " answers, about ", left, " left");
    if (terminal_.interactive) {
      std::fprintf(stderr, "\r\x1b[K%s", text.c_str());
      drawn_ = true;
    } else {
      std::fprintf(stderr, "%s\n", text.c_str());
    }
    std::fflush(stderr);
  }

 private:
  std::string name_;
  Terminal terminal_;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now(), last_ = start_;
  bool drawn_ = false;
};

// What shapes a score, and none of the benchmarks reads, would seem to have been followed.
absl::Status CheckFlagsAreRead(const ParsedArgs& args, const std::vector<std::string>& benchmarks) {
  const bool procedural = std::any_of(benchmarks.begin(), benchmarks.end(), IsTask);
  const bool mmlu = std::find(benchmarks.begin(), benchmarks.end(), "mmlu") != benchmarks.end();
  const bool writes =
      args.Text("mmlu") == "generate" || std::any_of(benchmarks.begin(), benchmarks.end(),
                                                     [](const std::string& name) { return name != "mmlu"; });
  const struct {
    const char* flag;
    bool read;
    const char* by;
  } flags[] = {{"mmlu", mmlu, "mmlu"},
               {"style", procedural, "procedural sets"},
               {"answer-line", procedural, "procedural sets"},
               {"samples", writes, "benchmarks with written answers"},
               {"temperature", writes, "benchmarks with written answers"},
               {"top-p", writes, "benchmarks with written answers"},
               {"max-new", writes, "benchmarks with written answers"},
               {"seed", writes, "benchmarks with written answers"}};
  for (const auto& [flag, read, by] : flags) {
    if (args.Given(flag) && !read) {
      return UsageError(Concat("--", flag, " is given, and none of ", Join(benchmarks), " reads it, only ",
                               by, "; leave it out"));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<BenchmarkOptions> ReadBenchmarkOptions(const ParsedArgs& args,
                                                      const std::vector<std::string>& benchmarks, bool chat) {
  BenchmarkOptions options{.data = args.Text("data"), .asking = chat ? Asking::kChat : Asking::kText};
  if (args.Given("shots")) options.shots = args.Integer("shots");
  if (args.Given("limit")) options.limit = args.Integer("limit");
  const std::string mmlu = args.Text("mmlu"), style = args.Text("style"), line = args.Text("answer-line");
  if (line != "auto") options.answer_line = line == "first" ? AnswerLine::kFirst : AnswerLine::kLast;
  options.mmlu = mmlu == "cloze"    ? MmluMode::kCloze
                 : mmlu == "letter" ? MmluMode::kLetter
                                    : MmluMode::kGenerate;
  const bool sentence = style == "auto" ? chat : style == "sentence";
  options.task.style = sentence ? PromptStyle::kSentence : PromptStyle::kTerse;
  for (const std::string& knob : args.All("knob"))
    RETURN_IF_ERROR(SetTaskKnob(knob, benchmarks, options.task));
  return options;
}

absl::StatusOr<EvaluateOptions> ReadEvaluateOptions(const ParsedArgs& args) {
  ASSIGN_OR_RETURN(const SamplingParams sampling, SamplingOf(args));
  EvaluateOptions options{
      .sampling = sampling, .samples = args.Integer("samples"), .max_batch = args.Integer("batch-size")};
  if (args.Given("max-new")) options.max_new = args.Integer("max-new");
  if (options.samples > 1 && options.sampling.temperature == 0) {
    return UsageError(Concat("--samples ", options.samples,
                             " with --temperature 0; all samples of a question "
                             "would be equal; give --temperature 0.6, say"));
  }
  return options;
}

std::string NumbersOf(LanguageModel& model) {
  const bool fp32 = model.model().options().storage.act == DType::kF32;
  return Concat(fp32 ? "fp32" : "bf16", model.decoder().options().int8 ? ", weights of 8 bits" : "");
}

absl::StatusOr<Evaluation> RunBenchmark(LanguageModel& model, const Benchmark& benchmark, const EvalRow& row,
                                        JsonLinesWriter* out) {
  EvalProgress progress(benchmark.name);
  EvaluationEvents events;
  events.on_progress = [&](int64_t done, int64_t total) { progress.Update(done, total); };
  if (out != nullptr)
    events.on_sample = [&](const Sample& sample) { return out->Append(DumpJson(SampleJson(row, sample))); };
  return Evaluate(model, benchmark, row.options, events);
}

absl::Status RunEval(const ParsedArgs& args) {
  ASSIGN_OR_RETURN(const std::string folder, VerifiedModelFolder(args.positional()[0]));
  const std::vector<std::string> names(args.positional().begin() + 1, args.positional().end());
  for (const std::string& name : names) RETURN_IF_ERROR(CheckBenchmarkName(name));
  RETURN_IF_ERROR(CheckFlagsAreRead(args, names));
  ASSIGN_OR_RETURN(const EvaluateOptions evaluate, ReadEvaluateOptions(args));
  // The sandbox first: it must be started by a process with one thread.
  std::unique_ptr<sandbox::Sandbox> sandbox;
  if (std::any_of(names.begin(), names.end(), NeedsSandbox)) {
    const int slots = std::clamp<int>(std::thread::hardware_concurrency(), 1, 256);
    ASSIGN_OR_RETURN(sandbox, sandbox::Sandbox::Start({.runner = {.slots = slots, .without = {}}}));
  }
  ASSIGN_OR_RETURN(const std::optional<ChatTemplate> chat, ChatTemplateOfFlag(folder, args.Text("chat")));
  ASSIGN_OR_RETURN(BenchmarkOptions options, ReadBenchmarkOptions(args, names, chat.has_value()));
  options.sandbox = sandbox.get();
  std::vector<Benchmark> benchmarks;
  for (const std::string& name : names) {
    ASSIGN_OR_RETURN(benchmarks.emplace_back(), MakeBenchmark(name, options));
  }
  std::error_code error;
  const std::filesystem::path to = args.Given("out") ? args.Text("out") : "";
  if (std::filesystem::exists(to, error) && !std::filesystem::is_regular_file(to, error)) {
    return CannotWriteError(
        Concat(args.Text("out"), " is no regular file; samples go into one; give --out FILE.jsonl"));
  }
  ASSIGN_OR_RETURN(const std::unique_ptr<LanguageModel> model, LoadAsked(args, folder, chat));
  std::optional<JsonLinesWriter> out;
  if (args.Given("out")) {  // an earlier evaluation's samples go when there is a model to evaluate
    RETURN_IF_ERROR(RemoveTree(args.Text("out")));
    ASSIGN_OR_RETURN(out, JsonLinesWriter::Open(args.Text("out")));
  }
  std::string asked_in = chat ? NameOf(*chat) : "none";
  if (asked_in.empty()) asked_in = args.Text("chat");
  std::vector<EvalRow> rows;
  for (Benchmark& benchmark : benchmarks) {
    EvalRow row{.model = folder,
                .chat = asked_in,
                .numbers = NumbersOf(*model),
                .name = benchmark.name,
                .protocol = benchmark.protocol,
                .files = benchmark.files,
                .options = evaluate,
                .compares = benchmark.grader == nullptr,
                .shots = benchmark.shots,
                .knobs = TaskKnobs(benchmark.name, options.task),
                .result = {}};
    absl::StatusOr<Evaluation> result = RunBenchmark(*model, benchmark, row, out ? &*out : nullptr);
    if (!result.ok()) {  // what came before it counts
      if (!args.On("json") && !rows.empty()) std::fputs(EvalTable(rows).c_str(), stdout);
      return result.status();
    }
    row.result = *std::move(result);
    if (args.On("json")) {
      std::printf("%s\n", DumpJson(EvalJson(row)).c_str());
      std::fflush(stdout);
    }
    rows.push_back(std::move(row));
  }
  if (!args.On("json")) std::fputs(EvalTable(rows).c_str(), stdout);
  return absl::OkStatus();
}

std::vector<Flag> EvalFlags() {
  return Joined(
      {{.name = "data", .placeholder = "DIR", .help = "folder of benchmark files (docs/evaluation.md)"},
       {.name = "limit",
        .kind = FlagKind::kInteger,
        .placeholder = "N",
        .help = "first N questions; absent: all, 500 of a procedural set",
        .min = 1,
        .max = 1e8},
       {.name = "shots",
        .kind = FlagKind::kInteger,
        .placeholder = "N",
        .help = "worked examples before a question; absent: the benchmark's usual number",
        .min = 0,
        .max = 1000},
       {.name = "samples",
        .kind = FlagKind::kInteger,
        .placeholder = "K",
        .fallback = "1",
        .help = "answers a question: gives pass@K and cons@K",
        .min = 1,
        .max = 10000},
       {.name = "max-new",
        .kind = FlagKind::kInteger,
        .placeholder = "N",
        .help = "new tokens of an answer at most; absent: the benchmark's usual number",
        .min = 1,
        .max = 1e7},
       {.name = "chat",
        .placeholder = "NAME",
        .fallback = "auto",
        .help = "chat template to ask in: auto (the folder's, if it has one), none (go on with a text) or a "
                "name"},
       {.name = "mmlu",
        .placeholder = "MODE",
        .fallback = "letter",
        .help = "how MMLU is asked: option texts or letters by log-probability, or a written answer",
        .choices = {"cloze", "letter", "generate"}},
       {.name = "knob",
        .kind = FlagKind::kRepeatedText,
        .placeholder = "NAME=VALUE",
        .help = "of procedural sets: sort_length=3, add_digits=2, ... (docs/evaluation.md)"},
       {.name = "style",
        .placeholder = "STYLE",
        .fallback = "auto",
        .help = "prompts of procedural sets; auto: sentence in a chat, else terse",
        .choices = {"auto", "terse", "sentence"}},
       {.name = "answer-line",
        .placeholder = "LINE",
        .fallback = "auto",
        .help = "line of a procedural answer that counts; auto: first of a text, last in a chat",
        .choices = {"auto", "first", "last"}},
       {.name = "json", .kind = FlagKind::kSwitch, .help = "one JSON line a benchmark instead of the table"},
       {.name = "out",
        .placeholder = "FILE",
        .help = "write every sample there, one JSON line each; replaces the file"},
       {.name = "batch-size",
        .kind = FlagKind::kInteger,
        .placeholder = "N",
        .fallback = "32",
        .help = "answers written at once",
        .min = 1,
        .max = 65536}},
      {SamplingFlags(
           {.temperature = "0", .top_p = "1", .reproduces = "the same seed gives the same answers"}),
       ModelFlags()});
}

}  // namespace

std::vector<Verb> EvalVerbs() {
  return {
      {.name = "eval",
       .summary = "benchmarks: pass@1, pass@k, cons@k with intervals",
       .usage = "MODEL TASK... [--data DIR] [flags]",
       .flags = EvalFlags(),
       .examples =
           {"moebius eval models/smollm2 gsm8k mmlu --data ~/benchmarks --limit 50 --out samples.jsonl",
            "moebius eval runs/add/02-grpo add --knob add_digits=2 --samples 16 --temperature 1"},
       .min_positional = 2,
       .max_positional = 64,
       .details = Concat("Tasks: ", Join(BenchmarkNames()),
                         ". humaneval and mbpp run programs in the sandbox and end with 69 where it does not "
                         "isolate. docs/evaluation.md says what is measured how and what the files hold."),
       .run = RunEval}};
}

}  // namespace moebius
