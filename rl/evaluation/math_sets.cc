// GSM8K, MATH and AIME: problems whose final answer the math grader compares with the gold one.
#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/base/strings.h"
#include "core/io/json.h"
#include "rl/evaluation/final_answer.h"
#include "rl/evaluation/makers.h"
#include "rl/evaluation/sources.h"
#include "rl/math/equivalence.h"
#include "rl/reward/answer_text.h"

namespace moebius {
namespace {

using nlohmann::json;
using FindAnswer = std::optional<std::string> (*)(std::string_view text);

class MathGrader final : public Grader {
 public:
  MathGrader(const std::vector<Question>& questions, FindAnswer find) : find_(find) {
    for (const Question& question : questions) golds_.push_back(question.gold);
  }

  absl::StatusOr<std::vector<Graded>> Grade(const std::vector<Attempt>& attempts) const override {
    std::vector<Graded> out;
    for (const Attempt& attempt : attempts) out.push_back(GradeOne(golds_[attempt.question], attempt.answer));
    return out;
  }
  bool votes() const override { return true; }
  bool Same(std::string_view a, std::string_view b) const override {
    return math::Grade(a, b).outcome == math::Outcome::kEqual;
  }

 private:
  Graded GradeOne(const std::string& gold, std::string_view answer) const {
    std::optional<std::string> found = find_(answer);
    if (!found) return {.outcome = Outcome::kNoAnswer, .verdict = "no answer"};
    const math::Outcome outcome = math::Grade(gold, *found).outcome;
    return {.outcome = outcome == math::Outcome::kEqual       ? Outcome::kRight
                       : outcome == math::Outcome::kDifferent ? Outcome::kWrong
                                                              : Outcome::kUndecided,
            .extracted = *std::move(found),
            .verdict = std::string(math::OutcomeName(outcome))};
  }

