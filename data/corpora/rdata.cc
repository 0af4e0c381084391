#include "data/corpora/rdata.h"

#include <zlib.h>

#include <cstdint>
#include <cstring>
#include <utility>

#include "core/base/status.h"
#include "core/base/strings.h"

namespace moebius {
namespace {

constexpr size_t kMaxObjectBytes = size_t{1} << 30;
constexpr int kMaxDepth = 64;

// zlib or gzip data (told apart by their headers), whole.
absl::StatusOr<std::string> Inflate(std::string_view bytes) {
  z_stream stream;
  std::memset(&stream, 0, sizeof stream);
  if (inflateInit2(&stream, 15 + 32) != Z_OK) return DamagedError("zlib cannot start");
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(bytes.data()));
  stream.avail_in = static_cast<uInt>(bytes.size());
  std::string out, chunk(1 << 16, '\0');
  int code = Z_OK;
  while (code == Z_OK && out.size() <= kMaxObjectBytes) {
    stream.next_out = reinterpret_cast<Bytef*>(chunk.data());
    stream.avail_out = static_cast<uInt>(chunk.size());
    code = inflate(&stream, Z_NO_FLUSH);
    out.append(chunk, 0, chunk.size() - stream.avail_out);
  }
  inflateEnd(&stream);
  if (out.size() > kMaxObjectBytes) return DamagedError("an object unpacks to more than 1 GiB");
  if (code != Z_STREAM_END)
    return DamagedError(Concat("compressed data are damaged or cut short (zlib code ", code, ")"));
  return out;
}

// Types of R's SEXP that occur in serialised data (Rinternals.h, serialize.c).
enum RType : uint32_t {
  kNilSxp = 0,
  kSymSxp = 1,
  kListSxp = 2,
  kCharSxp = 9,
  kLglSxp = 10,
  kIntSxp = 13,
  kRealSxp = 14,
  kStrSxp = 16,
  kVecSxp = 19,
  kGlobalEnv = 253,
  kNilValue = 254,
  kRef = 255
};

class Unserializer {
 public:
  explicit Unserializer(std::string_view bytes) : bytes_(bytes) {}

  absl::StatusOr<RValue> Read() {
    if (!bytes_.starts_with("X\n"))
      return DamagedError("R data do not begin with 'X\\n' (XDR serialisation)");
    position_ = 2;
    ASSIGN_OR_RETURN(const uint32_t version, Word());
    RETURN_IF_ERROR(Skip(8));  // the writer's version, and the oldest that can read
    if (version == 3) {
      ASSIGN_OR_RETURN(const uint32_t length, Word());
      RETURN_IF_ERROR(Skip(length));
    } else if (version != 2) {
      return DamagedError(Concat("R serialisation version ", version, " is not known (2 and 3 are)"));
    }
    return Item(0);
  }

