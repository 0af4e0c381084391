#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <optional>

#include "absl/strings/escaping.h"
#include "core/base/nearest.h"
#include "core/base/status.h"
#include "core/base/strings.h"
#include "launch/textproto.h"

namespace moebius {
namespace {

namespace pb = google::protobuf;
using Field = pb::FieldDescriptor;

template <typename T>
bool ParseWhole(std::string_view text, T* value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *value);
  return error == std::errc() && end == text.data() + text.size() && !text.empty();
}

// Also "1e3" and "2.5e6": people write step and token counts so.
template <typename T>
bool ParseInteger(std::string_view text, T* value) {
  if (ParseWhole(text, value)) return true;
  double number = 0;
  if (!ParseWhole(text, &number) || number != std::floor(number) || std::fabs(number) > 0x1p53) return false;
  if (number < 0 && std::is_unsigned_v<T>) return false;
  *value = static_cast<T>(number);
  return static_cast<double>(*value) == number;
}

struct PathPart {
  std::string name;
  std::optional<int> index;
};

class Override {
 public:
  Override(std::string_view assignment, pb::Message* root, Origins* origins)
      : shown_(Concat("--set ", Printable(assignment, 120))),
        root_(*root),
        message_(root),
        origins_(origins) {
    const size_t equals = assignment.find('=');
    has_value_ = equals != std::string_view::npos;
    path_ = assignment.substr(0, equals);
    if (has_value_) value_ = assignment.substr(equals + 1);
  }

  absl::Status Apply() {
    if (!has_value_ || path_.empty()) {
      return UsageError(Concat(shown_, "; it is not of the form FIELD=VALUE; write --set optimizer.lr=1e-3"));
    }
    std::string_view rest = path_;
    while (true) {
      const size_t dot = rest.find('.');
      RETURN_IF_ERROR(Step(rest.substr(0, dot), dot == std::string_view::npos));
      if (dot == std::string_view::npos) return absl::OkStatus();
      rest.remove_prefix(dot + 1);
    }
  }

 private:
  absl::Status Fail(std::string_view why, std::string_view what_to_do) const {
    return UsageError(Concat(shown_, "; ", why, "; ", what_to_do));
  }

  static bool Split(std::string_view text, PathPart* part) {
    const size_t bracket = text.find('[');
    part->name = text.substr(0, bracket);
    if (bracket == std::string_view::npos) return true;
    int index = 0;
    if (text.back() != ']' || !ParseWhole(text.substr(bracket + 1, text.size() - bracket - 2), &index) ||
        index < 0) {
      return false;
    }
    part->index = index;
    return true;
  }

  // One part of the path: goes down, or sets the last one.
  absl::Status Step(std::string_view text, bool last) {
    PathPart part;
    if (!Split(text, &part))
      return Fail(Concat("'", Printable(text), "' is no field name"), "write NAME or NAME[0]");
    const Field* field = message_->GetDescriptor()->FindFieldByName(part.name);
    if (field != nullptr && at_.empty() && part.name == "include") {
      return Fail("include cannot be set; files are included before --set is applied",
                  "write the include into the recipe");
    }
    if (field == nullptr) {
      return Fail(
          Concat(SuggestField(*root_.GetDescriptor(), plain_, part.name),
                 plain_.empty() ? "the recipe" : plain_, " has no field '", Printable(part.name), "'"),
          "correct the name");
    }
    const std::string dot = at_.empty() ? "" : ".";
    plain_ += dot + part.name;
    at_ += dot + part.name;
    if (part.index && !field->is_repeated()) return Fail(at_ + " is no list", "leave the index out");
    if (last) return SetLast(field, part.index);
    if (field->message_type() == nullptr)
      return Fail(at_ + " is a value", "nothing can follow it; remove the rest");
    const pb::Reflection& reflection = *message_->GetReflection();
    if (!field->is_repeated()) {
      message_ = reflection.MutableMessage(message_, field);
      return absl::OkStatus();
    }
    if (!part.index) return Fail(at_ + " is a list", Concat("name the element: ", at_, "[0]"));
    RETURN_IF_ERROR(GrowTo(field, *part.index));
    at_ += Concat("[", *part.index, "]");
    message_ = reflection.MutableRepeatedMessage(message_, field, *part.index);
    return absl::OkStatus();
  }

  // Makes element `index` exist; only the one after the last can be new.
  absl::Status GrowTo(const Field* field, int index) {
    const pb::Reflection& reflection = *message_->GetReflection();
    const int size = reflection.FieldSize(*message_, field);
    if (index < size) return absl::OkStatus();
    if (index > size)
      return Fail(Concat(at_, " has ", size, " elements"), Concat("the next index is ", size));
    if (field->message_type() != nullptr) {
      reflection.AddMessage(message_, field);
    } else {
      AddEmpty(field);
    }
    return absl::OkStatus();
  }

