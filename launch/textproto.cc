#include "launch/textproto.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/io/tokenizer.h>
#include <google/protobuf/message.h>
#include <google/protobuf/text_format.h>

#include <algorithm>
#include <cmath>

#include "core/base/nearest.h"
#include "core/base/status.h"
#include "core/base/strings.h"
#include "core/io/file.h"

namespace moebius {
namespace {

namespace pb = google::protobuf;
using Field = pb::FieldDescriptor;

constexpr int kMaxDepth = 50;
constexpr int kMaxIncludeDepth = 8;
constexpr int64_t kMaxFileBytes = 1 << 20;

std::string Dot(const std::string& path, std::string_view name) {
  return path.empty() ? std::string(name) : Concat(path, ".", name);
}

// Path of the first message of type `type` below `root` ("" for the root itself).
bool PathOfType(const pb::Descriptor& root, const std::string& type, const std::string& at,
                std::string* path) {
  if (root.full_name() == type) {
    *path = at;
    return true;
  }
  for (int i = 0; i < root.field_count(); ++i) {
    const Field& field = *root.field(i);
    if (field.message_type() != nullptr &&
        PathOfType(*field.message_type(), type, Dot(at, field.name()), path)) {
      return true;
    }
  }
  return false;
}

const pb::EnumDescriptor* EnumOfField(const pb::Descriptor& root, const std::string& name) {
  for (int i = 0; i < root.field_count(); ++i) {
    const Field& field = *root.field(i);
    if (field.name() == name && field.enum_type() != nullptr) return field.enum_type();
    if (field.message_type() == nullptr) continue;
    if (const auto* found = EnumOfField(*field.message_type(), name)) return found;
  }
  return nullptr;
}

// The text between the n-th pair of double quotes of a message of protobuf's parser, "" if there is none.
std::string Quoted(const std::string& text, int n) {
  size_t begin = 0;
  for (int i = 0; i < 2 * n + 1; ++i) {
    begin = text.find('"', begin);
    if (begin == std::string::npos) return "";
    ++begin;
  }
  const size_t end = text.find('"', begin);
  return end == std::string::npos ? "" : text.substr(begin, end - begin);
}

// Turns what protobuf's parser says into our form. Its wording (3.21) is only used to find names: an unknown
// wording is passed on as it is.
class Collector : public pb::io::ErrorCollector {
 public:
  Collector(std::string name, std::string_view text, const pb::Descriptor& root)
      : name_(std::move(name)), text_(text), root_(root) {}

  void AddError(int line, int column, const std::string& message) override {
    std::string text = Printable(message, 200);
    if (message.starts_with("Unknown enumeration value of ")) {
      text = Concat("unknown value '", Printable(Quoted(message, 0)), "' of ", Quoted(message, 1), "; ",
                    EnumAdvice(Quoted(message, 0), Quoted(message, 1)));
    } else {
      text += "; this is no valid protobuf text here; correct it";
    }
    Add(line, column, text);
  }

  // Unknown fields arrive as warnings, so that all of them are found in one pass.
  void AddWarning(int line, int column, const std::string& message) override {
    if (Full()) return;
    const std::string type = Quoted(message, 0), field = Quoted(message, 1);
    std::string path;
    if (message.find("has no field named") == std::string::npos || !PathOfType(root_, type, "", &path)) {
      Add(line, column, Concat(Printable(message, 200), "; the name is not valid here; correct it"));
      return;
    }
    Add(line, StartOfName(line, column, field),
        Concat("unknown field '", Printable(Dot(path, field)), "'; ", SuggestField(root_, path, field),
               !path.empty()              ? path
               : root_.name() == "Recipe" ? "the recipe"
                                          : "the file",
               " has no such field; correct the name or remove it"));
  }

  const std::vector<std::string>& errors() const { return errors_; }

 private:
  bool Full() const { return errors_.size() >= 50; }

  void Add(int line, int column, const std::string& text) {
    if (!Full()) errors_.push_back(Concat(name_, ":", line + 1, ":", column + 1, ": ", text));
  }

