#include "launch/verb_grade.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <string>
#include <string_view>

#include "core/base/status.h"
#include "core/base/strings.h"
#include "core/io/line_reader.h"
#include "rl/math/equivalence.h"

namespace moebius {
namespace {

using math::GradeResult;
using math::Outcome;

struct Row {
  std::string_view gold, answer, expected, kind;
};

// gold, answer, expected, class, separated by tabs; the last two may be missing.
absl::StatusOr<Row> SplitRow(std::string_view line, const std::string& where) {
  std::vector<std::string_view> fields;
  while (true) {
    const size_t tab = line.find('\t');
    fields.push_back(line.substr(0, tab));
    if (tab == std::string_view::npos) break;
    line.remove_prefix(tab + 1);
  }
  if (fields.size() < 2 || fields.size() > 4) {
    return DamagedError(Concat(where, ": ", fields.size(),
                               " columns; a line is gold, answer, expected, class separated by tabs"));
  }
  fields.resize(4);
  const std::string_view expected = fields[2];
  if (!expected.empty() && expected != "equal" && expected != "different" && expected != "undecided") {
    return DamagedError(
        Concat(where, ": expected is '", Printable(expected), "'; write equal, different or undecided"));
  }
  return Row{fields[0], fields[1], expected, fields[3]};
}

// What a table of cases with known answers shows of the grader.
class Summary {
 public:
  void Add(const Row& row, const GradeResult& result, double ms) {
    times_ms_.push_back(ms);
    if (row.expected.empty()) return;
    ++judged_;
    if (row.expected == math::OutcomeName(result.outcome)) {
      ++right_;
    } else if (result.outcome == Outcome::kEqual) {
      ++false_equal_;
    } else if (result.outcome == Outcome::kDifferent) {
      ++false_different_;
    } else {
      ++undecided_;
    }
  }

  void Print() {
    std::printf("right %lld of %lld, false equal %lld, false different %lld, undecided %lld\n",
                judged_ == 0 ? 0 : right_, judged_, false_equal_, false_different_, undecided_);
    std::sort(times_ms_.begin(), times_ms_.end());
    const auto at = [this](double share) {
      return times_ms_.empty()
                 ? 0.0
                 : times_ms_[static_cast<size_t>(share * static_cast<double>(times_ms_.size() - 1) + 0.5)];
    };
    std::printf("time a case: p50 %.3f ms, p99 %.3f ms, max %.3f ms\n", at(0.5), at(0.99), at(1.0));
  }

 private:
  long long judged_ = 0, right_ = 0, false_equal_ = 0, false_different_ = 0, undecided_ = 0;
  std::vector<double> times_ms_;
};

absl::Status GradeTable(const std::string& path, bool reasons) {
  ASSIGN_OR_RETURN(LineReader lines, LineReader::Open(path == "-" ? "/dev/stdin" : path));
  Summary summary;
  std::string_view line;
  while (true) {
    ASSIGN_OR_RETURN(const bool more, lines.Next(&line));
    if (!more) break;
    if (line.empty()) continue;
    ASSIGN_OR_RETURN(const Row row, SplitRow(line, lines.Where()));
    const auto start = std::chrono::steady_clock::now();
    const GradeResult result = math::Grade(row.gold, row.answer);
    const std::chrono::duration<double, std::milli> ms = std::chrono::steady_clock::now() - start;
    summary.Add(row, result, ms.count());
    const std::string outcome(math::OutcomeName(result.outcome));
    if (!reasons) {
      std::printf("%s\n", outcome.c_str());
      continue;
    }
    const bool wrong = !row.expected.empty() && row.expected != outcome;
    std::printf("%s\t%s\t%.3f ms%s%s%s\n", outcome.c_str(), result.reason.c_str(), ms.count(),
                wrong ? "\twrong: " : "", wrong ? std::string(row.kind).c_str() : "",
                wrong ? Concat(": ", Printable(row.gold), " | ", Printable(row.answer)).c_str() : "");
  }
  if (reasons) summary.Print();
  return absl::OkStatus();
}

absl::Status RunGrade(const ParsedArgs& args) {
  if (args.Given("tsv")) {
    if (args.Given("gold") || args.Given("answer")) {
      return UsageError("--tsv with --gold or --answer; a table has its own; give one of the two");
    }
    return GradeTable(args.Text("tsv"), args.On("reasons"));
  }
  if (!args.Given("gold") || !args.Given("answer")) {
    return UsageError("nothing to grade; give --gold and --answer, or --tsv FILE");
  }
  const GradeResult result = math::Grade(args.Text("gold"), args.Text("answer"));
  std::printf("%s\n", std::string(math::OutcomeName(result.outcome)).c_str());
  if (args.On("reasons")) std::printf("%s\n", result.reason.c_str());
  return absl::OkStatus();
}

}  // namespace

std::vector<Verb> GradeVerbs() {
  return {{.name = "grade",
           .summary = "is an answer mathematically the gold answer?",
           .usage = "--gold G --answer A | --tsv FILE [flags]",
           .flags = {{.name = "gold", .placeholder = "TEXT", .help = "the known answer, LaTeX or plain"},
                     {.name = "answer",
                      .placeholder = "TEXT",
                      .help = "the answer to judge: itself, or a text with \\boxed{...} or <answer>"},
                     {.name = "tsv",
                      .placeholder = "FILE",
                      .help = "lines of gold, answer, expected, class; the last two may be missing"},
                     {.name = "reasons",
                      .kind = FlagKind::kSwitch,
                      .help = "print why, and a summary of a table"}},
           .examples = {"moebius grade --gold '\\frac{1}{2}' --answer 0.5",
                        "moebius grade --tsv cases.tsv --reasons"},
           .details = "Prints equal, different or undecided, for a table one a line in order. "
                      "docs/math_grader.md says what is covered.",
           .run = RunGrade}};
}

}  // namespace moebius