  void AddEmpty(const Field* field) {
    const pb::Reflection& r = *message_->GetReflection();
    switch (field->cpp_type()) {
      case Field::CPPTYPE_INT32:
        return r.AddInt32(message_, field, 0);
      case Field::CPPTYPE_INT64:
        return r.AddInt64(message_, field, 0);
      case Field::CPPTYPE_UINT32:
        return r.AddUInt32(message_, field, 0);
      case Field::CPPTYPE_UINT64:
        return r.AddUInt64(message_, field, 0);
      case Field::CPPTYPE_DOUBLE:
        return r.AddDouble(message_, field, 0);
      case Field::CPPTYPE_FLOAT:
        return r.AddFloat(message_, field, 0);
      case Field::CPPTYPE_BOOL:
        return r.AddBool(message_, field, false);
      case Field::CPPTYPE_ENUM:
        return r.AddEnum(message_, field, field->enum_type()->value(0));
      case Field::CPPTYPE_STRING:
        return r.AddString(message_, field, "");
      case Field::CPPTYPE_MESSAGE:
        r.AddMessage(message_, field);
    }
  }

  absl::Status SetLast(const Field* field, std::optional<int> index) {
    const bool text_form =
        field->message_type() != nullptr || (field->is_repeated() && !index && value_.starts_with("["));
    if (text_form) return SetFromText(field, index);
    int at_index = -1;
    if (field->is_repeated()) {
      if (!index) ForgetRecipeList(field);
      at_index = index.value_or(message_->GetReflection()->FieldSize(*message_, field));
      RETURN_IF_ERROR(GrowTo(field, at_index));
    }
    RETURN_IF_ERROR(SetValue(field, at_index));
    (*origins_)[at_index < 0 ? at_ : Concat(at_, "[", at_index, "]")] = shown_;
    return absl::OkStatus();
  }

  // The first --set of a list replaces what the recipe says, the next ones extend it.
  void ForgetRecipeList(const Field* field) {
    const std::string prefix = at_ + "[";
    const bool ours = std::any_of(origins_->begin(), origins_->end(), [&](const auto& entry) {
      return entry.first.starts_with(prefix) && entry.second.starts_with("--set ");
    });
    if (ours) return;
    message_->GetReflection()->ClearField(message_, field);
    std::erase_if(*origins_, [&](const auto& entry) { return entry.first.starts_with(prefix); });
  }

  // {...} and [...]: parsed as protobuf text of this one field, then merged like a layer of the recipe.
  absl::Status SetFromText(const Field* field, std::optional<int> index) {
    if (!value_.starts_with("{") && !value_.starts_with("[")) {
      return Fail(at_ + " is a section", Concat("set one of its fields, ", at_, ".", FirstField(field),
                                                "=..., or write ", at_, "={...}"));
    }
    if (index) return Fail("an element cannot be set as a whole", "set its fields one by one");
    const std::string text = Concat(field->name(), ": ", value_);
    const std::unique_ptr<pb::Message> layer(message_->New());
    Origins local;
    RETURN_IF_ERROR(Annotate(ParseTextproto(text, "--set", layer.get(), &local), shown_));
    const pb::Reflection& reflection = *message_->GetReflection();
    std::vector<const Field*> set;
    reflection.ListFields(*layer, &set);
    for (const Field* other : set) {
      if (other == field) continue;
      return Fail(Concat("behind the value of ", at_, " stands ", other->name()),
                  "one --set sets one field; repeat it");
    }
    int offset = 0;
    if (field->is_repeated()) {
      ForgetRecipeList(field);
      offset = reflection.FieldSize(*message_, field);
      message_->MergeFrom(*layer);
    } else {  // lists in it replace the recipe's
      local.clear();
      RETURN_IF_ERROR(Annotate(ParseTextproto(text, "--set", message_, &local), shown_));
    }
    const std::string parent = at_.substr(0, at_.size() - field->name().size());
    for (const auto& [path, unused] : local) {
      std::string shifted = path;
      if (field->is_repeated()) {
        const size_t open = path.find('['), close = path.find(']');
        shifted =
            Concat(path.substr(0, open + 1), std::stoi(path.substr(open + 1)) + offset, path.substr(close));
      }
      (*origins_)[parent + shifted] = shown_;
    }
    return absl::OkStatus();
  }

  static std::string FirstField(const Field* field) {
    return field->message_type() != nullptr && field->message_type()->field_count() > 0
               ? field->message_type()->field(0)->name()
               : "FIELD";
  }

