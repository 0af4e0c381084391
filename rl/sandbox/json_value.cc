#include "rl/sandbox/json_value.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <numeric>

#include "absl/strings/ascii.h"
#include "core/base/status.h"
#include "core/base/strings.h"

namespace moebius::sandbox {
namespace {

// Bytes of the UTF-8 character at text[i], 0 when it is none (overlong forms and surrogates too).
size_t Utf8Length(std::string_view text, size_t i) {
  const auto byte = [&](size_t k) { return i + k < text.size() ? static_cast<uint8_t>(text[i + k]) : 0u; };
  const auto tail = [&](size_t k) { return (byte(k) & 0xC0) == 0x80; };
  const unsigned lead = byte(0);
  if (lead < 0x80) return 1;
  if (lead >= 0xC2 && lead <= 0xDF && tail(1)) return 2;
  if ((lead & 0xF0) == 0xE0 && tail(1) && tail(2)) {
    const unsigned code = (lead & 0xF) << 12 | (byte(1) & 0x3F) << 6;
    return code >= 0x800 && !(code >= 0xD800 && code <= 0xDFFF) ? 3 : 0;
  }
  if (lead >= 0xF0 && lead <= 0xF4 && tail(1) && tail(2) && tail(3)) {
    const unsigned code = (lead & 7) << 18 | (byte(1) & 0x3F) << 12;
    return code >= 0x10000 && code <= 0x10FFFF ? 4 : 0;
  }
  return 0;
}

void AppendUtf8(unsigned code, std::string* out) {
  if (code < 0x80) {
    out->push_back(static_cast<char>(code));
  } else if (code < 0x800) {
    out->push_back(static_cast<char>(0xC0 | code >> 6));
    out->push_back(static_cast<char>(0x80 | (code & 0x3F)));
  } else if (code < 0x10000) {
    out->push_back(static_cast<char>(0xE0 | code >> 12));
    out->push_back(static_cast<char>(0x80 | (code >> 6 & 0x3F)));
    out->push_back(static_cast<char>(0x80 | (code & 0x3F)));
  } else {
    out->push_back(static_cast<char>(0xF0 | code >> 18));
    out->push_back(static_cast<char>(0x80 | (code >> 12 & 0x3F)));
    out->push_back(static_cast<char>(0x80 | (code >> 6 & 0x3F)));
    out->push_back(static_cast<char>(0x80 | (code & 0x3F)));
  }
}

class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {}

  // False: why() and at() say what is wrong where.
  bool Parse(Value* value) {
    SkipSpace();
    if (!ParseAny(value, 0)) return false;
    SkipSpace();
    return at_ == text_.size() || Fail("something follows the value");
  }
  const char* why() const { return why_; }
  size_t at() const { return at_; }

 private:
  bool Fail(const char* why) {
    why_ = why;
    return false;
  }
  char Peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }
  void SkipSpace() {
    while (at_ < text_.size() && std::string_view(" \t\r\n").find(text_[at_]) != std::string_view::npos)
      ++at_;
  }
  bool Word(std::string_view word) {
    if (text_.substr(at_, word.size()) != word) return Fail("no JSON value");
    at_ += word.size();
    return true;
  }

  bool ParseAny(Value* value, int depth) {
    if (depth > kMaxValueDepth) return Fail("nested too deeply");
    switch (Peek()) {
      case 'n':
        return Word("null");
      case 't':
      case 'f':
        value->kind = Value::Kind::kBool;
        value->truth = Peek() == 't';
        return Word(value->truth ? "true" : "false");
      case '"':
        value->kind = Value::Kind::kString;
        return ParseString(&value->text);
      case '[':
        return ParseArray(value, depth);
      case '{':
        return ParseObject(value, depth);
      default:
        return ParseNumber(value);
    }
  }

  bool ParseNumber(Value* value) {
    const size_t begin = at_;
    if (Peek() == '-') ++at_;
    if (!absl::ascii_isdigit(Peek())) return Fail("no JSON value");
    if (Peek() == '0' && at_ + 1 < text_.size() && absl::ascii_isdigit(text_[at_ + 1]))
      return Fail("a number starts with 0");
    while (absl::ascii_isdigit(Peek())) ++at_;
    value->kind = Value::Kind::kInteger;
    if (Peek() == '.') {
      value->kind = Value::Kind::kReal;
      ++at_;
      if (!absl::ascii_isdigit(Peek())) return Fail("no digit after the point");
      while (absl::ascii_isdigit(Peek())) ++at_;
    }
    if (Peek() == 'e' || Peek() == 'E') {
      value->kind = Value::Kind::kReal;
      ++at_;
      if (Peek() == '+' || Peek() == '-') ++at_;
      if (!absl::ascii_isdigit(Peek())) return Fail("no digit in the exponent");
      while (absl::ascii_isdigit(Peek())) ++at_;
    }
    value->text = text_.substr(begin, at_ - begin);
    if (value->kind == Value::Kind::kReal && !std::isfinite(std::strtod(value->text.c_str(), nullptr)))
      return Fail("a number beyond double");
    if (value->text == "-0") value->text = "0";
    return true;
  }

