#include "launch/verb_sandbox.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <thread>

#include "core/base/status.h"
#include "core/base/strings.h"
#include "core/io/file.h"
#include "rl/sandbox/languages.h"
#include "rl/sandbox/sandbox.h"

namespace moebius {
namespace {

constexpr int64_t kMaxFileBytes = int64_t{4} << 30;

Flag WithoutFlag() {
  return {.name = "without",
          .kind = FlagKind::kRepeatedText,
          .placeholder = "LAYER",
          .help = "do without namespaces, user_namespace, seccomp, landlock or cgroups, to try what is left"};
}

sandbox::RunnerOptions RunnerOptionsOf(const ParsedArgs& args, int64_t slots) {
  return {.slots = static_cast<int>(slots), .without = args.All("without")};
}

absl::StatusOr<std::unique_ptr<sandbox::Sandbox>> StartSandbox(const ParsedArgs& args) {
  int64_t slots = args.Integer("slots");
  if (slots == 0) slots = std::clamp<int64_t>(2 * std::thread::hardware_concurrency(), 2, 256);
  const bool unsafe = args.On("unsafe");
  ASSIGN_OR_RETURN(auto box, sandbox::Sandbox::Start({.runner = RunnerOptionsOf(args, slots),
                                                      .recipe_allows_unsafe = unsafe,
                                                      .switch_allows_unsafe = unsafe}));
  if (!box->isolated()) {
    std::fprintf(stderr, "UNSAFE: programs run without full isolation: %s\n",
                 Join(sandbox::NotHeld(box->canaries()), "; ").c_str());
  }
  return box;
}

void PrintVerdict(const sandbox::Answer& answer) {
  std::puts(sandbox::PrintAnswer(answer).c_str());
  std::fflush(stdout);
}

// Standard input is read as it is: an ordinary user may not open the pipe of another one by name.
absl::StatusOr<std::string> ReadStandardInput() {
  std::string text;
  char block[65536];
  for (ssize_t length; (length = read(STDIN_FILENO, block, sizeof block)) != 0;) {
    if (length < 0 && errno != EINTR) return ErrnoError(errno, "read standard input");
    if (length > 0) text.append(block, length);
  }
  return text;
}

absl::Status RunBatch(const ParsedArgs& args) {
  // First the sandbox, so that its processes are copies of a small one.
  ASSIGN_OR_RETURN(const auto box, StartSandbox(args));
  const std::string path = args.Text("batch");
  ASSIGN_OR_RETURN(const std::string text, path == "-" ? ReadStandardInput() : ReadFile(path, kMaxFileBytes));
  struct Line {
    int64_t number;
    std::string_view text;
  };
  std::vector<Line> lines;
  int64_t number = 0;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    const std::string_view line = std::string_view(text).substr(begin, end - begin);
    ++number;
    if (!IsBlank(line)) lines.push_back({number, line});
    begin = end + 1;
  }
  return box->JudgeAll(
      lines.size(),
      [&](size_t i) { return sandbox::ParseJob(lines[i].text, Concat(path, ", line ", lines[i].number)); },
      PrintVerdict);
}

absl::Status RunOne(const ParsedArgs& args) {
  ASSIGN_OR_RETURN(const auto box, StartSandbox(args));
  sandbox::Job job;
  ASSIGN_OR_RETURN(job.language, sandbox::ParseLanguage(args.Text("lang"), "--lang"));
  ASSIGN_OR_RETURN(job.program, ReadFile(args.positional()[0], kMaxFileBytes));
  ASSIGN_OR_RETURN(const std::string tests, ReadFile(args.Text("tests"), kMaxFileBytes));
  ASSIGN_OR_RETURN(job.tests, sandbox::ParseTestSpec(tests, args.Text("tests")));
  ASSIGN_OR_RETURN(const std::vector<sandbox::Answer> answers, box->JudgeAll({job}));
  for (const sandbox::Answer& answer : answers) PrintVerdict(answer);
  return absl::OkStatus();
}

absl::Status RunSandbox(const ParsedArgs& args) {
  const bool one = args.Given("lang") && args.Given("tests") && args.positional().size() == 1;
  if (args.Given("batch")) {
    if (!args.Given("lang") && !args.Given("tests") && args.positional().empty()) return RunBatch(args);
  } else if (one) {
    return RunOne(args);
  }
  return UsageError(
      "give --lang, --tests and FILE, or --batch alone; one program or many; see moebius sandbox run --help");
}

absl::Status RunCheck(const ParsedArgs& args) {
  ASSIGN_OR_RETURN(const auto runner, sandbox::Runner::Start(RunnerOptionsOf(args, 2)));
  const std::vector<sandbox::Canary> canaries = sandbox::TryCanaries(*runner);
  std::printf("%-8s  %-8s  %s\n", "canary", "held", "layers");
  for (const sandbox::Canary& canary : canaries) {
    std::printf("%-8s  %-8s  %s%s\n", canary.name.c_str(), canary.held ? "yes" : "NO", canary.layers.c_str(),
                canary.held ? "" : Concat("; seen: ", Printable(canary.seen, 400)).c_str());
  }
  const absl::Status python = TryLanguage(*runner, sandbox::Language::kPython);
  const absl::Status cpp = TryLanguage(*runner, sandbox::Language::kCpp);
  std::printf("\nlanguage  right programs are judged right\n");
  for (const auto& [name, status] : {std::pair("python", python), std::pair("cpp", cpp)}) {
    std::printf("%-8s  %s\n", name, status.ok() ? "yes" : Concat("NO: ", status.message()).c_str());
  }
  std::fflush(stdout);
  const std::vector<std::string> missing = sandbox::NotHeld(canaries);
  if (missing.empty()) return python;  // many have no use for C++
  return UnavailableError(
      Concat(missing.size(), " of ", canaries.size(),
             " canaries are not held; programs could reach outside their slot; the table and "
             "docs/sandbox.md say which layer is missing"));
}

}  // namespace

