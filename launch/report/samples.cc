#include "launch/report/samples.h"

#include <algorithm>
#include <map>
#include <set>

#include "core/base/strings.h"
#include "launch/report/answer_card.h"

namespace moebius {
namespace {

using Rows = std::vector<const SampleRow*>;

bool IsJudged(const SampleRow& row) { return !row.values.empty() || !row.verdict.empty(); }

std::map<int64_t, Rows> RowsByStep(const RunData& run, bool judged) {
  std::map<int64_t, Rows> out;
  for (const SampleRow& row : run.samples) {
    if (IsJudged(row) == judged) out[row.step].push_back(&row);
  }
  return out;
}

// At most `limit` of the steps, the first and the last among them.
std::map<int64_t, Rows> Spread(std::map<int64_t, Rows> steps, size_t limit) {
  if (steps.size() <= limit) return steps;
  limit = std::max<size_t>(limit, 2);
  const size_t all = steps.size();
  std::set<size_t> chosen;
  for (size_t i = 0; i < limit; ++i) chosen.insert(i * (all - 1) / (limit - 1));
  size_t i = 0;
  std::erase_if(steps, [&](const auto&) { return !chosen.contains(i++); });
  return steps;
}

std::string NameOfRun(const Runs& runs, const RunData& run) {
  return runs.size() > 1 ? "<h3>" + EscapeHtml(run.name) + "</h3>" : "";
}

// Neighbours with the same prompt, as they were compared.
std::vector<AnswerSet> SetsOf(const Rows& rows) {
  std::vector<AnswerSet> sets;
  for (const SampleRow* row : rows) {
    if (sets.empty() || sets.back().prompt() != row->prompt || sets.back().gold() != row->gold)
      sets.emplace_back();
    sets.back().Add(row);
  }
  return sets;
}

std::string RenderStep(const RunData& run, int64_t step, const std::vector<AnswerSet>& sets,
                       size_t max_text) {
  std::string head;
  for (const MetricsRow& row : run.metrics) {
    if (row.step != step) continue;
    for (const auto& [key, name] : {std::pair{"rl/reward_mean", "reward"}, {"rl/accuracy", "right"}}) {
      const std::optional<double> value = row.Get(key);
      if (value) head += Concat(head.empty() ? "whole step: " : ", ", name, " ", Fixed(*value, 3));
    }
  }
  std::string out = Concat("<article class='step' data-step='", step, "'><h3>Step ", WithCommas(step),
                           head.empty() ? "" : " <span class='unit'>" + head + "</span>", "</h3>");
  for (const AnswerSet& set : sets) out += set.Render(run.answer_form, max_text);
  return out + "</article>\n";
}

std::string RenderAnswersOf(const RunData& run, size_t max_bytes) {
  const std::map<int64_t, Rows> all = RowsByStep(run, /*judged=*/true);
  if (all.empty()) return "";
  std::map<int64_t, std::vector<AnswerSet>> sets;
  for (const auto& [step, rows] : all) sets[step] = SetsOf(rows);
  size_t max_text = 16384, bytes = 0;
  for (;; max_text -= max_text / 8) {
    bytes = 0;
    for (const auto& [step, groups] : sets) {
      for (const AnswerSet& set : groups) bytes += set.EstimatedBytes(max_text);
    }
    if (bytes <= max_bytes || max_text <= 256) break;
  }
  std::map<int64_t, Rows> shown = all;
  if (bytes > max_bytes)
    shown = Spread(all, static_cast<size_t>(static_cast<double>(all.size()) * max_bytes / bytes));
  std::string steps;
  for (const auto& [step, rows] : shown) steps += RenderStep(run, step, sets[step], max_text);
  std::string note;
  if (shown.size() < all.size()) {
    note = Concat("<p class='note'>", shown.size(), " of ", all.size(),
                  " steps, evenly spaced; all of them are in the run's samples folder.</p>");
  }
  return Concat("<div class='reader'>", note,
                "<div class='picker' hidden><button type='button' aria-label='step before'>‹</button>"
                "<input type='range' min='0' max='",
                shown.size() - 1,
                "' step='1' aria-label='step'><button type='button' aria-label='step after'>›</button>"
                "<output></output></div>",
                steps, "</div>");
}

}  // namespace

std::string RenderTexts(const Runs& runs) {
  std::string out;
  for (const RunData& run : runs) {
    const std::map<int64_t, Rows> steps = Spread(RowsByStep(run, /*judged=*/false), 12);
    if (!steps.empty()) out += NameOfRun(runs, run);
    for (const auto& [step, rows] : steps) {
      out += Concat("<div class='sample'><div class='when'>step<br><b>", WithCommas(step),
                    "</b></div><div class='texts'>");
      for (const SampleRow* row : rows)
        out += "<p><b>" + EscapeHtml(row->prompt) + "</b>" + EscapeHtml(row->text) + "</p>";
      out += "</div></div>";
    }
  }
  return out;
}

std::string RenderAnswers(const Runs& runs, size_t max_bytes) {
  std::string out;
  for (const RunData& run : runs) {
    const std::string answers = RenderAnswersOf(run, max_bytes / runs.size());
    if (!answers.empty()) out += NameOfRun(runs, run) + answers;
  }
  if (out.empty()) return "";
  return "<p class='note'>What was judged is bold; what the model wrote before and after it is dim.</p>" +
         out;
}

}  // namespace moebius
