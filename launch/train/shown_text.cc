#include "launch/train/shown_text.h"

#include <optional>
#include <string_view>
#include <utility>

#include "core/base/strings.h"

namespace moebius {
namespace {

constexpr size_t kHead = 160, kTail = 80;  // bytes of a long text that a line shows

std::optional<bool> IsRight(const SampleRow& row) {
  for (const auto& [name, value] : row.values) {
    if (name == "correct" && value >= 0) return value == 1;
  }
  return std::nullopt;
}

// Lines are joined; where a cut meets a character of several bytes, the character goes.
std::string OneLine(std::string_view text) {
  std::string out;
  if (text.size() > kHead + kTail) {
    size_t head = kHead, tail = text.size() - kTail;
    const auto continues = [&](size_t at) { return (text[at] & 0xC0) == 0x80; };
    while (head > 0 && continues(head)) --head;
    while (tail < text.size() && continues(tail)) ++tail;
    out = Concat(text.substr(0, head), " ... ", text.substr(tail));
  } else {
    out = text;
  }
  for (size_t at = 0; (at = out.find('\n', at)) != std::string::npos; at += 3) out.replace(at, 1, " / ");
  return Printable(out, 4 * out.size());  // of which every byte may be escaped
}

}  // namespace

std::string SampleInOneLine(const SampleRow& row) {
  const std::optional<bool> right = IsRight(row);
  const std::string_view mark = !right ? "sample: " : *right ? "right  " : "wrong  ";
  return Concat(mark, OneLine(Concat(row.prompt, right && !row.prompt.ends_with(' ') ? " " : "", row.text)));
}

std::vector<SampleRow> ChosenToPrint(const std::vector<SampleRow>& rows) {
  std::vector<SampleRow> chosen;
  bool has[2] = {false, false};
  for (const SampleRow& row : rows) {
    const std::optional<bool> right = IsRight(row);
    if (!right || !std::exchange(has[*right], true)) chosen.push_back(row);
  }
  return chosen;
}

std::string SamplesInMarkdown(const std::vector<SampleRow>& rows) {
  std::string out;
  for (const SampleRow& row : rows) {
    const std::optional<bool> right = IsRight(row);
    // Indented by four spaces Markdown leaves a text as it is.
    std::string text = Concat("\n", row.prompt, row.text);
    for (size_t at = 0; (at = text.find('\n', at)) != std::string::npos; at += 5)
      text.replace(at, 1, "\n    ");
    out += Concat(out.empty() ? "" : "\n\n",
                  !right   ? "sample"
                  : *right ? "right"
                           : "wrong",
                  row.gold.empty() ? "" : Concat(" (", row.gold, " is right)"), ":\n", text);
  }
  return out;
}

}  // namespace moebius