  bool ParseHex(unsigned* code) {
    *code = 0;
    for (int i = 0; i < 4; ++i, ++at_) {
      const char c = Peek();
      const int digit = absl::ascii_isdigit(c) ? c - '0'
                        : c >= 'a' && c <= 'f' ? c - 'a' + 10
                        : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                               : -1;
      if (digit < 0) return Fail("four hexadecimal digits expected");
      *code = *code << 4 | static_cast<unsigned>(digit);
    }
    return true;
  }

  bool ParseEscape(std::string* out) {
    ++at_;  // the backslash
    const char c = Peek();
    ++at_;
    constexpr std::string_view kNames = "\"\\/bfnrt", kCharacters = "\"\\/\b\f\n\r\t";
    if (const size_t i = kNames.find(c); i != std::string_view::npos && c != '\0') {
      out->push_back(kCharacters[i]);
      return true;
    }
    if (c != 'u') return Fail("unknown escape");
    unsigned code;
    if (!ParseHex(&code)) return false;
    if (code >= 0xD800 && code <= 0xDBFF) {
      unsigned low;
      if (text_.substr(at_, 2) != "\\u") return Fail("lone surrogate");
      at_ += 2;
      if (!ParseHex(&low)) return false;
      if (low < 0xDC00 || low > 0xDFFF) return Fail("lone surrogate");
      code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
    } else if (code >= 0xDC00 && code <= 0xDFFF) {
      return Fail("lone surrogate");
    }
    AppendUtf8(code, out);
    return true;
  }

  bool ParseString(std::string* out) {
    ++at_;  // the quote
    while (at_ < text_.size()) {
      const char c = text_[at_];
      if (c == '"') {
        ++at_;
        return true;
      }
      if (static_cast<uint8_t>(c) < 0x20) return Fail("a control character in a string");
      if (c == '\\') {
        if (!ParseEscape(out)) return false;
        continue;
      }
      const size_t length = Utf8Length(text_, at_);
      if (length == 0) return Fail("invalid UTF-8");
      out->append(text_.substr(at_, length));
      at_ += length;
    }
    return Fail("a string without its end");
  }

  bool ParseArray(Value* value, int depth) {
    value->kind = Value::Kind::kArray;
    ++at_;
    SkipSpace();
    if (Peek() == ']') return ++at_, true;
    while (true) {
      SkipSpace();
      if (!ParseAny(&value->items.emplace_back(), depth + 1)) return false;
      SkipSpace();
      const char c = Peek();
      if (c != ',' && c != ']') return Fail("',' or ']' expected");
      ++at_;
      if (c == ']') return true;
    }
  }

  bool ParseObject(Value* value, int depth) {
    value->kind = Value::Kind::kObject;
    ++at_;
    SkipSpace();
    if (Peek() == '}') return ++at_, true;
    while (true) {
      SkipSpace();
      if (Peek() != '"') return Fail("a key expected");
      if (!ParseString(&value->keys.emplace_back())) return false;
      SkipSpace();
      if (Peek() != ':') return Fail("':' expected");
      ++at_;
      SkipSpace();
      if (!ParseAny(&value->items.emplace_back(), depth + 1)) return false;
      SkipSpace();
      const char c = Peek();
      if (c != ',' && c != '}') return Fail("',' or '}' expected");
      ++at_;
      if (c == '}') break;
    }
    std::vector<std::string_view> sorted(value->keys.begin(), value->keys.end());
    std::sort(sorted.begin(), sorted.end());
    if (std::adjacent_find(sorted.begin(), sorted.end()) != sorted.end()) return Fail("a key is there twice");
    return true;
  }

  std::string_view text_;
  size_t at_ = 0;
  const char* why_ = "";
};

