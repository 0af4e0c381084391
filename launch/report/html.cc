#include "launch/report/html.h"

#include <cmath>
#include <cstdio>
#include <limits>

#include "core/base/strings.h"

namespace moebius {
namespace {

template <typename... Args>
std::string Digits(const char* format, Args... args) {
  char text[64];
  std::snprintf(text, sizeof text, format, args...);
  return text;
}

}  // namespace

std::string FormatNumber(double value, NumberStyle style, int more) {
  if (!std::isfinite(value)) return "–";
  const double size = std::fabs(value);
  switch (style) {
    case NumberStyle::kBytes:
      return HumanBytes(value);
    case NumberStyle::kSeconds:
      return size < 0.9995 ? Digits("%.*g ms", 3 + more, value * 1e3)
             : size < 100  ? Digits("%.*g s", 3 + more, value)
                           : HumanSeconds(value);
    case NumberStyle::kPercent:
      return Digits("%.*g %%", 3 + more, value * 100);
    case NumberStyle::kCount:
      if (size >= 1e12) return Digits("%.*gT", 4 + more, value / 1e12);
      if (size >= 1e9) return Digits("%.*gG", 4 + more, value / 1e9);
      if (size >= 1e6) return Digits("%.*gM", 4 + more, value / 1e6);
      if (size >= 9999.5) return Digits("%.*gk", 4 + more, value / 1e3);
      return Digits("%.*g", 4 + more, value);
    case NumberStyle::kPlain:
      break;
  }
  if (size != 0 && (size < 1e-3 || size >= 9999.5)) {
    // 3e-4 rather than 0.0003.
    const int exponent = static_cast<int>(std::floor(std::log10(size) + 1e-9));
    return Digits("%.*ge%d", 3 + more, value / std::pow(10.0, exponent), exponent);
  }
  return Digits("%.*g", 4 + more, value);
}

std::string EscapeHtml(std::string_view text) {
  std::string out;
  size_t start = 0;
  // Line ends and tabs stay; Printable turns other control characters and bad UTF-8 into \xNN.
  while (start <= text.size()) {
    size_t end = text.find_first_of("\n\t", start);
    if (end == std::string_view::npos) end = text.size();
    for (const char c : Printable(text.substr(start, end - start), std::numeric_limits<size_t>::max())) {
      switch (c) {
        case '&':
          out += "&amp;";
          break;
        case '<':
          out += "&lt;";
          break;
        case '>':
          out += "&gt;";
          break;
        case '"':
          out += "&quot;";
          break;
        case '\'':
          out += "&#39;";
          break;
        default:
          out += c;
      }
    }
    if (end < text.size()) out += text[end];
    start = end + 1;
  }
  return out;
}

std::string Fixed(double value, int digits) {
  if (!std::isfinite(value)) return "–";
  return std::fabs(value) < 1e7 ? Digits("%.*f", digits, value) : Digits("%.3g", value);
}

std::string Signed(double value) {
  if (!std::isfinite(value)) return "–";
  // A true minus sign is as wide as the plus.
  const std::string text = Digits("%.3g", std::fabs(value));
  return text == "0" ? text : Concat(value < 0 ? "−" : "+", text);
}

std::string Section(const std::string& id, const std::string& title, const std::string& body) {
  if (body.empty()) return "";
  return Concat("<section id='", id, "'><h2>", title, "</h2>", body, "</section>\n");
}

std::string Grid(const std::string& charts) {
  return charts.empty() ? "" : "<div class='grid2'>" + charts + "</div>";
}

}  // namespace moebius
