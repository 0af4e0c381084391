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
  const auto digit = [&](size_t i) { return absl::ascii_isdigit(text[i]); };
  const auto run_before = [&](size_t end) {  // where the digits begin that end there
    while (end > 0 && digit(end - 1)) --end;
    return end;
  };
  const auto follows = [&](size_t at, char sign) {  // a sign before `at` that digits precede
    return at > 1 && text[at - 1] == sign && digit(at - 2);
  };
  size_t begin = run_before(last + 1), mantissa = last + 1;
  // 1.5e-3
  size_t power = begin;
  if (power > 0 && (text[power - 1] == '-' || text[power - 1] == '+')) --power;
  if (follows(power, 'e') || follows(power, 'E')) mantissa = power - 1, begin = run_before(mantissa);
  if (follows(begin, '.')) begin = run_before(begin - 1);
  // Thousands: groups of three before the point, at most three digits before the first comma. "1,2,3" are
  // three numbers.
  size_t group = std::min(text.find('.', begin), mantissa);
  while (group - begin == 3 && follows(begin, ',')) {
    const size_t before = run_before(begin - 1);
    if (begin - 1 - before > 3) break;
    group = begin - 1, begin = before;
  }
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

std::optional<std::string> FirstNumber(std::string_view text) {
  size_t end = text.find_first_of("0123456789");
  const auto digit = [&](size_t i) { return i < text.size() && absl::ascii_isdigit(text[i]); };
  while (digit(end)) {
    while (digit(end)) ++end;
    if (end >= text.size()) break;
    const bool power = text[end] == 'e' || text[end] == 'E';
    const bool sign = power && end + 1 < text.size() && (text[end + 1] == '-' || text[end + 1] == '+');
    const size_t next = end + (sign ? 2 : 1);
    // A comma that is followed by three digits separates thousands, another one numbers.
    const bool thousands = digit(end + 1) && digit(end + 2) && digit(end + 3) && !digit(end + 4);
    if ((power || text[end] == '.' || (text[end] == ',' && thousands)) && digit(next)) end = next;
  }
  return LastNumber(text.substr(0, end));
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
