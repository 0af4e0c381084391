// Comparing what a program printed with what was expected, as bytes: whatever the encoding.
#pragma once

#include <string_view>

namespace moebius::sandbox {

// White space around the whole text and around each line does not count; everything else does, the number of
// lines too.
bool SameText(std::string_view expected, std::string_view actual);

}  // namespace moebius::sandbox