  // The parser names the place after an unknown name; people look for its first letter.
  int StartOfName(int line, int column, const std::string& field) const {
    size_t begin = 0;
    for (int i = 0; i < line && begin != std::string_view::npos; ++i) {
      begin = text_.find('\n', begin);
      if (begin != std::string_view::npos) ++begin;
    }
    if (begin == std::string_view::npos) return column;
    const size_t at = text_.substr(begin, column).rfind(field);
    return at == std::string_view::npos ? column : static_cast<int>(at);
  }

  std::string EnumAdvice(const std::string& value, const std::string& field) const {
    const pb::EnumDescriptor* type = EnumOfField(root_, field);
    if (type == nullptr) return "correct the value";
    std::vector<std::string> names;
    for (int i = 0; i < type->value_count(); ++i) names.push_back(type->value(i)->name());
    std::string upper = value;
    std::transform(upper.begin(), upper.end(), upper.begin(),
                   [](unsigned char c) { return std::toupper(c); });
    const std::string nearest = Nearest(upper, names);
    return Concat(nearest.empty() ? "" : "did you mean " + nearest + "? ", "it is one of ", Join(names),
                  "; correct the value");
  }

  const std::string name_;
  const std::string_view text_;
  const pb::Descriptor& root_;
  std::vector<std::string> errors_;
};

// Moves what a parsed layer sets on top of a message and notes the origins.
class Layer {
 public:
  Layer(std::string name, Origins* origins) : name_(std::move(name)), origins_(origins) {}

  void MergeInto(pb::Message* target, pb::Message* layer, const pb::TextFormat::ParseInfoTree* tree,
                 const std::string& path) {
    const pb::Reflection& reflection = *layer->GetReflection();
    std::vector<const Field*> fields;
    reflection.ListFields(*layer, &fields);
    for (const Field* field : fields) {
      const std::string at = Dot(path, field->name());
      if (!field->is_repeated() && field->message_type() != nullptr) {
        MergeInto(reflection.MutableMessage(target, field), reflection.MutableMessage(layer, field),
                  Nested(tree, field, 0), at);
        continue;
      }
      std::erase_if(*origins_, [&at](const auto& entry) { return entry.first.starts_with(at + "["); });
      Note(*layer, field, tree, at);
      reflection.ClearField(target, field);
      reflection.SwapFields(target, layer, {field});
    }
  }

 private:
  static const pb::TextFormat::ParseInfoTree* Nested(const pb::TextFormat::ParseInfoTree* tree,
                                                     const Field* field, int index) {
    return tree == nullptr ? nullptr : tree->GetTreeForNested(field, field->is_repeated() ? index : -1);
  }

  std::string Location(const pb::TextFormat::ParseInfoTree* tree, const Field* field, int index) const {
    if (tree == nullptr || name_.starts_with("--")) return name_;
    const int line = tree->GetLocation(field, field->is_repeated() ? index : -1).line;
    return line < 0 ? name_ : Concat(name_, ":", line + 1);
  }

  void Note(const pb::Message& layer, const Field* field, const pb::TextFormat::ParseInfoTree* tree,
            const std::string& at) {
    if (!field->is_repeated()) {
      (*origins_)[at] = Location(tree, field, -1);
      return;
    }
    const pb::Reflection& reflection = *layer.GetReflection();
    for (int i = 0; i < reflection.FieldSize(layer, field); ++i) {
      const std::string element = Concat(at, "[", i, "]");
      if (field->message_type() == nullptr) {
        (*origins_)[element] = Location(tree, field, i);
      } else {
        NoteAll(reflection.GetRepeatedMessage(layer, field, i), Nested(tree, field, i), element);
      }
    }
  }

