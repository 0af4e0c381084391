#include "data/corpora/bible_text.h"

#include <cctype>
#include <cstdint>

#include "core/base/status.h"
#include "core/base/strings.h"

namespace moebius {
namespace {

constexpr std::string_view kMagic = "EC02Compressed Data File";
constexpr size_t kWindowBytesOffset = 84, kCountOffset = 88, kTableOffset = 92;
constexpr size_t kMaxWindowBytes = 1 << 20, kMaxWindows = 1 << 16;

uint32_t ReadBigEndian32(std::string_view bytes, size_t offset) {
  const auto byte = [&](size_t i) {
    return static_cast<uint32_t>(static_cast<unsigned char>(bytes[offset + i]));
  };
  return byte(0) << 24 | byte(1) << 16 | byte(2) << 8 | byte(3);
}

// Codes of `width` bits, least significant bit first. compress(1) writes codes in groups of eight of one
// width and skips the rest of the group when the width changes.
class CodeReader {
 public:
  explicit CodeReader(std::string_view bytes) : bytes_(bytes) {}

  bool Next(uint32_t* code) {
    if (position_ + width_ > bytes_.size() * 8) return false;
    uint32_t value = 0;
    for (size_t i = 0; i < 4 && position_ / 8 + i < bytes_.size(); ++i) {
      value |= static_cast<uint32_t>(static_cast<unsigned char>(bytes_[position_ / 8 + i])) << (8 * i);
    }
    *code = (value >> (position_ % 8)) & ((1u << width_) - 1);
    position_ += width_;
    return true;
  }
  void SetWidth(size_t width) {
    const size_t group = width_ * 8;
    start_ += (position_ - start_ + group - 1) / group * group;
    position_ = start_;
    width_ = width;
  }
  size_t width() const { return width_; }

 private:
  std::string_view bytes_;
  size_t width_ = 9, position_ = 0, start_ = 0;  // in bits
};

}  // namespace

absl::StatusOr<std::string> DecodeLzw(std::string_view codes, size_t size_limit) {
  constexpr uint32_t kClear = 256, kFirstFree = 257;
  constexpr size_t kMaxWidth = 16;
  // Entry k >= kFirstFree is a stretch of the output itself: the previous string and one byte more.
  struct Entry {
    size_t offset, length;
  };
  std::vector<Entry> table(kFirstFree);
  CodeReader reader(codes);
  std::string out;
  bool has_previous = false;
  size_t previous_offset = 0;
  uint32_t code = 0;
  while (reader.Next(&code)) {
    if (code == kClear) {
      table.resize(kFirstFree);
      reader.SetWidth(9);
      has_previous = false;
      continue;
    }
    const size_t here = out.size();
    if (has_previous && table.size() < (1u << kMaxWidth)) {
      table.push_back({previous_offset, here - previous_offset + 1});
    }
    if (code < kClear) {
      out.push_back(static_cast<char>(code));
    } else if (code < table.size() && code >= kFirstFree) {
      // Byte by byte: the newest entry ends in the byte that this copy writes first.
      const Entry entry = table[code];
      if (entry.length > size_limit - out.size())
        return DamagedError("LZW data unpack to more than the limit");
      for (size_t i = 0; i < entry.length; ++i) out.push_back(out[entry.offset + i]);
    } else {
      return DamagedError(Concat("LZW code ", code, " of a table of ", table.size(), " entries"));
    }
    if (out.size() > size_limit) return DamagedError("LZW data unpack to more than the limit");
    if (table.size() >= (1u << reader.width()) && reader.width() < kMaxWidth)
      reader.SetWidth(reader.width() + 1);
    previous_offset = here;
    has_previous = true;
  }
  return out;
}

absl::StatusOr<std::string> DecodeBibleData(std::string_view data) {
  if (data.size() < kTableOffset + 4 || data.substr(0, kMagic.size()) != kMagic) {
    return DamagedError("the file does not begin with 'EC02Compressed Data File'");
  }
  const size_t window_bytes = ReadBigEndian32(data, kWindowBytesOffset);
  const size_t count = ReadBigEndian32(data, kCountOffset);
  if (window_bytes == 0 || window_bytes > kMaxWindowBytes || count == 0 || count > kMaxWindows ||
      data.size() < kTableOffset + 4 * count) {
    return DamagedError(Concat("header: ", count, " windows of ", window_bytes,
                               " bytes do not fit a file of ", data.size(), " bytes"));
  }
  std::string text;
  for (size_t i = 0; i < count; ++i) {
    const size_t begin = ReadBigEndian32(data, kTableOffset + 4 * i);
    const size_t end = i + 1 < count ? ReadBigEndian32(data, kTableOffset + 4 * (i + 1)) : data.size();
    if (begin > end || end > data.size())
      return DamagedError(Concat("window ", i, ": offsets outside the file"));
    std::string_view codes = data.substr(begin, end - begin);
    if (codes.substr(0, 2) == "\x1F\x9D") codes.remove_prefix(std::min<size_t>(3, codes.size()));
    auto window = DecodeLzw(codes, window_bytes);
    if (!window.ok()) return Annotate(window.status(), Concat("window ", i));
    text += *window;
  }
  return text;
}

absl::StatusOr<std::vector<Document>> BibleBooks(std::string_view text, std::string_view origin) {
  std::vector<Document> books;
  std::string chapter;
  size_t line_number = 0;
  for (size_t start = 0; start < text.size();) {
    size_t end = text.find('\n', start);
    if (end == std::string_view::npos) end = text.size();
    const std::string_view line = text.substr(start, end - start);
    start = end + 1;
    if (++line_number == 1 && line.starts_with("Holy Bible")) continue;
    if (line.empty()) continue;
    // "1Jn3:14 We know": book = an optional digit and letters, then chapter:verse.
    const size_t space = line.find(' ');
    const size_t colon = line.substr(0, space).find(':');
    size_t book_end = 1;
    while (book_end < line.size() && std::isalpha(static_cast<unsigned char>(line[book_end]))) ++book_end;
    if (space == std::string_view::npos || colon == std::string_view::npos || book_end >= colon) {
      return DamagedError(
          Concat(origin, ": verse ", line_number, " has no reference: '", Printable(line, 40), "'"));
    }
    const std::string name = Concat("bible/", line.substr(0, book_end));
    const std::string_view this_chapter = line.substr(book_end, colon - book_end);
    if (books.empty() || books.back().name != name) {
      books.push_back({.name = name, .text = "", .origin = std::string(origin)});
    } else if (this_chapter != chapter) {
      books.back().text += '\n';
    }
    chapter = this_chapter;
    books.back().text.append(line.substr(space + 1)).push_back('\n');
  }
  if (books.empty()) return DamagedError(Concat(origin, ": no verses found"));
  return books;
}

}  // namespace moebius
