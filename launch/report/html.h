// Numbers and texts of models as HTML, and the frames that sections of the page share.
#pragma once

#include <string>
#include <string_view>

namespace moebius {

// How numbers of an axis read: 1.2k, 3.4 GiB, 250 ms, 25 %, 1.5e-4.
enum class NumberStyle { kPlain, kCount, kBytes, kSeconds, kPercent };

// "–" for what is no number, here and below.
// `more`: digits beyond the usual three or four, for numbers that differ little; not of bytes and long times.
std::string FormatNumber(double value, NumberStyle style, int more = 0);
std::string Fixed(double value, int digits);
std::string Signed(double value);  // +0.65, −1.1, 0

// Text safe inside HTML and attributes; invalid UTF-8 and control characters are shown as \xNN.
std::string EscapeHtml(std::string_view text);

// "" without a body.
std::string Section(const std::string& id, const std::string& title, const std::string& body);
std::string Grid(const std::string& charts);

}  // namespace moebius
