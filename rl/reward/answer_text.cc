#include "rl/reward/answer_text.h"

#include <algorithm>
#include <cctype>

#include "absl/strings/ascii.h"
namespace moebius {
namespace {

constexpr std::string_view kBlanks = " \t\r\n";

bool IsLetterOrDigit(char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0; }

// What follows the ``` of a line that begins or ends a block; nullopt for every other line. Code between
// backticks within one line is none.
std::optional<std::string_view> Fence(std::string_view line) {
  line = Trimmed(line);
  const size_t ticks = std::min(line.find_first_not_of('`'), line.size());
  if (ticks < 3 || line.find('`', ticks) != std::string_view::npos) return std::nullopt;
  return Trimmed(line.substr(ticks));
}

}  // namespace

std::string_view Trimmed(std::string_view text) {
  const size_t first = text.find_first_not_of(kBlanks);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kBlanks) - first + 1);
}

std::optional<std::string> LastNumber(std::string_view text) {
  const size_t last = text.find_last_of("0123456789");
  if (last == std::string_view::npos) return std::nullopt;
  size_t begin = last;
  const auto joins = [&](size_t i) {  // a comma or point between digits
    return (text[i] == ',' || text[i] == '.') && i > 0 && absl::ascii_isdigit(text[i - 1]);
  };
  while (begin > 0 && (absl::ascii_isdigit(text[begin - 1]) || joins(begin - 1))) --begin;
  constexpr std::string_view kBeforePoint = " \t\r\n$-+=*:<>~([{";
  if (begin > 0 && text[begin - 1] == '.' &&
      (begin == 1 || kBeforePoint.find(text[begin - 2]) != std::string_view::npos))
    --begin;
  size_t sign = begin;
  if (sign > 0 && text[sign - 1] == '$') --sign;
  const std::string_view before = text.substr(0, sign);
  size_t signs = 0;  // bytes of a minus
  for (const std::string_view minus_sign : {"-", "\u2212"}) {
    if (before.ends_with(minus_sign)) signs = minus_sign.size();
  }
  const bool minus = signs > 0 && (sign == signs || !IsLetterOrDigit(text[sign - signs - 1]));
  std::string number = minus ? "-" : "";
  for (const char c : text.substr(begin, last - begin + 1))
    if (c != ',') number += c;
  return number;
}

std::string ProgramIn(std::string_view answer) {
  std::string program, block;
  bool inside = false, named = false, fenced = false;
  for (std::string_view rest = answer; !rest.empty();) {
    const size_t end = std::min(rest.find('\n'), rest.size());
    const std::string_view line = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    const std::optional<std::string_view> fence = Fence(line);
    if (!fence) {
      if (inside) block.append(line).append("\n");
      continue;
    }
    fenced = true;
    if (inside && !Trimmed(block).empty()) program = block;
    block.clear();
    named = !fence->empty();
    inside = named || !inside;
  }
  if (!fenced) return std::string(answer);
  if (inside && (named || program.empty()) && !Trimmed(block).empty()) return block;
  return program;
}

std::string WithoutCalculatorMarks(std::string_view text) {
  std::string out;
  while (true) {
    const size_t open = text.find("<<"), close = text.find(">>", open);
    if (open == std::string_view::npos || close == std::string_view::npos) return out.append(text);
    out.append(text.substr(0, open));
    text.remove_prefix(close + 2);
  }
}

}  // namespace moebius