  absl::Status NotA(std::string_view kind) const {
    return Fail(Concat(at_, " takes ", kind), "correct the value");
  }

  template <typename T, typename Set, typename SetRepeated>
  absl::Status SetInteger(const Field* field, int k, Set set, SetRepeated set_repeated) {
    T value{};
    if (!ParseInteger(value_, &value))
      return NotA(std::is_unsigned_v<T> ? "a whole number of at least 0" : "a whole number");
    const pb::Reflection& r = *message_->GetReflection();
    k < 0 ? (r.*set)(message_, field, value) : (r.*set_repeated)(message_, field, k, value);
    return absl::OkStatus();
  }

  absl::Status SetValue(const Field* field, int k) {
    using R = pb::Reflection;
    const R& r = *message_->GetReflection();
    switch (field->cpp_type()) {
      case Field::CPPTYPE_INT32:
        return SetInteger<int32_t>(field, k, &R::SetInt32, &R::SetRepeatedInt32);
      case Field::CPPTYPE_INT64:
        return SetInteger<int64_t>(field, k, &R::SetInt64, &R::SetRepeatedInt64);
      case Field::CPPTYPE_UINT32:
        return SetInteger<uint32_t>(field, k, &R::SetUInt32, &R::SetRepeatedUInt32);
      case Field::CPPTYPE_UINT64:
        return SetInteger<uint64_t>(field, k, &R::SetUInt64, &R::SetRepeatedUInt64);
      case Field::CPPTYPE_DOUBLE:
      case Field::CPPTYPE_FLOAT: {
        double value = 0;
        if (!ParseWhole(value_, &value)) return NotA("a number");
        if (field->cpp_type() == Field::CPPTYPE_FLOAT) {
          k < 0 ? r.SetFloat(message_, field, static_cast<float>(value))
                : r.SetRepeatedFloat(message_, field, k, static_cast<float>(value));
        } else {
          k < 0 ? r.SetDouble(message_, field, value) : r.SetRepeatedDouble(message_, field, k, value);
        }
        return absl::OkStatus();
      }
      case Field::CPPTYPE_BOOL: {
        const bool on = value_ == "true" || value_ == "1";
        if (!on && value_ != "false" && value_ != "0") return NotA("true or false");
        k < 0 ? r.SetBool(message_, field, on) : r.SetRepeatedBool(message_, field, k, on);
        return absl::OkStatus();
      }
      case Field::CPPTYPE_ENUM:
        return SetEnum(field, k);
      default:
        return SetString(field, k);
    }
  }

  absl::Status SetString(const Field* field, int k) {
    std::string value(value_);
    // In quotation marks as in a recipe, where "\n" is a line end.
    if (value.size() >= 2 && value.front() == '"' && value.back() == '"') {
      std::string error;
      if (!absl::CUnescape({value_.data() + 1, value_.size() - 2}, &value, &error))
        return Fail(Concat(error, " in the text"), "write \\\\ for a backslash");
    }
    const pb::Reflection& r = *message_->GetReflection();
    k < 0 ? r.SetString(message_, field, value) : r.SetRepeatedString(message_, field, k, value);
    return absl::OkStatus();
  }

  absl::Status SetEnum(const Field* field, int k) {
    std::string upper(value_);
    std::transform(upper.begin(), upper.end(), upper.begin(),
                   [](unsigned char c) { return std::toupper(c); });
    const pb::EnumValueDescriptor* value = field->enum_type()->FindValueByName(upper);
    if (value == nullptr) {
      std::vector<std::string> names;
      for (int i = 0; i < field->enum_type()->value_count(); ++i)
        names.push_back(field->enum_type()->value(i)->name());
      const std::string nearest = upper.size() > 3 ? Nearest(upper, names) : "";  // GPU is no CPU
      return Fail(
          Concat(nearest.empty() ? "" : "did you mean " + nearest + "? ", at_, " is one of ", Join(names)),
          "correct the value");
    }
    const pb::Reflection& r = *message_->GetReflection();
    k < 0 ? r.SetEnum(message_, field, value) : r.SetRepeatedEnum(message_, field, k, value);
    return absl::OkStatus();
  }

  const std::string shown_;
  const pb::Message& root_;
  pb::Message* message_;
  Origins* origins_;
  std::string_view path_, value_;
  bool has_value_ = false;
  std::string at_;     // with indices
  std::string plain_;  // without
};

}  // namespace

absl::Status ApplyOverride(std::string_view assignment, pb::Message* message, Origins* origins) {
  return Override(assignment, message, origins).Apply();
}

}  // namespace moebius
