// Texts of models on a terminal.
#pragma once

#include <string>
#include <string_view>

namespace moebius {

// With control characters (C0 but for newline and tab, DEL, C1) as \xNN: a terminal would obey them.
std::string TerminalText(std::string_view text);

}  // namespace moebius
