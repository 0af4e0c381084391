#include "rl/math/extract.h"

#include <algorithm>
#include <cctype>
#include <optional>
#include <vector>

#include "rl/math/clean.h"

namespace moebius::math {
namespace {

// More boxes than this cannot all be the answer; the last ones count.
constexpr int kMaxBoxes = 32;

struct Box {
  size_t begin, end;  // of "\boxed{...}"
  std::string_view inside;
};

// "\boxed{...}" at `at`, or "\boxed 5"; nothing if its brace is never closed.
std::optional<Box> BoxAt(std::string_view text, size_t at, size_t command_bytes) {
  size_t open = at + command_bytes;
  while (open < text.size() && text[open] == ' ') ++open;
  if (open >= text.size()) return std::nullopt;
  if (text[open] == '{') {
    const size_t end = MatchBrace(text, open);
    if (end == std::string_view::npos) return std::nullopt;
    return Box{at, end, text.substr(open + 1, end - open - 2)};
  }
  size_t end = open;
  while (end < text.size() && std::isalnum(static_cast<unsigned char>(text[end]))) ++end;
  if (end == open || open == at + command_bytes) return std::nullopt;
  return Box{at, end, text.substr(open, end - open)};
}

// The last boxes that lie in no other, in order.
std::vector<Box> Boxes(std::string_view text) {
  std::vector<Box> out;
  for (std::string_view command : {"\\boxed", "\\fbox"}) {
    size_t at = text.rfind(command);
    for (int n = 0; n < kMaxBoxes && at != std::string_view::npos; ++n) {
      if (const std::optional<Box> box = BoxAt(text, at, command.size())) out.push_back(*box);
      if (at == 0) break;
      at = text.rfind(command, at - 1);
    }
  }
  std::sort(out.begin(), out.end(), [](const Box& a, const Box& b) { return a.end < b.end; });
  const std::vector<Box> all = out;
  std::erase_if(out, [&](const Box& box) {
    return std::any_of(all.begin(), all.end(),
                       [&](const Box& other) { return other.begin < box.begin && box.end < other.end; });
  });
  return out;
}

// True if nothing but "or", "and", commas and signs of mathematics mode stand between two boxes.
bool Joins(std::string_view between) {
  std::string words;
  for (char c : between) {
    if (std::isalpha(static_cast<unsigned char>(c))) {
      words += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    } else if (std::string_view(" ,;$\\()[]{}\n~*").find(c) == std::string_view::npos) {
      return false;
    }
  }
  for (const std::string_view layout : {"qquad", "quad", "text", "mathrm"}) {
    for (size_t at; (at = words.find(layout)) != words.npos;) words.erase(at, layout.size());
  }
  return words.empty() || words == "or" || words == "and";
}

// What stands between the signs of displayed mathematics, if `text` begins with it.
std::string_view Displayed(std::string_view text) {
  const std::string_view close = text.starts_with("\\[") ? "\\]" : text.starts_with("$$") ? "$$" : "";
  const size_t end = close.empty() ? text.npos : text.find(close, 2);
  return end == text.npos ? std::string_view() : text.substr(2, end - 2);
}

size_t FindLastIgnoringCase(std::string_view text, std::string_view lower) {
  if (text.size() < lower.size()) return std::string_view::npos;
  for (size_t at = text.size() - lower.size() + 1; at-- > 0;) {
    size_t i = 0;
    while (i < lower.size() && std::tolower(static_cast<unsigned char>(text[at + i])) == lower[i]) ++i;
    if (i == lower.size()) return at;
  }
  return std::string_view::npos;
}

}  // namespace

Extracted ExtractBox(std::string_view text) {
  const std::vector<Box> boxes = Boxes(text);
  if (boxes.empty()) return {.where = "no box"};
  size_t first = boxes.size() - 1;
  while (first > 0 && Joins(text.substr(boxes[first - 1].end, boxes[first].begin - boxes[first - 1].end)))
    --first;
  std::string answer(boxes[first].inside);
  for (size_t i = first + 1; i < boxes.size(); ++i) {
    if (boxes[i].inside != boxes[i - 1].inside) answer += ", " + std::string(boxes[i].inside);  // said again
  }
  return {.found = true, .answer = std::move(answer), .where = "box"};
}

Extracted ExtractAnswer(std::string_view text) {
  constexpr std::string_view kThink = "</think>";
  if (const size_t at = text.rfind(kThink); at != std::string_view::npos)
    text.remove_prefix(at + kThink.size());
  constexpr std::string_view kOpen = "<answer>", kClose = "</answer>";
  if (const size_t close = text.rfind(kClose); close != std::string_view::npos) {
    const size_t open = text.substr(0, close).rfind(kOpen);
    if (open != std::string_view::npos) {
      const std::string_view inside = text.substr(open + kOpen.size(), close - open - kOpen.size());
      Extracted nested =
          inside.find("\\boxed") == std::string_view::npos ? Extracted() : ExtractAnswer(inside);
      if (nested.found) return nested;
      return {.found = true, .answer = std::string(inside), .where = "answer tag"};
    }
  }
  if (Extracted box = ExtractBox(text); box.found) return box;
  for (std::string_view phrase : {"final answer is", "final answer:", "the answer is", "answer:"}) {
    const size_t at = FindLastIgnoringCase(text, phrase);
    if (at == std::string_view::npos) continue;
    std::string_view rest = text.substr(at + phrase.size());
    while (!rest.empty() &&
           (rest.front() == ' ' || rest.front() == ':' || rest.front() == '\n' || rest.front() == '*'))
      rest.remove_prefix(1);
    if (const std::string_view shown = Displayed(rest); !shown.empty())
      return {.found = true, .answer = std::string(shown), .where = "phrase"};
    rest = rest.substr(0, rest.find('\n'));
    // A sentence ends at a full stop with a space behind it; a decimal point has none.
    rest = rest.substr(0, rest.find(". "));
    // What ends emphasis, and what ends the sentence inside of it: **5.**
    while (rest.size() > 1 &&
           (rest.back() == ' ' || rest.ends_with("**") || rest.ends_with(".") || rest.ends_with("*")))
      rest.remove_suffix(1);
    if (rest.empty()) continue;
    return {.found = true, .answer = std::string(rest), .where = "phrase"};
  }
  return {.where = "no box, no answer tag and no \"final answer is\""};
}

}  // namespace moebius::math
