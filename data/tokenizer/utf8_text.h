// Bytes of decoded tokens as text: what to show when they are not, or not yet, whole characters.
#pragma once

#include <string>
#include <string_view>

namespace moebius {

// `bytes` with U+FFFD for every maximal piece that is not UTF-8, as Rust's from_utf8_lossy (and so HF's
// decode) and the Unicode standard's recommended practice have it.
std::string ReplaceInvalidUtf8(std::string_view bytes);

bool IsUtf8(std::string_view bytes);

// How many bytes at the end of `bytes` are the beginning of one character that is not complete yet: 0 to 3.
size_t IncompleteUtf8Suffix(std::string_view bytes);

}  // namespace moebius
