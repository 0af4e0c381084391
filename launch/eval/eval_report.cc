#include "launch/eval/eval_report.h"

#include <algorithm>

#include "core/base/strings.h"
#include "rl/evaluation/sources.h"

namespace moebius {
namespace {

using Json = nlohmann::ordered_json;

constexpr size_t kFilesShown = 4;

struct Column {
  std::string title;
  std::vector<std::string> cells;
  bool used = true;
};

Json ToJson(const Figure& figure) {
  return {{"mean", figure.estimate.mean},
          {"half_width", figure.estimate.half_width},
          {"problems", figure.problems}};
}

std::string OutcomeText(Outcome outcome) {
  switch (outcome) {
    case Outcome::kRight:
      return "right";
    case Outcome::kWrong:
      return "wrong";
    case Outcome::kNoAnswer:
      return "no_answer";
    case Outcome::kUndecided:
      return "undecided";
  }
  return "";
}

// Characters, which is what a column is wide: the texts are ASCII.
std::string Lines(const std::vector<Column>& columns, size_t rows) {
  std::string text;
  for (size_t r = 0; r <= rows; ++r) {
    std::string line;
    for (const Column& column : columns) {
      if (!column.used) continue;
      size_t width = column.title.size();
      for (const std::string& cell : column.cells) width = std::max(width, cell.size());
      const std::string& cell = r == 0 ? column.title : column.cells[r - 1];
      line += cell + std::string(width + 2 - cell.size(), ' ');
    }
    text += line.substr(0, line.find_last_not_of(' ') + 1) + "\n";
  }
  return text;
}

std::vector<int64_t> Draws(const std::vector<EvalRow>& rows) {
  std::vector<int64_t> draws;
  for (const EvalRow& row : rows)
    for (const auto& [k, figure] : row.result.tally.pass_at)
      if (std::find(draws.begin(), draws.end(), k) == draws.end()) draws.push_back(k);
  return draws;
}

std::vector<Column> Columns(const std::vector<EvalRow>& rows) {
  std::vector<Column> columns;
  const auto text = [&](const std::string& title, const auto& cell) {
    Column column{title, {}, true};
    for (const EvalRow& row : rows) column.cells.push_back(cell(row));
    columns.push_back(std::move(column));
  };
  // Left out where it is zero everywhere.
  const auto count = [&](const std::string& title, const auto& value) {
    text(title, [&](const EvalRow& row) { return WithCommas(value(row)); });
    columns.back().used =
        std::any_of(rows.begin(), rows.end(), [&](const EvalRow& row) { return value(row) != 0; });
  };
  const auto optional = [&](const std::string& title, const auto& figure) {
    text(title, [&](const EvalRow& row) { return figure(row) == nullptr ? "-" : PercentText(*figure(row)); });
    columns.back().used =
        std::any_of(rows.begin(), rows.end(), [&](const EvalRow& row) { return figure(row) != nullptr; });
  };
  text("benchmark", [](const EvalRow& row) { return row.name; });
  text("asked", [](const EvalRow& row) { return row.protocol; });
  text("n", [](const EvalRow& row) { return WithCommas(row.result.tally.problems); });
  text("pass@1 %", [](const EvalRow& row) { return PercentText(row.result.tally.pass_at_1); });
  for (const int64_t k : Draws(rows)) {
    optional(Concat("pass@", k, " %"), [k](const EvalRow& row) -> const Figure* {
      for (const auto& [draws, figure] : row.result.tally.pass_at)
        if (draws == k) return &figure;
      return nullptr;
    });
  }
  optional(Concat("cons@", rows.empty() ? 1 : rows[0].options.samples, " %"),
           [](const EvalRow& row) { return row.result.tally.cons ? &*row.result.tally.cons : nullptr; });
  optional("dense %",
           [](const EvalRow& row) { return row.result.tally.dense ? &*row.result.tally.dense : nullptr; });
  count("no answer", [](const EvalRow& row) { return row.result.tally.no_answer; });
  count("undecided", [](const EvalRow& row) { return row.result.tally.undecided; });
  count("cut off", [](const EvalRow& row) { return row.result.cut; });
  count("too long", [](const EvalRow& row) { return row.result.too_long; });
  count("fewer shots", [](const EvalRow& row) { return row.result.fewer_shots; });
  count("tokens", [](const EvalRow& row) { return row.result.tokens; });
  text("time", [](const EvalRow& row) { return HumanSeconds(row.result.seconds); });
  return columns;
}

std::string Sampling(const EvaluateOptions& options) {
  return Concat("samples ", options.samples, ", temperature ", options.sampling.temperature, ", top-p ",
                options.sampling.top_p, ", seed ", options.sampling.seed);
}

}  // namespace

std::string EvalTable(const std::vector<EvalRow>& rows) {
  if (rows.empty()) return "";
  std::string text = Lines(Columns(rows), rows.size());
  text += Concat("\nmodel ", rows[0].model, ", chat template ", rows[0].chat, ", computed in ",
                 rows[0].numbers, "\n");
  text += Sampling(rows[0].options) + "; +- is a 95 % interval over problems\n";
  for (const EvalRow& row : rows) {
    std::string knobs;
    for (const auto& [name, value] : row.knobs.items()) knobs += Concat(", ", name, " ", value.dump());
    if (!knobs.empty()) text += Concat(row.name, ": ", knobs.substr(2), "\n");
    if (row.files.size() > kFilesShown) {
      int64_t total = 0;
      for (const SourceFile& file : row.files) total += file.rows;
      text += Concat(row.name, ": ", row.files.size(), " files, sha256 of their sha256 lines ",
                     HashOfHashes(row.files), ", ", total, " rows\n");
      continue;
    }
    for (const SourceFile& file : row.files)
      text += Concat(row.name, ": ", file.path, ", sha256 ", file.sha256, ", ", file.rows, " rows\n");
  }
  return text;
}

Json EvalJson(const EvalRow& row) {
  const Tally& tally = row.result.tally;
  Json json = {{"benchmark", row.name},
               {"asked", row.protocol},
               {"model", row.model},
               {"chat", row.chat},
               {"numbers", row.numbers},
               {"shots", row.shots},
               {"samples", row.compares ? 1 : row.options.samples},
               {"temperature", row.options.sampling.temperature},
               {"top_p", row.options.sampling.top_p},
               {"seed", row.options.sampling.seed}};
  if (!row.compares) json["max_new"] = row.result.max_new;
  if (!row.knobs.empty()) json["knobs"] = row.knobs;
  json["problems"] = tally.problems;
  json["pass@1"] = ToJson(tally.pass_at_1);
  for (const auto& [k, figure] : tally.pass_at) json[Concat("pass@", k)] = ToJson(figure);
  if (tally.cons) json[Concat("cons@", row.options.samples)] = ToJson(*tally.cons);
  if (tally.dense) json["dense"] = ToJson(*tally.dense);
  json["right"] = tally.right;
  json["wrong"] = tally.wrong;
  json["no_answer"] = tally.no_answer;
  json["undecided"] = tally.undecided;
  json["cut_off"] = row.result.cut;
  json["too_long"] = row.result.too_long;
  json["fewer_shots"] = row.result.fewer_shots;
  json["tokens"] = row.result.tokens;
  json["seconds"] = row.result.seconds;
  for (const auto& [subject, figure] : tally.subjects) json["subjects"][subject] = ToJson(figure);
  json["files"] = Json::array();
  for (const SourceFile& file : row.files)
    json["files"].push_back({{"path", file.path}, {"sha256", file.sha256}, {"rows", file.rows}});
  return json;
}

Json SampleJson(const EvalRow& row, const Sample& sample) {
  Json json = {{"benchmark", row.name},
               {"id", sample.question.id},
               {"sample", sample.index},
               {"seed", row.options.sampling.seed},
               {"prompt", sample.prompt},
               {"answer", sample.answer},
               {"extracted", sample.graded.extracted},
               {"gold", sample.question.gold},
               {"outcome", OutcomeText(sample.graded.outcome)},
               {"verdict", sample.graded.verdict}};
  if (sample.graded.dense) json["dense"] = *sample.graded.dense;
  if (!sample.logprobs.empty()) json["logprobs"] = sample.logprobs;
  json["tokens"] = sample.tokens;
  json["cut_off"] = sample.cut;
  return json;
}

}  // namespace moebius
