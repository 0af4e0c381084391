#include "launch/terminal_text.h"

#include <cstdio>

namespace moebius {

std::string TerminalText(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto c = static_cast<unsigned char>(text[i]);
    const bool c1 = c == 0xC2 && i + 1 < text.size() && static_cast<unsigned char>(text[i + 1]) < 0xA0;
    const bool control = (c < 0x20 && c != '\n' && c != '\t') || c == 0x7F || c1;
    if (!control) {
      out += text[i];
      continue;
    }
    char shown[8];
    std::snprintf(shown, sizeof shown, "\\x%02X", c1 ? static_cast<unsigned char>(text[++i]) : c);
    out += shown;
  }
  return out;
}

}  // namespace moebius
