// MMLU: four options and a letter. Letters are compared as the released code of the benchmark and lm-eval do,
// option texts by log-probability a character (lm-eval's acc_norm), or an answer is generated.
#include <algorithm>
#include <set>

#include "core/base/strings.h"
#include "core/io/file.h"
#include "rl/evaluation/final_answer.h"
#include "rl/evaluation/makers.h"
#include "rl/evaluation/sources.h"
#include "rl/reward/answer_text.h"
#include "rl/reward/choice.h"

namespace moebius {
namespace {

constexpr int kOptions = 4;

class ChoiceGrader final : public Grader {
 public:
  explicit ChoiceGrader(const std::vector<Question>& questions) {
    for (const Question& question : questions) golds_.push_back(question.gold[0]);
  }
  absl::StatusOr<std::vector<Graded>> Grade(const std::vector<Attempt>& attempts) const override {
    std::vector<Graded> out;
    for (const Attempt& attempt : attempts) {
      const Choice choice = ExtractChoice(kOptions, WithoutThoughts(attempt.answer));
      if (choice.outcome != ChoiceOutcome::kFound) {
        out.push_back({.outcome = Outcome::kNoAnswer,
                       .verdict = choice.outcome == ChoiceOutcome::kNone ? "no letter" : "several letters"});
        continue;
      }
      const bool right = choice.letter == golds_[attempt.question];
      out.push_back({.outcome = right ? Outcome::kRight : Outcome::kWrong,
                     .extracted = std::string(1, choice.letter),
                     .verdict = right ? "equal" : "different"});
    }
    return out;
  }
  bool votes() const override { return true; }
  bool Same(std::string_view a, std::string_view b) const override { return a == b; }

