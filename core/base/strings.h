// Text from values. absl's StrCat is not used: Debian builds absl with a string_view of its own, which does
// not take std::string_view.
#pragma once

#include <cstdint>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

namespace moebius {

// Concat("layer ", 3, ": ", 0.5) is "layer 3: 0.5" (numbers as ostream prints them).
template <typename... Args>
std::string Concat(const Args&... args) {
  std::ostringstream out;
  (out << ... << args);
  return out.str();
}

// "a, b, c".
std::string Join(const std::vector<std::string>& parts, std::string_view separator = ", ");

// Nothing but white space, or nothing at all.
bool IsBlank(std::string_view text);

// `text` cut to `limit` bytes with "..." when longer, control characters and invalid UTF-8 as \xNN: safe to
// print, whatever it was read from.
std::string Printable(std::string_view text, size_t limit = 80);

// 1234567 -> "1,234,567".
std::string WithCommas(int64_t value);
// 1536 -> "1.50 KiB".
std::string HumanBytes(double bytes);
// 95.2 -> "1m 35s"; from ten years on in years.
std::string HumanSeconds(double seconds);

}  // namespace moebius
