#include "launch/report/answer_card.h"

#include <algorithm>
#include <cmath>

#include "core/base/strings.h"
#include "launch/report/html.h"

namespace moebius {
namespace {

// What a card takes beside its texts.
constexpr size_t kCardBytes = 370, kSetBytes = 260;

// A lone tag or bracket beside an answer, which tells nobody anything.
bool IsTrifle(std::string_view text) {
  const size_t first = text.find_first_not_of(" \t\r\n"), last = text.find_last_not_of(" \t\r\n");
  if (first == std::string_view::npos) return true;
  const std::string_view inner = text.substr(first, last - first + 1);
  return inner == "}" || (inner.front() == '<' && inner.find('>') == inner.size() - 1);
}

double ValueOf(const SampleRow& row, std::string_view name) {
  for (const auto& [key, value] : row.values) {
    if (key == name) return value;
  }
  return NAN;
}

bool SameNumber(double a, double b) { return a == b || (std::isnan(a) && std::isnan(b)); }

bool Alike(const SampleRow& a, const SampleRow& b) {
  return a.text == b.text && a.verdict == b.verdict &&
         std::equal(a.values.begin(), a.values.end(), b.values.begin(), b.values.end(),
                    [](const auto& x, const auto& y) {
                      return x.first == y.first && SameNumber(x.second, y.second);
                    });
}

// Byte positions that no character spans.
size_t BorderAtMost(std::string_view text, size_t at) {
  while (at > 0 && at < text.size() && (static_cast<unsigned char>(text[at]) & 0xC0) == 0x80) --at;
  return at;
}

// "" where answers were not compared, as in an evaluation.
std::string Advantage(const SampleRow& row) {
  const auto is_it = [](const auto& value) { return value.first == "advantage"; };
  if (std::none_of(row.values.begin(), row.values.end(), is_it)) return "";
  const double advantage = ValueOf(row, "advantage");
  if (!std::isfinite(advantage)) return "<b class='adv'>not judged</b>";
  // The style sheet adds the word.
  const char* arrow = advantage > 0 ? "▲ " : advantage < 0 ? "▼ " : "";
  return Concat("<b class='adv num'>", arrow, Signed(advantage), "</b>");
}

std::string Figure(const std::string& name, double value, const char* kind) {
  // Without the sign of -0.
  const std::string shown = FormatNumber(value == 0 ? 0 : value, NumberStyle::kPlain);
  return Concat("<span", kind, ">", EscapeHtml(name), " <b>", shown, "</b></span>");
}

// The reward, then its parts.
std::string Figures(const SampleRow& row) {
  std::string out;
  for (const auto& [name, value] : row.values) {
    if (name == "reward") out = Figure(name, value, " class='main'") + out;
    if (name != "reward" && name != "advantage") out += Figure(name, value, "");
  }
  return out.empty() ? "" : "<div class='figures'>" + out + "</div>";
}

// "2 × different": how often there was such an answer, and what the judge said.
std::string Verdict(const SampleRow& row, int64_t times) {
  const std::string often = times > 1 ? Concat("<b>", times, " ×</b> ") : "";
  if (often.empty() && row.verdict.empty()) return "";
  return Concat("<span class='verdict'>", often, EscapeHtml(row.verdict), "</span>");
}

std::string Thoughts(std::string_view text, size_t max_text) {
  if (IsTrifle(text)) return "";
  // Long ones scroll, by keyboard too.
  return Concat("<div class='thoughts'", std::min(text.size(), max_text) > 400 ? " tabindex='0'>" : ">",
                ShortenedHtml(text, max_text), "</div>");
}

std::string Card(const std::optional<AnswerForm>& form, const SampleRow& row, int64_t times,
                 size_t max_text) {
  const double advantage = ValueOf(row, "advantage");
  const AnswerParts parts = SplitAnswer(form, row.text);
  const bool none = IsBlank(parts.answer);
  return Concat("<div class='card ",
                advantage > 0   ? "up"
                : advantage < 0 ? "down"
                                : "even",
                "'><div class='top'><span>", Advantage(row), "</span>", Verdict(row, times), "</div>",
                Thoughts(parts.before, max_text), "<div class='answer'>",
                none ? "<i>no answer</i>" : ShortenedHtml(parts.answer, max_text), "</div>",
                Thoughts(parts.after, max_text), Figures(row), "</div>");
}

}  // namespace

AnswerParts SplitAnswer(const std::optional<AnswerForm>& form, std::string_view text) {
  if (!form.has_value()) return {.before = {}, .answer = text, .after = {}};
  const std::optional<AnswerForm::Found> found = form->Find(text);
  if (!found.has_value()) return {.before = text, .answer = {}, .after = {}};
  if (found->where.empty()) return {.before = {}, .answer = text, .after = {}};
  const size_t at = found->where.data() - text.data();
  return {
      .before = text.substr(0, at), .answer = found->where, .after = text.substr(at + found->where.size())};
}

std::string ShortenedHtml(std::string_view text, size_t max_text) {
  if (text.size() <= max_text) return EscapeHtml(text);
  const size_t head = BorderAtMost(text, max_text / 2), tail = BorderAtMost(text, text.size() - max_text / 2);
  return Concat(EscapeHtml(text.substr(0, head)), "<span class='cut'> … ",
                WithCommas(static_cast<int64_t>(tail - head)), " bytes left out … </span>",
                EscapeHtml(text.substr(tail)));
}

void AnswerSet::Add(const SampleRow* row) {
  for (Answer& answer : answers_) {
    if (!Alike(*answer.row, *row)) continue;
    ++answer.times;
    return;
  }
  answers_.push_back({.row = row});
}

std::string AnswerSet::Render(const std::optional<AnswerForm>& form, size_t max_text) const {
  std::vector<Answer> sorted = answers_;
  const auto key = [](const Answer& answer) {
    const double advantage = ValueOf(*answer.row, "advantage");
    return std::isfinite(advantage) ? advantage : -INFINITY;
  };
  std::stable_sort(sorted.begin(), sorted.end(),
                   [&](const Answer& a, const Answer& b) { return key(a) > key(b); });
  std::string out = Concat("<div class='set'><div class='ask'><div><small>prompt</small><p>",
                           ShortenedHtml(prompt(), max_text), "</p></div>");
  if (!gold().empty())
    out += Concat("<div><small>right answer</small><p>", ShortenedHtml(gold(), max_text), "</p></div>");
  out += "</div><div class='cards'>";
  for (const Answer& answer : sorted) out += Card(form, *answer.row, answer.times, max_text);
  return out + "</div></div>";
}

size_t AnswerSet::EstimatedBytes(size_t max_text) const {
  size_t bytes = kSetBytes + std::min(prompt().size(), max_text) + std::min(gold().size(), max_text);
  for (const Answer& answer : answers_) bytes += kCardBytes + std::min(answer.row->text.size(), max_text);
  return bytes;
}

}  // namespace moebius