 private:
  std::vector<char> golds_;
};

struct ChoiceRow {
  std::string question;
  std::vector<std::string> options;
  int answer;  // 0 to 3
};

// Six columns; the answer as 0 to 3 or A to D.
absl::StatusOr<std::vector<ChoiceRow>> ReadChoiceRows(SourceReader& reader, const std::string& path) {
  ASSIGN_OR_RETURN(const std::vector<CsvRow> lines, reader.ReadCsv(path, "question", "answer"));
  std::vector<ChoiceRow> rows;
  for (const CsvRow& line : lines) {
    const std::vector<std::string>& f = line.fields;
    const std::string where = Concat(path, " line ", line.line);
    if (f.size() != kOptions + 2) {
      return DamagedError(Concat(where, ": has ", f.size(),
                                 " columns; a row is question, four options, answer; get the file again"));
    }
    const std::string_view answer = Trimmed(f.back());
    const size_t index =
        answer.size() == 1 ? std::string_view("0123ABCD").find(answer[0]) : std::string_view::npos;
    if (index == std::string_view::npos) {
      return DamagedError(Concat(where, ": the answer is \"", Printable(answer),
                                 "\"; it is a letter A to D or an index 0 to 3; get the file again"));
    }
    rows.push_back({f[0], {f.begin() + 1, f.end() - 1}, static_cast<int>(index % kOptions)});
  }
  return rows;
}

std::string Letter(int index) { return std::string(1, static_cast<char>('A' + index)); }

std::string WithOptions(const ChoiceRow& row, std::string_view behind_letter) {
  std::string text = row.question + "\n";
  for (int i = 0; i < kOptions; ++i) text += Concat(Letter(i), behind_letter, row.options[i], "\n");
  return text;
}

// How a row is asked in each mode.
Example Ask(const ChoiceRow& row, MmluMode mode, Asking asking) {
  if (mode == MmluMode::kCloze)
    return {Concat("Question: ", row.question, "\nAnswer:"), " " + row.options[row.answer]};
  if (mode == MmluMode::kGenerate && asking == Asking::kChat) {
    return {Concat(WithOptions(row, ") "),
                   "\nWhich of A, B, C and D is right? Think as long as you need, then write \"Answer:\" and "
                   "the letter."),
            " Answer: " + Letter(row.answer)};
  }
  return {WithOptions(row, ". ") + "Answer:", " " + Letter(row.answer)};
}

std::vector<std::string> Continuations(const ChoiceRow& row, MmluMode mode) {
  std::vector<std::string> out;
  if (mode == MmluMode::kGenerate) return out;
  for (int i = 0; i < kOptions; ++i)
    out.push_back(" " + (mode == MmluMode::kCloze ? row.options[i] : Letter(i)));
  return out;
}

// "abstract_algebra" of each NAME_test.csv in the folder, packed or not.
absl::StatusOr<std::vector<std::string>> Subjects(const std::string& data) {
  constexpr std::string_view kEnd = "_test.csv";
  if (data.empty()) {
    return UsageError(
        "mmlu needs data; its files are not part of moebius; give --data DIR, a folder with "
        "mmlu/test/SUBJECT_test.csv");
  }
  const std::string folder = JoinPath(data, "mmlu/test");
  std::set<std::string> subjects;
  if (FolderExists(folder)) {
    ASSIGN_OR_RETURN(const std::vector<std::string> names, ListDir(folder));
    for (const std::string_view name : names) {
      for (const std::string_view packed : kPackedEndings) {
        if (!name.ends_with(packed)) continue;
        const std::string_view plain = name.substr(0, name.size() - packed.size());
        if (plain.ends_with(kEnd)) subjects.emplace(plain.substr(0, plain.size() - kEnd.size()));
      }
    }
  }
  if (subjects.empty()) {
    return MissingError(folder +
                        "/SUBJECT_test.csv: there is none; mmlu is read from them; docs/evaluation.md says "
                        "what they hold and where they come from");
  }
  return std::vector<std::string>(subjects.begin(), subjects.end());
}

std::string Spaced(std::string name) {
  std::replace(name.begin(), name.end(), '_', ' ');
  return name;
}

}  // namespace

absl::StatusOr<Benchmark> MakeMmlu(const BenchmarkOptions& options) {
  const MmluMode mode = options.mmlu;
  const Asking asking = mode == MmluMode::kGenerate ? options.asking : Asking::kText;
  const bool chat = asking == Asking::kChat;
  int64_t shots = options.shots.value_or(mode == MmluMode::kCloze || chat ? 0 : 5);
  const char* mode_name = mode == MmluMode::kCloze    ? "cloze"
                          : mode == MmluMode::kLetter ? "letter"
                                                      : "generate";
  Benchmark out;
  ASSIGN_OR_RETURN(const std::vector<std::string> subjects, Subjects(options.data));
  SourceReader reader(options.data, "mmlu");
  std::vector<std::vector<ChoiceRow>> rows;
  for (const std::string& subject : subjects) {
    ASSIGN_OR_RETURN(const std::string test, reader.Find({"mmlu/test/" + subject + "_test.csv"}));
    ASSIGN_OR_RETURN(rows.emplace_back(), ReadChoiceRows(reader, test));
    ExampleSet& set = out.examples.emplace_back();
    if (mode != MmluMode::kCloze && !chat)
      set.header = Concat("The following are multiple choice questions (with answers) about ",
                          Spaced(subject), ".\n\n");
    if (shots == 0) continue;
    ASSIGN_OR_RETURN(const std::string path, reader.Find({"mmlu/dev/" + subject + "_dev.csv"}));
    ASSIGN_OR_RETURN(const std::vector<ChoiceRow> examples, ReadChoiceRows(reader, path));
    ASSIGN_OR_RETURN(shots,
                     ShotsOf(options, path, std::ssize(examples), shots));  // of the subject with fewest
    for (const ChoiceRow& row : examples)
      if (std::ssize(set.examples) < shots) set.examples.push_back(Ask(row, mode, asking));
  }
  out.shots = shots;
  out.protocol = Concat(mode_name, ", ", ProtocolText(shots, asking));
  // In turns, so that a limit takes of every subject.
  for (size_t i = 0, before = 1; out.questions.size() != before; ++i) {
    before = out.questions.size();
    for (size_t s = 0; s < subjects.size(); ++s) {
      if (i >= rows[s].size() || std::ssize(out.questions) >= options.limit.value_or(INT64_MAX)) continue;
      const ChoiceRow& row = rows[s][i];
      out.questions.push_back({.id = Concat("mmlu/", subjects[s], "/", i),
                               .subject = subjects[s],
                               .ask = Ask(row, mode, asking).ask,
                               .gold = Letter(row.answer),
                               .options = Continuations(row, mode),
                               .examples = s});
    }
  }
  out.files = reader.TakeFiles();
  if (mode == MmluMode::kGenerate) out.grader = std::make_unique<ChoiceGrader>(out.questions);
  if (!chat) out.stops = {"\n"};
  out.max_new = chat ? 1024 : 16;
  return out;
}

}  // namespace moebius
