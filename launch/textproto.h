// Protobuf text as configuration: reading with limits and located errors, layers (include, file, --set) that
// remember where each value came from, and printing every value with that origin. Works for any message.
#pragma once

#include <algorithm>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"

namespace google::protobuf {
class Descriptor;
class Message;
}  // namespace google::protobuf

namespace moebius {

// Leaf path -> where its value was set: "optimizer.phase[0].steps" -> "recipes/v3.textproto:12". A leaf
// without an entry has its default.
using Origins = std::map<std::string, std::string>;

// Reads `path` on top of `message`: set fields replace, messages merge, a repeated field replaces the whole
// list. A top-level field `repeated string include` names files read first, relative to the folder of `path`.
// Limits: 1 MiB a file, 50 levels, 8 includes deep. Errors: 66 (no such file), 64 with one line
// "path:line:column: what; why; what to do" for each mistake found, unknown fields with the nearest valid
// name.
absl::Status ReadTextproto(const std::string& path, google::protobuf::Message* message, Origins* origins);

// The same from memory (no includes); `name` stands for the path in errors and origins.
absl::Status ParseTextproto(std::string_view text, std::string_view name, google::protobuf::Message* message,
                            Origins* origins);

// "optimizer.lr=1e-3", as given to --set. Strings need no quotes, enum values no capitals; whole numbers may
// be written 1e3. A repeated field is replaced by its first assignment and extended by later ones; field[2]=x
// changes one element; {...} sets a message, [...] a list, both in protobuf text. Errors: 64 with the nearest
// valid path.
absl::Status ApplyOverride(std::string_view assignment, google::protobuf::Message* message, Origins* origins);

// Valid protobuf text of every value that is set or has a default, each with its origin as a comment.
std::string PrintTextproto(const google::protobuf::Message& message, const Origins& origins);

// Where the value at `path` comes from, for errors: its origin and ": ", or "".
std::string OriginPrefix(const Origins& origins, const std::string& path);

// Every leaf path of a message type, without indices: "optimizer.phase.steps". For tests and suggestions.
std::vector<std::string> LeafPaths(const google::protobuf::Descriptor& type, bool numbers_only);

// "did you mean optimizer.lr? " for a name unknown in the message type at `path` ("" for the root) of `root`:
// the same name elsewhere, else the nearest name here, else the nearest anywhere; "" when nothing is close.
std::string SuggestField(const google::protobuf::Descriptor& root, const std::string& path,
                         std::string_view name);

struct NumberRange {
  std::string path;  // without indices
  double min;
  double max;
  bool below_max = false;  // value < max rather than <=, in fp32 too
};

// Appends one line for every set number outside its range, and for every one that is not finite.
void CheckRanges(const google::protobuf::Message& message, const Origins& origins,
                 const std::vector<NumberRange>& ranges, std::vector<std::string>* errors);

// A field that only some choices of another one read: kv_lora_rank of a model belongs to some families.
struct FieldReaders {
  std::string field;                 // path without indices; a section stands for all that is in it
  std::string chooser;               // path of an enum, text, number or section; of repeated ones in the same
  std::vector<std::string> choices;  // its values that read the field, or kGiven or kNotGiven

  bool Reads(const std::string& choice) const {
    return std::find(choices.begin(), choices.end(), choice) != choices.end();
  }
};
inline constexpr char kGiven[] = "<given>";  // any value but the default
inline constexpr char kNotGiven[] = "<not given>";

// A value that nothing reads and that says something: it is not what it would be unset.
struct UnreadValue {
  std::string path, value;
  std::string choice;  // what the chooser says
  const FieldReaders* readers;
};

// Clears every field that the choices of `message` do not read; what was said there in vain.
std::vector<UnreadValue> ClearUnread(google::protobuf::Message* message,
                                     const std::vector<FieldReaders>& readers);

// Appends one line for each.
void ReportUnread(const std::vector<UnreadValue>& unread, const Origins& origins,
                  std::vector<std::string>* errors);

}  // namespace moebius