  std::vector<std::string> golds_;
  FindAnswer find_;
};

// One kind of problem file: how a row becomes a question and an example.
struct ProblemRow {
  Question question;
  Example example;
};
using MakeProblemRow =
    std::function<absl::StatusOr<ProblemRow>(const json& object, const std::string& where, int64_t index)>;

struct MathSet {
  const char* name;
  std::vector<std::string> test_files, example_files;  // example_files empty: no examples
  int64_t default_shots;
  FindAnswer find;
  MakeProblemRow make_row;
};

absl::StatusOr<std::vector<ProblemRow>> ReadProblemRows(SourceReader& reader,
                                                        const std::vector<std::string>& names,
                                                        const MathSet& set, std::optional<int64_t> limit) {
  ASSIGN_OR_RETURN(const std::string path, reader.Find(names));
  std::vector<ProblemRow> rows;
  RETURN_IF_ERROR(
      reader.ReadJsonRows(path, [&](const json& object, const std::string& where) -> absl::Status {
        ASSIGN_OR_RETURN(ProblemRow row, set.make_row(object, where, std::ssize(rows)));
        rows.push_back(std::move(row));
        return absl::OkStatus();
      }));
  if (limit && *limit < std::ssize(rows)) rows.resize(*limit);
  return rows;
}

absl::StatusOr<Benchmark> MakeMathSet(const MathSet& set, const BenchmarkOptions& options) {
  const int64_t shots = options.shots.value_or(set.default_shots);
  if (shots > 0 && set.example_files.empty()) {
    return UsageError(
        Concat(set.name, " has no worked examples; they would come from the questions; give --shots 0"));
  }
  SourceReader reader(options.data, set.name);
  Benchmark out;
  ASSIGN_OR_RETURN(std::vector<ProblemRow> rows, ReadProblemRows(reader, set.test_files, set, options.limit));
  for (ProblemRow& row : rows) out.questions.push_back(std::move(row.question));
  out.examples.emplace_back();
  if (shots > 0) {
    ASSIGN_OR_RETURN(std::vector<ProblemRow> examples,
                     ReadProblemRows(reader, set.example_files, set, shots));
    RETURN_IF_ERROR(ShotsOf(options, Join(set.example_files), std::ssize(examples), shots).status());
    for (ProblemRow& row : examples) out.examples[0].examples.push_back(std::move(row.example));
  }
  out.shots = std::ssize(out.examples[0].examples);
  out.protocol = ProtocolText(out.shots, options.asking);
  out.files = reader.TakeFiles();
  out.grader = std::make_unique<MathGrader>(out.questions, set.find);
  return out;
}

// "12" or 12.
absl::StatusOr<std::string> TextOrInteger(const json& object, const char* field, const std::string& where) {
  if (HasJsonField(object, field) && object[field].is_number_integer())
    return std::to_string(object[field].get<int64_t>());
  return GetString(object, field, where);
}

}  // namespace

absl::StatusOr<Benchmark> MakeGsm8k(const BenchmarkOptions& options) {
  const bool chat = options.asking == Asking::kChat;
  const MakeProblemRow make_row = [&](const json& object, const std::string& where,
                                      int64_t index) -> absl::StatusOr<ProblemRow> {
    ASSIGN_OR_RETURN(const std::string question, GetString(object, "question", where));
    ASSIGN_OR_RETURN(const std::string answer, GetString(object, "answer", where));
    const size_t mark = answer.rfind("####");
    const auto gold = mark == answer.npos ? std::nullopt : LastNumber(std::string_view(answer).substr(mark));
    if (!gold) {
      return DamagedError(Concat(where,
                                 ": answer ends without \"#### NUMBER\"; the gold answer stands there; get "
                                 "the file again"));
    }
    const std::string ask =
        chat
            ? Concat(question,
                     "\n\nThink step by step. Then write #### and behind it the answer as a number, and end.")
            : Concat("Question: ", question, "\nAnswer:");
    return ProblemRow{{.id = Concat("gsm8k/", index), .ask = ask, .gold = *gold},
                      {ask, " " + WithoutCalculatorMarks(answer)}};
  };
  ASSIGN_OR_RETURN(Benchmark out, MakeMathSet({.name = "gsm8k",
                                               .test_files = {"gsm8k/test.jsonl"},
                                               .example_files = {"gsm8k/train.jsonl"},
                                               .default_shots = chat ? 0 : 5,
                                               .find = FindNumberAnswer,
                                               .make_row = make_row},
                                              options));
  if (!chat) out.stops = {"\nQuestion:"};
  out.max_new = 256;
  return out;
}

namespace {

std::string AskForBox(const std::string& problem, Asking asking) {
  return asking == Asking::kChat
             ? Concat(problem, "\n\nReason step by step and put the final answer into \\boxed{}.")
             : Concat("Problem: ", problem, "\nSolution:");
}

}  // namespace

absl::StatusOr<Benchmark> MakeMath(const BenchmarkOptions& options) {
  const MakeProblemRow make_row = [&](const json& object, const std::string& where,
                                      int64_t index) -> absl::StatusOr<ProblemRow> {
    ASSIGN_OR_RETURN(const std::string problem, GetString(object, "problem", where));
    ASSIGN_OR_RETURN(const std::string solution, GetStringOr(object, "solution", "", where));
    std::string gold;
    if (HasJsonField(object, "answer")) {
      ASSIGN_OR_RETURN(gold, TextOrInteger(object, "answer", where));
    } else if (auto found = FindMathAnswer(solution)) {
      gold = *std::move(found);
    } else {
      return DamagedError(where +
                          ": has neither answer nor a solution with \\boxed{...}; one of them gives the gold "
                          "answer; get the file again");
    }
    std::string subject;
    for (const char* field : {"subject", "type"})
      if (subject.empty()) {
        ASSIGN_OR_RETURN(subject, GetStringOr(object, field, "", where));
      }
    const std::string ask = AskForBox(problem, options.asking);
    const std::string answer = solution.find("\\boxed") != solution.npos
                                   ? solution
                                   : Concat(solution, " The answer is \\boxed{", gold, "}.");
    return ProblemRow{{.id = Concat("math/", index), .subject = subject, .ask = ask, .gold = gold},
                      {ask, " " + answer}};
  };
  ASSIGN_OR_RETURN(Benchmark out, MakeMathSet({.name = "math",
                                               .test_files = {"math/test.jsonl"},
                                               .example_files = {"math/train.jsonl"},
                                               .default_shots = 0,
                                               .find = FindMathAnswer,
                                               .make_row = make_row},
                                              options));
  if (options.asking == Asking::kText) out.stops = {"\nProblem:"};
  out.max_new = 1024;
  return out;
}

absl::StatusOr<Benchmark> MakeAime(const BenchmarkOptions& options) {
  const MakeProblemRow make_row = [&](const json& object, const std::string& where,
                                      int64_t index) -> absl::StatusOr<ProblemRow> {
    ASSIGN_OR_RETURN(const std::string problem, GetString(object, "problem", where));
    ASSIGN_OR_RETURN(std::string gold, TextOrInteger(object, "answer", where));
    gold = Trimmed(gold);
    const bool digits =
        !gold.empty() && gold.size() <= 3 && gold.find_first_not_of("0123456789") == gold.npos;
    if (!digits) {
      return DamagedError(Concat(where, ": answer is \"", Printable(gold),
                                 "\"; AIME answers are whole numbers from 0 to 999; get the file again"));
    }
    gold = std::to_string(std::stoi(gold));
    return ProblemRow{{.id = Concat("aime/", index), .ask = AskForBox(problem, options.asking), .gold = gold},
                      {}};
  };
  ASSIGN_OR_RETURN(Benchmark out, MakeMathSet({.name = "aime",
                                               .test_files = {"aime/test.jsonl", "aime24/test.jsonl"},
                                               .example_files = {},
                                               .default_shots = 0,
                                               .find = FindMathAnswer,
                                               .make_row = make_row},
                                              options));
  if (options.asking == Asking::kText) out.stops = {"\nProblem:"};
  out.max_new = 32768;
  return out;
}

}  // namespace moebius
