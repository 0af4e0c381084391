// A benchmark as a value: questions, worked examples, where they came from, and what judges an answer. It
// knows no model: evaluate.h puts the two together.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/status.h"
#include "rl/evaluation/final_answer.h"
#include "rl/sandbox/sandbox.h"
#include "rl/tasks/task.h"

namespace moebius {

// Whether the model is asked in a conversation or goes on with a text.
enum class Asking { kText, kChat };

enum class MmluMode {
  kCloze,     // the option whose text has the highest log-probability a character
  kLetter,    // the letter with the highest log-probability
  kGenerate,  // an answer is written and a letter found in it
};

struct BenchmarkOptions {
  std::string data = {};  // folder of the user's files; procedural sets need none
  Asking asking = Asking::kText;
  std::optional<int64_t> shots = {};  // worked examples; absent: its usual number
  std::optional<int64_t> limit = {};  // first questions; absent: all, 500 (that differ) of a procedural set
  MmluMode mmlu = MmluMode::kLetter;
  std::optional<AnswerLine> answer_line = {};  // of procedural sets; absent: first of a text, last of a chat
  TaskOptions task = {};                       // knobs of procedural sets; `kind` and `split` are not read
  sandbox::Sandbox* sandbox = nullptr;         // humaneval, mbpp: needed; outlives the benchmark
};

// A file that questions or examples were read from.
struct SourceFile {
  std::string path;
  std::string sha256;  // of the file's bytes, hex
  int64_t rows = 0;
};

struct Question {
  std::string id;            // "gsm8k/12": row of the file, from 0, or the file's own name for it
  std::string subject = {};  // "" where a benchmark has none
  std::string ask = {};      // the text to go on from, or what the user says
  std::string gold = {};
  std::vector<std::string> options = {};  // continuations to compare; empty: an answer is generated
  size_t examples = 0;                    // index into Benchmark::examples
};

struct Example {
  std::string ask;
  std::string answer;  // continues `ask`; without its leading blank it is a turn of a conversation
};

// What stands before a question: the header, then ASK ANSWER and an empty line for each example.
struct ExampleSet {
  std::string header = {};
  std::vector<Example> examples = {};
};

enum class Outcome {
  kRight,
  kWrong,
  kNoAnswer,   // nothing that could be graded was found: wrong, and without a vote
  kUndecided,  // neither was shown, or the harness failed: left out and counted
};

struct Graded {
  Outcome outcome = Outcome::kUndecided;
  std::string extracted = {};  // the final answer; of code, the program
  std::string verdict = {};    // "equal", "different", "WALL", ... for people
  std::optional<double> dense = {};
};

struct Attempt {
  size_t question;  // index into Benchmark::questions
  std::string_view answer;
};

class Grader {
 public:
  virtual ~Grader() = default;
  // One for each attempt, in order. A pure function of them, but for verdicts of programs, which depend on
  // time.
  virtual absl::StatusOr<std::vector<Graded>> Grade(const std::vector<Attempt>& attempts) const = 0;
  // Whether answers can be the same as each other, so that samples can vote (cons@k).
  virtual bool votes() const = 0;
  // Of two extracted answers to one question.
  virtual bool Same(std::string_view a, std::string_view b) const = 0;
};

struct Benchmark {
  std::string name = {};      // "gsm8k"
  std::string protocol = {};  // "5 shots, text": what a score must be compared with
  std::vector<SourceFile> files = {};
  std::vector<Question> questions = {};
  std::vector<ExampleSet> examples = {};
  int64_t shots = 0;                    // examples before each question, where they fit
  std::vector<std::string> stops = {};  // texts that end an answer, not part of it
  int64_t max_new = 256;                // new tokens unless the user says otherwise
  std::unique_ptr<Grader> grader = {};  // null where options are compared
};

// "gsm8k", "math", "aime", "mmlu", "humaneval", "mbpp", "sort", "add", ...
std::vector<std::string> BenchmarkNames();
// UsageError with the nearest name for one that is not among them.
absl::Status CheckBenchmarkName(const std::string& name);
// Of a benchmark that runs programs.
bool NeedsSandbox(const std::string& name);
// MissingError naming the file that is expected, DamagedError naming path and line, UsageError for options
// that the benchmark does not have.
absl::StatusOr<Benchmark> MakeBenchmark(const std::string& name, const BenchmarkOptions& options);

}  // namespace moebius
