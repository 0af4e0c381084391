// The command line as data: a verb is a value (name, flags, examples, function), the program a list of verbs.
// Help, checking, suggestions and exit codes follow from it, the same for every verb.
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace moebius {

enum class FlagKind { kSwitch, kText, kInteger, kNumber, kRepeatedText };

struct Flag {
  std::string name;  // "max-new": given as --max-new N or --max-new=N
  FlagKind kind = FlagKind::kText;
  std::string placeholder =
      {};  // unit or sort of value as help shows it: "N", "FILE", "SECONDS"; unused by switches
  std::string fallback = {};  // value when absent, "" for none; help shows it as the default
  std::string help = {};      // one sentence, lower case, no full stop
  double min =
      -std::numeric_limits<double>::infinity();  // bounds of kInteger and kNumber, checked while parsing
  double max = std::numeric_limits<double>::infinity();
  std::vector<std::string> choices = {};  // kText: the only values allowed, when not empty
  std::vector<std::string> endings = {};  // kText: of file names, whose ending says what is written
};

// What was given to one verb, already checked against its flags. Asking for a flag that the verb does not
// declare (or as another kind) is a bug: CHECK.
class ParsedArgs {
 public:
  bool Given(std::string_view flag) const;        // on the command line, not from the fallback
  bool On(std::string_view flag) const;           // kSwitch
  std::string Text(std::string_view flag) const;  // value or fallback
  int64_t Integer(std::string_view flag) const;   // needs a value or a fallback: CHECK
  double Number(std::string_view flag) const;     // likewise
  const std::vector<std::string>& All(std::string_view flag) const;  // kRepeatedText, in order

  const std::vector<std::string>& positional() const { return positional_; }

 private:
  friend class ArgsParser;
  struct Entry {
    FlagKind kind;
    bool given = false;
    std::vector<std::string> values;
  };
  const Entry& Find(std::string_view flag) const;

  std::map<std::string, Entry, std::less<>> entries_;
  std::vector<std::string> positional_;
};

struct Verb {
  std::string name;     // one word, or two ("tokenizer train"): the longer match wins
  std::string summary;  // one line, for the list of verbs
  std::string usage;    // what follows "moebius NAME": "RECIPE [--set FIELD=VALUE]..."
  std::vector<Flag> flags;
  std::vector<std::string> examples;  // two, complete commands without "$ "
  size_t min_positional = 0;
  size_t max_positional = 0;
  std::string details = {};  // optional paragraph between usage and flags
  std::function<absl::Status(const ParsedArgs&)> run;
};

// `args` are the words after the verb. Errors (64) name the word and the nearest valid flag.
absl::StatusOr<ParsedArgs> ParseArgs(const Verb& verb, const std::vector<std::string>& args);

std::string VerbHelp(const Verb& verb);
std::string ProgramHelp(const std::vector<Verb>& verbs);

// Runs the program: finds the verb, parses, runs it, prints errors on stderr as "error: what; why; what to
// do" (one such line for each line of the status message) and returns the exit code. --help goes to stdout,
// code 0.
int RunProgram(const std::vector<Verb>& verbs, const std::vector<std::string>& args);

// The one spelling of flags that several verbs share.
Flag SetFlag();          // --set FIELD=VALUE, repeated
Flag PrintConfigFlag();  // --print-config
Flag RanksFlag();        // --ranks N: threads as ranks, 1 by default
Flag DeviceFlag();       // --device cpu or cuda
Flag ThreadsFlag();      // --threads N, 0: the cores this process may use

}  // namespace moebius