void PrintString(std::string_view text, std::string* out) {
  constexpr char kHex[] = "0123456789abcdef";
  const auto escape = [&](unsigned code) {
    *out += "\\u";
    for (int shift = 12; shift >= 0; shift -= 4) out->push_back(kHex[code >> shift & 15]);
  };
  out->push_back('"');
  for (size_t i = 0; i < text.size();) {
    const auto c = static_cast<uint8_t>(text[i]);
    const size_t length = Utf8Length(text, i);
    if (c == '"' || c == '\\') out->push_back('\\');
    if (c >= 0x20 && c < 0x7F) {
      out->push_back(text[i++]);
      continue;
    }
    unsigned code = length == 1 ? c : length == 2 ? c & 0x1Fu : length == 3 ? c & 0xFu : c & 7u;
    for (size_t k = 1; k < length; ++k) code = code << 6 | (static_cast<uint8_t>(text[i + k]) & 0x3F);
    if (code >= 0x10000) {
      escape(0xD800 + ((code - 0x10000) >> 10));
      escape(0xDC00 + ((code - 0x10000) & 0x3FF));
    } else {
      escape(code);
    }
    i += length;
  }
  out->push_back('"');
}

void Print(const Value& value, std::string* out) {
  switch (value.kind) {
    case Value::Kind::kNull:
      *out += "null";
      return;
    case Value::Kind::kBool:
      *out += value.truth ? "true" : "false";
      return;
    case Value::Kind::kInteger:
    case Value::Kind::kReal:
      *out += value.text;
      return;
    case Value::Kind::kString:
      PrintString(value.text, out);
      return;
    case Value::Kind::kArray:
    case Value::Kind::kObject:
      break;
  }
  const bool object = value.kind == Value::Kind::kObject;
  out->push_back(object ? '{' : '[');
  for (size_t i = 0; i < value.items.size(); ++i) {
    if (i > 0) *out += ", ";
    if (object) {
      PrintString(value.keys[i], out);
      *out += ": ";
    }
    Print(value.items[i], out);
  }
  out->push_back(object ? '}' : ']');
}

std::vector<size_t> KeyOrder(const Value& object) {
  std::vector<size_t> order(object.keys.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return object.keys[a] < object.keys[b]; });
  return order;
}

bool IsNumber(const Value& value) {
  return value.kind == Value::Kind::kInteger || value.kind == Value::Kind::kReal;
}

bool SameNumber(const Value& expected, const Value& actual) {
  if (expected.kind == Value::Kind::kInteger && actual.kind == Value::Kind::kInteger)
    return expected.text == actual.text;
  const double a = std::strtod(expected.text.c_str(), nullptr);
  const double b = std::strtod(actual.text.c_str(), nullptr);
  if (expected.kind == Value::Kind::kInteger) {
    // A real number for an integer: the same value exactly, and only where double is exact.
    return a == b && std::fabs(a) < 9007199254740992.0;
  }
  if (!std::isfinite(b)) return false;
  return std::fabs(a - b) <= 1e-9 * std::max(1.0, std::max(std::fabs(a), std::fabs(b)));
}

}  // namespace

absl::StatusOr<Value> ParseValue(std::string_view text, std::string_view source) {
  Value value;
  Parser parser(text);
  if (parser.Parse(&value)) return value;
  return DamagedError(Concat(source, ": ", parser.why(), " at byte ", parser.at(),
                             "; the text is not JSON; repair or remove it"));
}

std::string PrintValue(const Value& value) {
  std::string out;
  Print(value, &out);
  return out;
}

bool SameValue(const Value& expected, const Value& actual) {
  if (IsNumber(expected) && IsNumber(actual)) return SameNumber(expected, actual);
  if (expected.kind != actual.kind) return false;
  if (expected.items.size() != actual.items.size()) return false;
  switch (expected.kind) {
    case Value::Kind::kBool:
      return expected.truth == actual.truth;
    case Value::Kind::kString:
      return expected.text == actual.text;
    case Value::Kind::kArray:
      for (size_t i = 0; i < expected.items.size(); ++i)
        if (!SameValue(expected.items[i], actual.items[i])) return false;
      return true;
    case Value::Kind::kObject: {
      const std::vector<size_t> a = KeyOrder(expected), b = KeyOrder(actual);
      for (size_t i = 0; i < a.size(); ++i) {
        if (expected.keys[a[i]] != actual.keys[b[i]]) return false;
        if (!SameValue(expected.items[a[i]], actual.items[b[i]])) return false;
      }
      return true;
    }
    default:
      return true;
  }
}

const Value* Member(const Value& object, std::string_view key) {
  for (size_t i = 0; i < object.keys.size(); ++i)
    if (object.keys[i] == key) return &object.items[i];
  return nullptr;
}

}  // namespace moebius::sandbox
