#include "core/io/json.h"

#include <cmath>
#include <iterator>
#include <nlohmann/json.hpp>
#include <utility>

#include "core/base/status.h"
#include "core/base/strings.h"
#include "core/io/file.h"
#include "core/io/git_lfs.h"

namespace moebius {
namespace {

using Json = nlohmann::json;

// "line 3, column 7" of the byte before `offset` (the parser reports how many bytes it has read).
std::string LineAndColumn(std::string_view text, size_t offset) {
  offset = std::min(offset, text.size());
  size_t line = 1, start = 0;
  for (size_t i = 0; i + 1 < offset; ++i) {
    if (text[i] == '\n') {
      ++line;
      start = i + 1;
    }
  }
  return Concat("line ", line, ", column ", offset > start ? offset - start : 1);
}

// Input iterator that leaves a note of how far the lexer has read, for errors found in the handler.
struct CountingIterator {
  using iterator_category = std::input_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = const char*;
  using reference = const char&;

  const char* at;
  const char** reached;

  reference operator*() const { return *at; }
  CountingIterator& operator++() {
    *reached = ++at;
    return *this;
  }
  CountingIterator operator++(int) {
    CountingIterator before = *this;
    ++*this;
    return before;
  }
  bool operator==(const CountingIterator& other) const { return at == other.at; }
  bool operator!=(const CountingIterator& other) const { return at != other.at; }
};

// Builds the value while it checks depth and duplicate keys; the first error stops the parser.
class Builder {
 public:
  explicit Builder(Json* root) : root_(root) {}

  bool null() { return Put(Json(nullptr)); }
  bool boolean(bool value) { return Put(Json(value)); }
  bool number_integer(int64_t value) { return Put(Json(value)); }
  bool number_unsigned(uint64_t value) { return Put(Json(value)); }
  bool number_float(double value, const std::string& text) {
    if (!std::isfinite(value)) return Fail(Concat("number ", Printable(text), " is out of range"));
    return Put(Json(value));
  }
  bool string(std::string& value) { return Put(Json(std::move(value))); }
  bool binary(Json::binary_t&) { return Fail("binary value"); }
  bool start_object(size_t) { return Open(Json::object()); }
  bool start_array(size_t) { return Open(Json::array()); }
  bool end_object() { return Close(); }
  bool end_array() { return Close(); }
  bool key(std::string& name) {
    Json& object = *open_.back();
    if (object.contains(name)) return Fail(Concat("key \"", Printable(name), "\" appears twice"));
    member_ = &(object[name] = nullptr);
    return true;
  }
  // nlohmann's text is "[json.exception.parse_error.101] parse error at line 1, column 2: what is wrong".
  bool parse_error(size_t position, const std::string&, const nlohmann::detail::exception& error) {
    std::string_view what = error.what();
    const size_t column = what.find("column ");
    const size_t colon = column == std::string_view::npos ? column : what.find(": ", column);
    if (colon != std::string_view::npos) {
      what.remove_prefix(colon + 2);
    } else if (const size_t bracket = what.find("] "); bracket != std::string_view::npos) {
      what.remove_prefix(bracket + 2);
    }
    position_ = position;
    return Fail(Printable(what, 200));
  }

  const std::string& error() const { return error_; }
  size_t position() const { return position_; }  // 0: where the iterator stands

 private:
  bool Fail(std::string what) {
    if (error_.empty()) error_ = std::move(what);
    return false;
  }
  Json* Place(Json&& value) {
    if (open_.empty()) return &(*root_ = std::move(value));
    if (open_.back()->is_array()) {
      open_.back()->push_back(std::move(value));
      return &open_.back()->back();
    }
    return &(*member_ = std::move(value));
  }
  bool Put(Json&& value) {
    Place(std::move(value));
    return true;
  }
  bool Open(Json&& value) {
    if (open_.size() >= kMaxJsonDepth) return Fail(Concat("nested deeper than ", kMaxJsonDepth, " levels"));
    open_.push_back(Place(std::move(value)));
    return true;
  }
  bool Close() {
    open_.pop_back();
    return true;
  }