 private:
  absl::Status Skip(size_t count) {
    if (count > bytes_.size() - position_)
      return DamagedError(Concat("R data end inside an item at byte ", position_));
    position_ += count;
    return absl::OkStatus();
  }
  absl::StatusOr<uint32_t> Word() {
    const size_t at = position_;
    RETURN_IF_ERROR(Skip(4));
    uint32_t value = 0;
    for (size_t i = 0; i < 4; ++i) value = value << 8 | static_cast<unsigned char>(bytes_[at + i]);
    return value;
  }
  // The length of a vector whose items take at least `item_bytes` each.
  absl::StatusOr<size_t> Length(size_t item_bytes) {
    ASSIGN_OR_RETURN(const uint32_t length, Word());
    if (length > (bytes_.size() - position_) / item_bytes) {
      return DamagedError(
          Concat("R vector of ", length, " items at byte ", position_, " is longer than the data"));
    }
    return length;
  }
  absl::StatusOr<std::string> CharText() {
    ASSIGN_OR_RETURN(const uint32_t length, Word());
    if (length == 0xFFFFFFFFu) return std::string("NA");
    const size_t at = position_;
    RETURN_IF_ERROR(Skip(length));
    return std::string(bytes_.substr(at, length));
  }
  absl::StatusOr<std::string> Char() {
    ASSIGN_OR_RETURN(const uint32_t flags, Word());
    if ((flags & 0xFF) != kCharSxp) return DamagedError(Concat("R string expected at byte ", position_ - 4));
    return CharText();
  }
  absl::StatusOr<std::string> Symbol(uint32_t flags) {
    if ((flags & 0xFF) == kSymSxp) {
      ASSIGN_OR_RETURN(std::string name, Char());
      symbols_.push_back(name);
      return name;
    }
    size_t index = flags >> 8;
    if (index == 0) {
      ASSIGN_OR_RETURN(index, Word());
    }
    if ((flags & 0xFF) != kRef || index == 0 || index > symbols_.size()) {
      return DamagedError(Concat("R symbol expected at byte ", position_ - 4));
    }
    return symbols_[index - 1];
  }
  // A pairlist of attributes; only "names" is kept.
  absl::Status Attributes(int depth, RValue* value) {
    while (true) {
      ASSIGN_OR_RETURN(const uint32_t flags, Word());
      if ((flags & 0xFF) == kNilValue) return absl::OkStatus();
      if ((flags & 0xFF) != kListSxp || !(flags & kHasTag)) {
        return DamagedError(Concat("R attribute list expected at byte ", position_ - 4));
      }
      ASSIGN_OR_RETURN(const uint32_t tag_flags, Word());
      ASSIGN_OR_RETURN(const std::string tag, Symbol(tag_flags));
      ASSIGN_OR_RETURN(RValue item, Item(depth + 1));
      if (tag == "names") value->names = std::move(item.strings);
    }
  }
  absl::StatusOr<RValue> Item(int depth) {
    if (depth > kMaxDepth) return DamagedError("R data are nested too deeply");
    ASSIGN_OR_RETURN(const uint32_t flags, Word());
    RValue value;
    switch (flags & 0xFF) {
      case kNilSxp:
      case kNilValue:
      case kGlobalEnv:
        return value;
      case kIntSxp:
      case kLglSxp: {
        ASSIGN_OR_RETURN(const size_t length, Length(4));
        value.kind = RValue::Kind::kIntegers;
        for (size_t i = 0; i < length; ++i) value.integers.push_back(static_cast<int>(*Word()));
        break;
      }
      case kRealSxp: {
        ASSIGN_OR_RETURN(const size_t length, Length(8));
        value.kind = RValue::Kind::kOther;
        RETURN_IF_ERROR(Skip(8 * length));
        break;
      }
      case kStrSxp: {
        ASSIGN_OR_RETURN(const size_t length, Length(8));
        value.kind = RValue::Kind::kStrings;
        value.strings.reserve(length);
        for (size_t i = 0; i < length; ++i) {
          ASSIGN_OR_RETURN(std::string text, Char());
          value.strings.push_back(std::move(text));
        }
        break;
      }
      case kVecSxp: {
        ASSIGN_OR_RETURN(const size_t length, Length(4));
        value.kind = RValue::Kind::kList;
        for (size_t i = 0; i < length; ++i) {
          ASSIGN_OR_RETURN(RValue item, Item(depth + 1));
          value.items.push_back(std::move(item));
        }
        break;
      }
      default:
        return DamagedError(
            Concat("R type ", flags & 0xFF, " at byte ", position_ - 4, " is not one that we read"));
    }
    if (flags & kHasAttributes) RETURN_IF_ERROR(Attributes(depth, &value));
    return value;
  }

  static constexpr uint32_t kHasAttributes = 1 << 9, kHasTag = 1 << 10;
  std::string_view bytes_;
  size_t position_ = 0;
  std::vector<std::string> symbols_;
};

}  // namespace

absl::StatusOr<RValue> UnserializeR(std::string_view bytes) { return Unserializer(bytes).Read(); }

absl::StatusOr<std::vector<std::pair<std::string, std::vector<std::string>>>> ReadLazyLoadStrings(
    std::string_view index, std::string_view data) {
  auto plain = Inflate(index);
  if (!plain.ok()) return Annotate(plain.status(), "index (.rdx)");
  auto root = UnserializeR(*plain);
  if (!root.ok()) return Annotate(root.status(), "index (.rdx)");
  const RValue* variables = nullptr;
  for (size_t i = 0; i < root->items.size() && i < root->names.size(); ++i) {
    if (root->names[i] == "variables") variables = &root->items[i];
  }
  if (variables == nullptr || variables->names.size() != variables->items.size()) {
    return DamagedError("index (.rdx): no named list 'variables'");
  }
  std::vector<std::pair<std::string, std::vector<std::string>>> out;
  for (size_t i = 0; i < variables->items.size(); ++i) {
    const std::string& name = variables->names[i];
    const std::vector<int>& place = variables->items[i].integers;  // offset, length
    if (place.size() != 2 || place[0] < 0 || place[1] < 4 ||
        static_cast<size_t>(place[0]) + static_cast<size_t>(place[1]) > data.size()) {
      return DamagedError(Concat("index (.rdx): the place of '", Printable(name),
                                 "' lies outside the data (.rdb) of ", data.size(), " bytes"));
    }
    auto record = Inflate(data.substr(place[0] + 4, place[1] - 4));
    if (!record.ok()) return Annotate(record.status(), Concat("data (.rdb), '", Printable(name), "'"));
    auto value = UnserializeR(*record);
    if (!value.ok()) return Annotate(value.status(), Concat("data (.rdb), '", Printable(name), "'"));
    if (value->kind == RValue::Kind::kStrings) out.emplace_back(name, std::move(value->strings));
  }
  return out;
}

}  // namespace moebius
