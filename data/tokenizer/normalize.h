// Unicode normalisation of text before it is split, for tokenizers that ask for it (Qwen's do).
#pragma once

#include <string>
#include <string_view>

namespace moebius {

// False if normalising to NFC surely changes nothing (ASCII).
bool NeedsNormalizing(std::string_view text);

// Normalisation form C of utf8proc's Unicode version; text that is not UTF-8 stays as it is.
std::string NormalizeNfc(std::string_view text);

}  // namespace moebius