  Json* root_;
  std::vector<Json*> open_;  // containers from the root to the current one
  Json* member_ = nullptr;   // the member that `key` announced
  std::string error_;
  size_t position_ = 0;
};

template <typename J>
std::string Dump(const J& value, int indent) {
  return value.dump(indent, ' ', false, J::error_handler_t::replace);
}

std::string Field(std::string_view field, const std::string& source) {
  return Concat(source, ": field \"", Printable(field), "\"");
}

absl::StatusOr<const Json*> Find(const Json& object, std::string_view field, const std::string& source) {
  if (!object.is_object()) {
    return DamagedError(Concat(source, ": is ", DescribeJson(object), ", expected an object with field \"",
                               Printable(field), "\""));
  }
  const auto found = object.find(std::string(field));
  if (found == object.end()) return DamagedError(Concat(Field(field, source), " is missing"));
  return &*found;
}

absl::Status WrongKind(const std::string& where, const Json& value, std::string_view expected) {
  return DamagedError(Concat(where, " is ", DescribeJson(value), ", expected ", expected));
}

absl::StatusOr<int64_t> ToInt(const Json& value, const std::string& where, int64_t min, int64_t max) {
  const bool too_large = value.is_number_unsigned() &&
                         value.get<uint64_t>() > static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
  if (!value.is_number_integer() || too_large) return WrongKind(where, value, "an integer");
  const int64_t number = value.get<int64_t>();
  if (number < min || number > max) {
    return DamagedError(Concat(where, " is ", number, ", outside ", min, " to ", max));
  }
  return number;
}

absl::StatusOr<double> ToDouble(const Json& value, const std::string& where, double min, double max) {
  if (!value.is_number()) return WrongKind(where, value, "a number");
  const double number = value.get<double>();
  if (!(number >= min && number <= max)) {
    return DamagedError(Concat(where, " is ", number, ", outside ", min, " to ", max));
  }
  return number;
}

absl::StatusOr<std::string> ToString(const Json& value, const std::string& where) {
  if (!value.is_string()) return WrongKind(where, value, "a string");
  return value.get<std::string>();
}

// Applies `convert(element, where)` to every element of the array `field`.
template <typename T, typename Convert>
absl::StatusOr<std::vector<T>> Elements(const Json& object, std::string_view field, const std::string& source,
                                        const Convert& convert) {
  ASSIGN_OR_RETURN(const Json* array, GetArray(object, field, source));
  std::vector<T> out;
  out.reserve(array->size());
  for (const Json& element : *array) {
    auto value = convert(element);
    if (!value.ok()) {
      return Annotate(value.status(), Concat(Field(field, source), ", element ", out.size()));
    }
    out.push_back(std::move(value).value());
  }
  return out;
}

}  // namespace

absl::StatusOr<Json> ParseJson(std::string_view text, const std::string& source) {
  if (IsGitLfsPointer(text)) return GitLfsPointerError(source);
  Json root;
  Builder builder(&root);
  const char* reached = text.data();
  try {
    const CountingIterator first{text.data(), &reached}, last{text.data() + text.size(), &reached};
    if (Json::sax_parse(first, last, &builder)) return root;
  } catch (const std::exception& error) {
    return DamagedError(Concat(source, ": not JSON: ", Printable(error.what(), 200)));
  }
  const size_t offset = builder.position() > 0 ? builder.position() : reached - text.data();
  std::string error = builder.error().empty() ? "parse error" : builder.error();
  std::replace(error.begin(), error.end(), ';', ',');  // advice may follow behind one
  return DamagedError(Concat(source, ": not JSON we accept: ", LineAndColumn(text, offset), ": ", error));
}

absl::StatusOr<Json> ReadJsonFile(const std::string& path, int64_t max_bytes) {
  ASSIGN_OR_RETURN(const std::string text, ReadFile(path, max_bytes));
  return ParseJson(text, path);
}

std::string DumpJson(const Json& value, int indent) { return Dump(value, indent); }
std::string DumpJson(const nlohmann::ordered_json& value, int indent) { return Dump(value, indent); }

std::string DescribeJson(const Json& value) {
  if (value.is_array()) return Concat("array of ", value.size());
  if (value.is_object()) return Concat("object with ", value.size(), " members");
  if (value.is_null()) return "null";
  return Concat(value.type_name(), " ", Printable(DumpJson(value), 60));
}

bool HasJsonField(const Json& object, std::string_view field) {
  if (!object.is_object()) return false;
  const auto found = object.find(std::string(field));
  return found != object.end() && !found->is_null();
}

absl::StatusOr<int64_t> GetInt(const Json& object, std::string_view field, const std::string& source,
                               int64_t min, int64_t max) {
  ASSIGN_OR_RETURN(const Json* value, Find(object, field, source));
  return ToInt(*value, Field(field, source), min, max);
}

absl::StatusOr<double> GetDouble(const Json& object, std::string_view field, const std::string& source,
                                 double min, double max) {
  ASSIGN_OR_RETURN(const Json* value, Find(object, field, source));
  return ToDouble(*value, Field(field, source), min, max);
}

absl::StatusOr<bool> GetBool(const Json& object, std::string_view field, const std::string& source) {
  ASSIGN_OR_RETURN(const Json* value, Find(object, field, source));
  if (!value->is_boolean()) return WrongKind(Field(field, source), *value, "true or false");
  return value->get<bool>();
}

absl::StatusOr<std::string> GetString(const Json& object, std::string_view field, const std::string& source) {
  ASSIGN_OR_RETURN(const Json* value, Find(object, field, source));
  return ToString(*value, Field(field, source));
}

absl::StatusOr<const Json*> GetObject(const Json& object, std::string_view field, const std::string& source) {
  ASSIGN_OR_RETURN(const Json* value, Find(object, field, source));
  if (!value->is_object()) return WrongKind(Field(field, source), *value, "an object");
  return value;
}

absl::StatusOr<const Json*> GetArray(const Json& object, std::string_view field, const std::string& source) {
  ASSIGN_OR_RETURN(const Json* value, Find(object, field, source));
  if (!value->is_array()) return WrongKind(Field(field, source), *value, "an array");
  return value;
}

absl::StatusOr<std::vector<int64_t>> GetIntArray(const Json& object, std::string_view field,
                                                 const std::string& source, int64_t min, int64_t max) {
  return Elements<int64_t>(object, field, source,
                           [&](const Json& element) { return ToInt(element, "value", min, max); });
}

absl::StatusOr<std::vector<double>> GetDoubleArray(const Json& object, std::string_view field,
                                                   const std::string& source) {
  constexpr double kMax = std::numeric_limits<double>::max();
  return Elements<double>(object, field, source,
                          [&](const Json& element) { return ToDouble(element, "value", -kMax, kMax); });
}

absl::StatusOr<std::vector<std::string>> GetStringArray(const Json& object, std::string_view field,
                                                        const std::string& source) {
  return Elements<std::string>(object, field, source,
                               [](const Json& element) { return ToString(element, "value"); });
}

absl::StatusOr<int64_t> GetIntOr(const Json& object, std::string_view field, int64_t otherwise,
                                 const std::string& source, int64_t min, int64_t max) {
  if (object.is_object() && !HasJsonField(object, field)) return otherwise;
  return GetInt(object, field, source, min, max);
}

absl::StatusOr<double> GetDoubleOr(const Json& object, std::string_view field, double otherwise,
                                   const std::string& source, double min, double max) {
  if (object.is_object() && !HasJsonField(object, field)) return otherwise;
  return GetDouble(object, field, source, min, max);
}

absl::StatusOr<bool> GetBoolOr(const Json& object, std::string_view field, bool otherwise,
                               const std::string& source) {
  if (object.is_object() && !HasJsonField(object, field)) return otherwise;
  return GetBool(object, field, source);
}

absl::StatusOr<std::string> GetStringOr(const Json& object, std::string_view field,
                                        const std::string& otherwise, const std::string& source) {
  if (object.is_object() && !HasJsonField(object, field)) return otherwise;
  return GetString(object, field, source);
}

}  // namespace moebius