std::vector<Verb> SandboxVerbs() {
  return {
      {.name = "sandbox run",
       .summary = "judge programs by tests, isolated from this machine",
       .usage = "--lang LANGUAGE --tests FILE.json FILE | --batch FILE.jsonl [flags]",
       .flags =
           {{.name = "lang",
             .placeholder = "LANGUAGE",
             .help = "language of the program",
             .choices = {"python", "cpp"}},
            {.name = "tests", .placeholder = "FILE", .help = "tests and limits as JSON (docs/sandbox.md)"},
            {.name = "batch",
             .placeholder = "FILE",
             .help = "lines {\"lang\":..., \"program\":..., \"tests\":{...}}; - is standard input"},
            {.name = "slots",
             .kind = FlagKind::kInteger,
             .placeholder = "N",
             .fallback = "0",
             .help = "programs at a time; 0: two a core",
             .min = 0,
             .max = 256},
            WithoutFlag(),
            {.name = "unsafe",
             .kind = FlagKind::kSwitch,
             .help = "run even where the canaries are not held: programs may then do what this user may"}},
       .examples = {"moebius sandbox run --lang python --tests tests.json solution.py",
                    "moebius sandbox run --batch rollouts.jsonl --slots 8"},
       .max_positional = 1,
       .details = "Prints a line {\"verdict\": ..., \"passed\": N, \"tests\": [...]} for each program, in "
                  "order. Verdicts: "
                  "OK, WRONG, RUNTIME, CPU, WALL, MEM, PROCS, DISK, OUTPUT, COMPILE, DENIED, HARNESS.",
       .run = RunSandbox},
      {.name = "sandbox check",
       .summary = "try whether programs are isolated on this machine",
       .usage = "[flags]",
       .flags = {WithoutFlag()},
       .examples = {"moebius sandbox check", "moebius sandbox check --without cgroups"},
       .details = "Tries what must fail inside a slot, and right programs, which must be judged right, and "
                  "prints a table; "
                  "exit 69 when something worked, or Python does not.",
       .run = RunCheck}};
}

}  // namespace moebius
