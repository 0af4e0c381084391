#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>
#include <google/protobuf/text_format.h>

#include <cmath>
#include <cstdint>

#include "core/base/strings.h"
#include "launch/textproto.h"

namespace moebius {
namespace {

namespace pb = google::protobuf;
using Field = pb::FieldDescriptor;

constexpr size_t kOriginColumn = 50;

class Printer {
 public:
  explicit Printer(const Origins& origins) : origins_(origins) {}

  std::string Body(const pb::Message& message, const std::string& path, int indent) const {
    std::string out;
    const pb::Descriptor& type = *message.GetDescriptor();
    const pb::Reflection& reflection = *message.GetReflection();
    for (int i = 0; i < type.field_count(); ++i) {
      const Field* field = type.field(i);
      const std::string at = path.empty() ? field->name() : path + "." + field->name();
      const int count = field->is_repeated() ? reflection.FieldSize(message, field) : 1;
      for (int k = 0; k < count; ++k) {
        const std::string element = field->is_repeated() ? Concat(at, "[", k, "]") : at;
        if (field->message_type() != nullptr) {
          out += Nested(message, field, field->is_repeated() ? k : -1, element, indent);
        } else if (field->is_repeated() || reflection.HasField(message, field) ||
                   field->has_default_value()) {
          out += Leaf(message, field, field->is_repeated() ? k : -1, element, indent);
        }
      }
    }
    return out;
  }

 private:
  std::string Nested(const pb::Message& message, const Field* field, int index, const std::string& path,
                     int indent) const {
    const pb::Reflection& reflection = *message.GetReflection();
    const pb::Message& child = index < 0 ? reflection.GetMessage(message, field)
                                         : reflection.GetRepeatedMessage(message, field, index);
    const std::string body = Body(child, path, indent + 2);
    // A section that is absent and has no defaults says nothing.
    if (body.empty() && index < 0 && !reflection.HasField(message, field)) return "";
    // What nobody has set is for the reader: read again, it is not set either.
    std::string margin(indent, ' ');
    if (index < 0 && !reflection.HasField(message, field)) margin += "# ";
    return margin + field->name() + " {\n" + body + margin + "}\n";
  }

  std::string Leaf(const pb::Message& message, const Field* field, int index, const std::string& path,
                   int indent) const {
    std::string value;
    pb::TextFormat::Printer printer;
    printer.SetUseUtf8StringEscaping(true);
    printer.PrintFieldValueToString(message, field, index, &value);
    const bool unset = index < 0 && !message.GetReflection()->HasField(message, field);
    std::string line = std::string(indent, ' ') + (unset ? "# " : "") + field->name() + ": " + value;
    line.resize(std::max(line.size() + 2, kOriginColumn), ' ');
    const auto origin = origins_.find(path);
    return line + "# " + (origin == origins_.end() ? "default" : Printable(origin->second, 200)) + "\n";
  }

  const Origins& origins_;
};

class RangeChecker {
 public:
  RangeChecker(const Origins& origins, const std::vector<NumberRange>& ranges,
               std::vector<std::string>* errors)
      : origins_(origins), ranges_(ranges), errors_(errors) {}

  // `path` with indices for messages, `plain` without for the table.
  void Check(const pb::Message& message, const std::string& path, const std::string& plain) {
    const pb::Reflection& reflection = *message.GetReflection();
    std::vector<const Field*> fields;
    reflection.ListFields(message, &fields);
    for (const Field* field : fields) {
      const std::string dot = path.empty() ? "" : ".";
      const std::string at = path + dot + field->name(), bare = plain + dot + field->name();
      const int count = field->is_repeated() ? reflection.FieldSize(message, field) : 1;
      for (int k = 0; k < count; ++k) {
        const std::string element = field->is_repeated() ? Concat(at, "[", k, "]") : at;
        if (field->message_type() != nullptr) {
          Check(field->is_repeated() ? reflection.GetRepeatedMessage(message, field, k)
                                     : reflection.GetMessage(message, field),
                element, bare);
        } else {
          CheckNumber(message, field, field->is_repeated() ? k : -1, element, bare);
        }
      }
    }
  }

 private:
  static bool NumberOf(const pb::Message& message, const Field* field, int k, double* value) {
    const pb::Reflection& r = *message.GetReflection();
    switch (field->cpp_type()) {
      case Field::CPPTYPE_INT32:
        *value = k < 0 ? r.GetInt32(message, field) : r.GetRepeatedInt32(message, field, k);
        return true;
      case Field::CPPTYPE_UINT32:
        *value = k < 0 ? r.GetUInt32(message, field) : r.GetRepeatedUInt32(message, field, k);
        return true;
      case Field::CPPTYPE_INT64:
        *value =
            static_cast<double>(k < 0 ? r.GetInt64(message, field) : r.GetRepeatedInt64(message, field, k));
        return true;
      case Field::CPPTYPE_UINT64:
        *value =
            static_cast<double>(k < 0 ? r.GetUInt64(message, field) : r.GetRepeatedUInt64(message, field, k));
        return true;
      case Field::CPPTYPE_DOUBLE:
        *value = k < 0 ? r.GetDouble(message, field) : r.GetRepeatedDouble(message, field, k);
        return true;
      case Field::CPPTYPE_FLOAT:
        *value = k < 0 ? r.GetFloat(message, field) : r.GetRepeatedFloat(message, field, k);
        return true;
      default:
        return false;
    }
  }

  static std::string Shown(double bound) {
    if (bound == std::floor(bound) && std::fabs(bound) < 1e15)
      return std::to_string(static_cast<int64_t>(bound));
    return Concat(bound);
  }

  void CheckNumber(const pb::Message& message, const Field* field, int k, const std::string& path,
                   const std::string& plain) {
    double value = 0;
    if (!NumberOf(message, field, k, &value)) return;
    std::string wanted = std::isfinite(value) ? "" : "a finite number";
    for (const NumberRange& range : ranges_) {
      if (range.path != plain) continue;
      // Written so that NaN fails.
      const bool inside =
          value >= range.min &&
          (range.below_max ? static_cast<float>(value) < static_cast<float>(range.max) : value <= range.max);
      if (!inside) {
        wanted = Concat("from ", Shown(range.min), range.below_max ? " to below " : " to ", Shown(range.max));
      }
    }
    if (wanted.empty()) return;
    std::string text;
    pb::TextFormat::PrintFieldValueToString(message, field, k, &text);
    errors_->push_back(Concat(OriginPrefix(origins_, path), path, " is ", text, "; it must be ", wanted,
                              "; correct the value"));
  }

  const Origins& origins_;
  const std::vector<NumberRange>& ranges_;
  std::vector<std::string>* errors_;
};

}  // namespace

std::string PrintTextproto(const pb::Message& message, const Origins& origins) {
  return Printer(origins).Body(message, "", 0);
}

void CheckRanges(const pb::Message& message, const Origins& origins, const std::vector<NumberRange>& ranges,
                 std::vector<std::string>* errors) {
  RangeChecker(origins, ranges, errors).Check(message, "", "");
}

}  // namespace moebius
