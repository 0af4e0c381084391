// GPT-2's alphabet for bytes: tokenizer.json writes byte-level tokens as strings in which every byte is one
// printable character (33-126, 161-172, 174-255 stand for themselves, the other 68 for U+0100 upward).
#pragma once

#include <array>
#include <optional>
#include <string>
#include <string_view>

namespace moebius {

class ByteAlphabet {
 public:
  ByteAlphabet();

  // The bytes that a string stands for; nullopt if a character is not of the alphabet.
  std::optional<std::string> ToBytes(std::string_view text) const;
  // The same, where such a string stands for itself (special tokens do), as HF's ByteLevel decoder has it.
  std::string ToBytesOrSelf(std::string_view text) const;
  const std::string& Character(unsigned char byte) const { return characters_[byte]; }

  // The bytes in the order of their characters: the order in which a trainer numbers its alphabet.
  std::array<unsigned char, 256> BytesInCharacterOrder() const;

 private:
  std::array<std::string, 256> characters_;  // of each byte, in UTF-8
  std::array<short, 0x200> bytes_;           // of each code point, -1 for none
};

}  // namespace moebius