  void NoteAll(const pb::Message& message, const pb::TextFormat::ParseInfoTree* tree,
               const std::string& path) {
    const pb::Reflection& reflection = *message.GetReflection();
    std::vector<const Field*> fields;
    reflection.ListFields(message, &fields);
    for (const Field* field : fields) {
      const std::string at = Dot(path, field->name());
      if (!field->is_repeated() && field->message_type() != nullptr) {
        NoteAll(reflection.GetMessage(message, field), Nested(tree, field, 0), at);
      } else {
        Note(message, field, tree, at);
      }
    }
  }

  const std::string name_;
  Origins* origins_;
};

// `included_at`: "FILE:LINE" of what includes the file, "" for the one that a person named.
absl::Status ReadLayer(const std::string& path, const std::string& included_at, int depth,
                       pb::Message* message, Origins* origins);

absl::Status ReadIncludes(const pb::Message& layer, const pb::TextFormat::ParseInfoTree& tree,
                          const std::string& path, int depth, pb::Message* message, Origins* origins) {
  const Field* include = layer.GetDescriptor()->FindFieldByName("include");
  if (include == nullptr || !include->is_repeated() || include->cpp_type() != Field::CPPTYPE_STRING) {
    return absl::OkStatus();
  }
  const pb::Reflection& reflection = *layer.GetReflection();
  for (int i = 0; i < reflection.FieldSize(layer, include); ++i) {
    const std::string name = reflection.GetRepeatedString(layer, include, i);
    if (depth >= kMaxIncludeDepth) {
      return UsageError(Concat(path, ": include '", Printable(name), "' goes more than ", kMaxIncludeDepth,
                               " files deep; a recipe may include itself; remove the circle"));
    }
    const std::string place = Concat(path, ":", tree.GetLocation(include, i).line + 1);
    RETURN_IF_ERROR(ReadLayer(JoinPath(ParentPath(path), name), place, depth + 1, message, origins));
  }
  return absl::OkStatus();
}

absl::Status ParseLayer(std::string_view text, std::string_view name, pb::Message* layer,
                        pb::TextFormat::ParseInfoTree* tree) {
  if (text.size() > kMaxFileBytes) {
    return UsageError(Concat(name, ": ", WithCommas(text.size()), " bytes; a recipe has at most ",
                             WithCommas(kMaxFileBytes), "; is this the right file?"));
  }
  // A byte order mark, as editors on Windows write it.
  if (text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);
  Collector collector{std::string(name), text, *layer->GetDescriptor()};
  pb::TextFormat::Parser parser;
  parser.RecordErrorsTo(&collector);
  parser.WriteLocationsTo(tree);
  parser.AllowUnknownField(true);
  parser.AllowUnknownExtension(true);
  parser.SetRecursionLimit(kMaxDepth);  // also of what is skipped as unknown (a test holds 300,000 levels)
  const bool parsed = parser.ParseFromString(std::string(text), layer);
  if (!collector.errors().empty()) return UsageError(Join(collector.errors(), "\n"));
  return parsed ? absl::OkStatus()
                : UsageError(Concat(name,
                                    ": no valid protobuf text; the parser gave no reason; "
                                    "correct the file"));
}

absl::Status ReadLayer(const std::string& path, const std::string& included_at, int depth,
                       pb::Message* message, Origins* origins) {
  const std::string from = included_at.empty() ? "" : included_at + ": include: ";
  if (FolderExists(path)) {
    return UsageError(Concat(from, path, " is a folder; protobuf text is read from a file; name the file"));
  }
  absl::StatusOr<std::string> text = ReadFile(path, kMaxFileBytes);
  if (!text.ok()) {
    if (ExitCode(text.status()) == kExitDamaged) {
      return UsageError(Concat(from, path, ": cannot be read as a recipe (", text.status().message(),
                               "); is this the right file?"));
    }
    return MissingError(Concat(from, "cannot read ", path, "; ", text.status().message(),
                               "; check the name, which is relative to ",
                               from.empty() ? "the current folder" : "the file that includes it"));
  }
  std::unique_ptr<pb::Message> layer(message->New());
  pb::TextFormat::ParseInfoTree tree;
  RETURN_IF_ERROR(ParseLayer(*text, path, layer.get(), &tree));
  RETURN_IF_ERROR(ReadIncludes(*layer, tree, path, depth, message, origins));
  Layer(path, origins).MergeInto(message, layer.get(), &tree, "");
  return absl::OkStatus();
}

// Removed once resolved: the printed recipe has everything in it and would include the files again.
void DropIncludes(pb::Message* message, Origins* origins) {
  const Field* include = message->GetDescriptor()->FindFieldByName("include");
  if (include == nullptr) return;
  message->GetReflection()->ClearField(message, include);
  std::erase_if(*origins, [](const auto& entry) { return entry.first.starts_with("include["); });
}

void CollectLeaves(const pb::Descriptor& type, const std::string& path, bool numbers_only,
                   std::vector<std::string>* out) {
  for (int i = 0; i < type.field_count(); ++i) {
    const Field& field = *type.field(i);
    const std::string at = Dot(path, field.name());
    if (field.message_type() != nullptr) {
      CollectLeaves(*field.message_type(), at, numbers_only, out);
    } else if (!numbers_only || (field.cpp_type() <= Field::CPPTYPE_FLOAT)) {
      out->push_back(at);
    }
  }
}

const pb::Descriptor* TypeAt(const pb::Descriptor& root, const std::string& path) {
  const pb::Descriptor* type = &root;
  size_t start = 0;
  while (type != nullptr && start < path.size()) {
    const size_t end = std::min(path.find('.', start), path.size());
    const Field* field = type->FindFieldByName(path.substr(start, end - start));
    type = field == nullptr ? nullptr : field->message_type();
    start = end + 1;
  }
  return type;
}

}  // namespace

absl::Status ReadTextproto(const std::string& path, pb::Message* message, Origins* origins) {
  RETURN_IF_ERROR(ReadLayer(path, "", 0, message, origins));
  DropIncludes(message, origins);
  return absl::OkStatus();
}

absl::Status ParseTextproto(std::string_view text, std::string_view name, pb::Message* message,
                            Origins* origins) {
  std::unique_ptr<pb::Message> layer(message->New());
  pb::TextFormat::ParseInfoTree tree;
  RETURN_IF_ERROR(ParseLayer(text, name, layer.get(), &tree));
  Layer(std::string(name), origins).MergeInto(message, layer.get(), &tree, "");
  return absl::OkStatus();
}

std::vector<std::string> LeafPaths(const pb::Descriptor& type, bool numbers_only) {
  std::vector<std::string> out;
  CollectLeaves(type, "", numbers_only, &out);
  return out;
}

std::string SuggestField(const pb::Descriptor& root, const std::string& path, std::string_view name) {
  const std::vector<std::string> leaves = LeafPaths(root, false);
  const std::string suffix = Concat(".", name);
  for (const std::string& leaf : leaves) {
    if (leaf == name || leaf.ends_with(suffix)) return Concat("did you mean ", leaf, "? ");
  }
  std::vector<std::string> here;
  if (const pb::Descriptor* type = TypeAt(root, path)) {
    for (int i = 0; i < type->field_count(); ++i) here.push_back(type->field(i)->name());
  }
  if (const std::string nearest = Nearest(name, here); !nearest.empty()) {
    return Concat("did you mean ", Dot(path, nearest), "? ");
  }
  if (!path.empty()) return "";  // a like name of another section is another field
  std::vector<std::string> names;
  for (const std::string& leaf : leaves) names.push_back(leaf.substr(leaf.rfind('.') + 1));
  const std::string nearest = Nearest(name, names);
  if (nearest.empty()) return "";
  return Concat("did you mean ", leaves[std::find(names.begin(), names.end(), nearest) - names.begin()],
                "? ");
}

std::string OriginPrefix(const Origins& origins, const std::string& path) {
  const auto it = origins.find(path);
  return it == origins.end() ? "" : it->second + ": ";
}

}  // namespace moebius
