#include "data/tokenizer/byte_alphabet.h"

#include <algorithm>
#include <numeric>

#include "data/tokenizer/unicode_classes.h"

namespace moebius {
namespace {

std::string EncodeBelow0x800(unsigned c) {
  if (c < 0x80) return std::string(1, static_cast<char>(c));
  return {static_cast<char>(0xC0 | c >> 6), static_cast<char>(0x80 | (c & 0x3F))};
}

}  // namespace

ByteAlphabet::ByteAlphabet() {
  bytes_.fill(-1);
  unsigned next = 0x100;
  for (unsigned b = 0; b < 256; ++b) {
    const bool printable = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
    const unsigned c = printable ? b : next++;
    characters_[b] = EncodeBelow0x800(c);
    bytes_[c] = static_cast<short>(b);
  }
}

std::optional<std::string> ByteAlphabet::ToBytes(std::string_view text) const {
  std::string bytes;
  bytes.reserve(text.size());
  const auto* p = reinterpret_cast<const uint8_t*>(text.data());
  const auto* const end = p + text.size();
  while (p < end) {
    const Utf8Char c = DecodeUtf8(p, end);
    if (!c.valid || c.code_point >= bytes_.size() || bytes_[c.code_point] < 0) return std::nullopt;
    bytes.push_back(static_cast<char>(bytes_[c.code_point]));
    p += c.length;
  }
  return bytes;
}

std::string ByteAlphabet::ToBytesOrSelf(std::string_view text) const {
  std::optional<std::string> bytes = ToBytes(text);
  return bytes.has_value() ? *std::move(bytes) : std::string(text);
}

std::array<unsigned char, 256> ByteAlphabet::BytesInCharacterOrder() const {
  std::array<unsigned char, 256> order;
  std::iota(order.begin(), order.end(), 0);
  // UTF-8 sorts as its code points do.
  std::sort(order.begin(), order.end(),
            [this](unsigned char a, unsigned char b) { return characters_[a] < characters_[b]; });
  return order;
}

}  // namespace moebius
