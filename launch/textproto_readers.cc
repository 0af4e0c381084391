// Fields that the choices of a message do not read (FieldReaders).
#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>
#include <google/protobuf/text_format.h>

#include "core/base/strings.h"
#include "launch/textproto.h"

namespace moebius {
namespace {

namespace pb = google::protobuf;
using Field = pb::FieldDescriptor;

std::string PathTo(const std::string& path, const Field* field) {
  return path.empty() ? field->name() : path + "." + field->name();
}

// "a.b.c" -> "a"; *rest = "b.c".
std::string First(const std::string& path, std::string* rest) {
  const size_t dot = path.find('.');
  *rest = dot == std::string::npos ? "" : path.substr(dot + 1);
  return path.substr(0, dot);
}

std::string ValueText(const pb::Message& message, const Field* field, int index) {
  std::string text;
  pb::TextFormat::PrintFieldValueToString(message, field, index, &text);
  return text;
}

bool IsDefault(const pb::Message& message, const Field* field) {
  const std::unique_ptr<pb::Message> empty(message.New());
  return ValueText(message, field, -1) == ValueText(*empty, field, -1);
}

// Every value below `field` of `message` that says something.
void CollectSaid(const pb::Message& message, const Field* field, const std::string& at,
                 std::vector<std::pair<std::string, std::string>>* out) {
  const pb::Reflection& reflection = *message.GetReflection();
  const int count = field->is_repeated()                  ? reflection.FieldSize(message, field)
                    : reflection.HasField(message, field) ? 1
                                                          : 0;
  for (int k = 0; k < count; ++k) {
    const std::string element = field->is_repeated() ? Concat(at, "[", k, "]") : at;
    if (field->message_type() != nullptr) {
      const pb::Message& child = field->is_repeated() ? reflection.GetRepeatedMessage(message, field, k)
                                                      : reflection.GetMessage(message, field);
      for (int i = 0; i < child.GetDescriptor()->field_count(); ++i) {
        const Field* inner = child.GetDescriptor()->field(i);
        CollectSaid(child, inner, PathTo(element, inner), out);
      }
    } else if (field->is_repeated() || !IsDefault(message, field)) {
      out->emplace_back(element, ValueText(message, field, field->is_repeated() ? k : -1));
    }
  }
}

class Unreader {
 public:
  Unreader(const FieldReaders& readers, std::vector<UnreadValue>* out) : readers_(readers), out_(out) {}

  // `field` and `chooser` are the paths from `message` on, which lies at `path`.
  void Visit(pb::Message* message, const std::string& field, const std::string& chooser,
             const std::string& path) {
    std::string field_rest, chooser_rest;
    const std::string first = First(field, &field_rest);
    const Field* descriptor = message->GetDescriptor()->FindFieldByName(first);
    if (First(chooser, &chooser_rest) == first && !chooser_rest.empty()) {
      return ForEach(message, descriptor, path, [&](pb::Message* child, const std::string& at) {
        Visit(child, field_rest, chooser_rest, at);
      });
    }
    const std::string choice = Choice(*message, chooser);
    if (!readers_.Reads(choice)) Clear(message, field, path, choice);
  }

 private:
  template <typename Body>
  static void ForEach(pb::Message* message, const Field* field, const std::string& path, const Body& body) {
    const pb::Reflection& reflection = *message->GetReflection();
    const std::string at = PathTo(path, field);
    if (!field->is_repeated()) {
      if (reflection.HasField(*message, field)) body(reflection.MutableMessage(message, field), at);
      return;
    }
    for (int k = 0; k < reflection.FieldSize(*message, field); ++k) {
      body(reflection.MutableRepeatedMessage(message, field, k), Concat(at, "[", k, "]"));
    }
  }

  // The chooser's value as the table writes it.
  std::string Choice(const pb::Message& message, const std::string& chooser) const {
    std::string rest;
    const Field* field = message.GetDescriptor()->FindFieldByName(First(chooser, &rest));
    const pb::Reflection& reflection = *message.GetReflection();
    if (!rest.empty()) return Choice(reflection.GetMessage(message, field), rest);
    if (readers_.Reads(kGiven) || readers_.Reads(kNotGiven)) {
      const bool section = field->message_type() != nullptr && !field->is_repeated();
      const bool given = section ? reflection.HasField(message, field) : !IsDefault(message, field);
      return given ? kGiven : kNotGiven;
    }
    return field->cpp_type() == Field::CPPTYPE_STRING ? reflection.GetString(message, field)
                                                      : ValueText(message, field, -1);
  }

  void Clear(pb::Message* message, const std::string& path_to_field, const std::string& path,
             const std::string& choice) {
    std::string rest;
    const Field* field = message->GetDescriptor()->FindFieldByName(First(path_to_field, &rest));
    if (!rest.empty()) {
      return ForEach(message, field, path,
                     [&](pb::Message* child, const std::string& at) { Clear(child, rest, at, choice); });
    }
    std::vector<std::pair<std::string, std::string>> said;
    CollectSaid(*message, field, PathTo(path, field), &said);
    for (auto& [at, value] : said) out_->push_back({at, value, choice, &readers_});
    message->GetReflection()->ClearField(message, field);
  }

  const FieldReaders& readers_;
  std::vector<UnreadValue>* out_;
};

}  // namespace

std::vector<UnreadValue> ClearUnread(pb::Message* message, const std::vector<FieldReaders>& readers) {
  std::vector<UnreadValue> out;
  for (const FieldReaders& each : readers) Unreader(each, &out).Visit(message, each.field, each.chooser, "");
  return out;
}

void ReportUnread(const std::vector<UnreadValue>& unread, const Origins& origins,
                  std::vector<std::string>* errors) {
  for (const UnreadValue& value : unread) {
    const FieldReaders& r = *value.readers;
    const std::string what =
        Concat(OriginPrefix(origins, value.path), value.path, " is ", Printable(value.value));
    if (r.Reads(kGiven)) {
      errors->push_back(
          Concat(what, "; nothing reads it without ", r.chooser, "; leave it out, or set ", r.chooser));
    } else if (r.Reads(kNotGiven)) {
      errors->push_back(
          Concat(what, "; nothing reads it where ", r.chooser, " is given; keep one of the two"));
    } else {
      errors->push_back(
          Concat(what, "; ", r.chooser, " ", Printable(value.choice), " does not read it, only ",
                 Join(r.choices), r.choices.size() == 1 ? " does" : " do", "; leave it out, or ",
                 value.choice == "PIPELINE"
                     ? Concat("give it to a stage: --set 'stage[0].set=[\"", value.path, "=...\"]'")
                     : Concat("set another ", r.chooser)));
    }
  }
}

}  // namespace moebius
