#include "data/corpora/document.h"

#include <cstring>

#include "core/base/status.h"
#include "core/base/strings.h"

namespace moebius {
namespace {

// Length of the well-formed sequence at `p` (Unicode 15, table 3-7), 0 if there is none. NUL counts as bad:
// it is the sign of binary data.
size_t SequenceLength(const unsigned char* p, size_t left) {
  const unsigned char lead = p[0];
  if (lead < 0x80) return lead != 0;
  const auto continuation = [&](size_t i, unsigned char low, unsigned char high) {
    return i < left && p[i] >= low && p[i] <= high;
  };
  if (lead >= 0xC2 && lead <= 0xDF) return continuation(1, 0x80, 0xBF) ? 2 : 0;
  if (lead >= 0xE0 && lead <= 0xEF) {
    const unsigned char low = lead == 0xE0 ? 0xA0 : 0x80, high = lead == 0xED ? 0x9F : 0xBF;
    return continuation(1, low, high) && continuation(2, 0x80, 0xBF) ? 3 : 0;
  }
  if (lead >= 0xF0 && lead <= 0xF4) {
    const unsigned char low = lead == 0xF0 ? 0x90 : 0x80, high = lead == 0xF4 ? 0x8F : 0xBF;
    return continuation(1, low, high) && continuation(2, 0x80, 0xBF) && continuation(3, 0x80, 0xBF) ? 4 : 0;
  }
  return 0;
}

// Position of the first bad byte at or after `start`, text.size() if there is none.
size_t FirstBad(std::string_view text, size_t start) {
  const unsigned char* p = reinterpret_cast<const unsigned char*>(text.data());
  size_t i = start;
  while (i < text.size()) {
    // Eight ASCII bytes without NUL at a time: most text is that.
    if (i + 8 <= text.size()) {
      uint64_t word;
      std::memcpy(&word, p + i, 8);
      if (((word | (word - 0x0101010101010101ull)) & 0x8080808080808080ull) == 0) {
        i += 8;
        continue;
      }
    }
    const size_t length = SequenceLength(p + i, text.size() - i);
    if (length == 0) return i;
    i += length;
  }
  return text.size();
}

absl::Status NotText(std::string_view origin, int64_t at, char byte, std::string_view advice) {
  return DamagedError(Concat(origin, ": byte ", at, " (value ",
                             static_cast<int>(static_cast<unsigned char>(byte)), ") is not valid text; ",
                             byte == 0 ? "the file seems to be binary; " : "the file is not UTF-8 text; ",
                             advice));
}

}  // namespace

absl::Status CheckText(std::string_view text, std::string_view origin, int64_t offset) {
  const size_t bad = FirstBad(text, 0);
  if (bad == text.size()) return absl::OkStatus();
  return NotText(origin, offset + static_cast<int64_t>(bad), text[bad],
                 "convert it (iconv -t utf-8) or leave it out");
}

absl::StatusOr<int64_t> MakeValidUtf8(InvalidText policy, Document* document) {
  const std::string_view text = document->text;
  size_t bad = FirstBad(text, 0);
  if (bad == text.size()) return 0;
  if (policy == InvalidText::kRefuse) {
    return NotText(document->origin, static_cast<int64_t>(bad), text[bad],
                   "convert it (iconv -t utf-8), leave it out, or say invalid_text: REPLACE "
                   "(--invalid-text replace)");
  }
  std::string out;
  out.reserve(text.size());
  size_t done = 0;
  int64_t runs = 0;
  const unsigned char* p = reinterpret_cast<const unsigned char*>(text.data());
  while (bad < text.size()) {
    out.append(text, done, bad - done);
    out += "\xEF\xBF\xBD";
    ++runs;
    done = bad + 1;
    while (done < text.size() && SequenceLength(p + done, text.size() - done) == 0) ++done;
    bad = FirstBad(text, done);
  }
  out.append(text, done, text.size() - done);
  document->text = std::move(out);
  return runs;
}

}  // namespace moebius
