#include "launch/cli.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>

#include "core/base/check.h"
#include "core/base/log.h"
#include "core/base/nearest.h"
#include "core/base/status.h"
#include "core/base/strings.h"

namespace moebius {
namespace {

std::string Suggest(std::string_view name, const std::vector<std::string>& candidates,
                    std::string_view prefix) {
  const std::string nearest = Nearest(name, candidates);
  return nearest.empty() ? "" : Concat("did you mean ", prefix, nearest, "? ");
}

template <typename Number>
bool ParseWhole(const std::string& text, Number* value) {
  const char* begin = text.c_str();
  if (*begin == '+') ++begin;
  const auto [end, error] = std::from_chars(begin, text.c_str() + text.size(), *value);
  return error == std::errc() && end == text.c_str() + text.size() && end != begin;
}

// 8192 rather than 8192.000000; bounds are shown to people.
std::string Shown(double bound) {
  return bound == std::floor(bound) && std::fabs(bound) < 1e15 ? std::to_string(static_cast<int64_t>(bound))
                                                               : Concat(bound);
}

std::string RangeText(const Flag& flag) {
  const bool low = std::isfinite(flag.min), high = std::isfinite(flag.max);
  if (low && high) return Concat(" from ", Shown(flag.min), " to ", Shown(flag.max));
  if (low) return Concat(" of at least ", Shown(flag.min));
  return high ? Concat(" of at most ", Shown(flag.max)) : "";
}

absl::Status CheckValue(const Flag& flag, const std::string& value) {
  const std::string what = Concat("--", flag.name, " got '", Printable(value), "'");
  if (flag.kind == FlagKind::kInteger || flag.kind == FlagKind::kNumber) {
    const bool integer = flag.kind == FlagKind::kInteger;
    double number = 0;
    int64_t whole = 0;
    const bool parsed = integer ? ParseWhole(value, &whole) : ParseWhole(value, &number);
    if (integer) number = static_cast<double>(whole);
    if (!parsed || std::isnan(number) || number < flag.min || number > flag.max) {
      return UsageError(Concat(what, "; it takes ", integer ? "a whole number" : "a number", RangeText(flag),
                               "; correct the value"));
    }
  }
  if (!flag.choices.empty() &&
      std::find(flag.choices.begin(), flag.choices.end(), value) == flag.choices.end()) {
    return UsageError(Concat(what, "; it takes one of ", Join(flag.choices), "; ",
                             Suggest(value, flag.choices, ""), "correct the value"));
  }
  const auto ends = [&value](const std::string& ending) { return value.ends_with(ending); };
  if (!flag.endings.empty() && std::none_of(flag.endings.begin(), flag.endings.end(), ends)) {
    return UsageError(Concat(what, "; it takes the name of a file that ends in ", Join(flag.endings),
                             "; correct the name"));
  }
  return absl::OkStatus();
}

// Words of `text` in lines of at most `width`, each continued at column `indent`.
std::string Wrap(const std::string& text, size_t indent, size_t width) {
  std::string out;
  size_t column = indent, start = 0;
  while (start < text.size()) {
    size_t end = text.find(' ', start);
    if (end == std::string::npos) end = text.size();
    if (column > indent && column + 1 + end - start > width) {
      out += "\n" + std::string(indent, ' ');
      column = indent;
    } else if (column > indent) {
      out += ' ';
      ++column;
    }
    out.append(text, start, end - start);
    column += end - start;
    start = end + 1;
  }
  return out;
}

constexpr size_t kHelpWidth = 100;

std::string FlagLine(const Flag& flag, size_t indent) {
  std::string left = "  --" + flag.name;
  if (flag.kind != FlagKind::kSwitch) left += " " + (flag.placeholder.empty() ? "VALUE" : flag.placeholder);
  std::string right = flag.help;
  if (!flag.choices.empty()) right += " (one of: " + Join(flag.choices) + ")";
  if (flag.kind == FlagKind::kRepeatedText) right += " (may be repeated)";
  if (!flag.fallback.empty()) right += " [default: " + flag.fallback + "]";
  if (left.size() + 2 > indent)
    return left + "\n" + std::string(indent, ' ') + Wrap(right, indent, kHelpWidth) + "\n";
  left.resize(indent, ' ');
  return left + Wrap(right, indent, kHelpWidth) + "\n";
}

void Print(const std::string& text) { std::fwrite(text.data(), 1, text.size(), stdout); }

// What the operating system and readers of files say ("open x: No such file or directory") comes without what
// to do.
const char* AdviceFor(std::string_view line, int exit_code) {
  if (line.find("; ") != line.npos) return "";
  switch (exit_code) {
    case kExitDamaged:
      return "; correct the file, or make it anew";
    case kExitMissing:
      return "; check the path, which is relative to the current folder";
    case kExitCannotWrite:
      return "; choose another path, or make room and permissions";
    default:
      return "";
  }
}

int Report(const absl::Status& status) {
  const std::string message(status.message());
  size_t start = 0;
  while (start <= message.size()) {
    const size_t end = std::min(message.find('\n', start), message.size());
    const std::string line = message.substr(start, end - start);
    if (!line.empty()) LogLine(Concat("error: ", line, AdviceFor(line, ExitCode(status))));
    start = end + 1;
  }
  return ExitCode(status);
}

// A full disk behind a redirected stdout shows only when the last buffer is written.
absl::Status FlushOutput() {
  if (std::fflush(stdout) == 0 && !std::ferror(stdout)) return absl::OkStatus();
  return CannotWriteError("cannot write standard output; the disk may be full; make room and run again");
}

// The verb named by the first one or two words; `used` is how many.
const Verb* FindVerb(const std::vector<Verb>& verbs, const std::vector<std::string>& args, size_t* used) {
  for (size_t words = std::min<size_t>(2, args.size()); words > 0; --words) {
    const std::string name = words == 2 ? args[0] + " " + args[1] : args[0];
    for (const Verb& verb : verbs) {
      if (verb.name == name) {
        *used = words;
        return &verb;
      }
    }
  }
  return nullptr;
}

// "tokenizer" when there are only "tokenizer train", ...: the verbs that begin with that word.
std::vector<Verb> Family(const std::vector<Verb>& verbs, const std::string& word) {
  std::vector<Verb> family;
  for (const Verb& verb : verbs) {
    if (verb.name.compare(0, word.size() + 1, word + " ") == 0) family.push_back(verb);
  }
  return family;
}

bool IsHelp(const std::string& word) { return word == "--help" || word == "-h"; }

// Only before "--": what follows belongs to the verb; "-h" may be a flag's value.
bool AsksForHelp(const Verb& verb, const std::vector<std::string>& args) {
  const auto end = std::find(args.begin(), args.end(), "--");
  for (auto word = args.begin(); word != end; ++word) {
    if (*word == "--help") return true;
    const bool is_value =
        word != args.begin() && std::any_of(verb.flags.begin(), verb.flags.end(), [&](const Flag& f) {
          return f.kind != FlagKind::kSwitch && *(word - 1) == "--" + f.name;
        });
    if (*word == "-h" && !is_value) return true;
  }
  return false;
}

absl::Status UnknownVerb(const std::vector<Verb>& verbs, const std::vector<std::string>& args) {
  const std::vector<Verb> family = Family(verbs, args[0]);
  std::vector<std::string> names;
  if (!family.empty()) {
    for (const Verb& verb : family) names.push_back(verb.name.substr(args[0].size() + 1));
    if (args.size() == 1 || args[1].starts_with("-")) {
      return UsageError(Concat("'", args[0], "' needs a second word; it is one of ", Join(names),
                               "; see moebius ", args[0], " --help"));
    }
    return UsageError(Concat("unknown verb '", args[0], " ", Printable(args[1]), "'; ",
                             Suggest(args[1], names, args[0] + " "), "it is one of ", Join(names),
                             "; see moebius ", args[0], " --help"));
  }
  for (const Verb& verb : verbs) names.push_back(verb.name.substr(0, verb.name.find(' ')));
  return UsageError(Concat("unknown verb '", Printable(args[0]), "'; ", Suggest(args[0], names, ""),
                           "no verb has this name; moebius --help lists them"));
}

}  // namespace

const ParsedArgs::Entry& ParsedArgs::Find(std::string_view flag) const {
  const auto it = entries_.find(flag);
  CHECK(it != entries_.end()) << "flag --" << flag << " is not declared by this verb";
  return it->second;
}

bool ParsedArgs::Given(std::string_view flag) const { return Find(flag).given; }

bool ParsedArgs::On(std::string_view flag) const {
  CHECK(Find(flag).kind == FlagKind::kSwitch) << flag;
  return Find(flag).given;
}

std::string ParsedArgs::Text(std::string_view flag) const {
  const Entry& entry = Find(flag);
  CHECK(entry.kind != FlagKind::kSwitch && entry.kind != FlagKind::kRepeatedText) << flag;
  return entry.values.empty() ? "" : entry.values.back();
}

int64_t ParsedArgs::Integer(std::string_view flag) const {
  CHECK(Find(flag).kind == FlagKind::kInteger) << flag;
  int64_t value = 0;
  CHECK(ParseWhole(Text(flag), &value)) << flag << " has no value and no fallback";
  return value;
}

double ParsedArgs::Number(std::string_view flag) const {
  CHECK(Find(flag).kind == FlagKind::kNumber) << flag;
  double value = 0;
  CHECK(ParseWhole(Text(flag), &value)) << flag << " has no value and no fallback";
  return value;
}

const std::vector<std::string>& ParsedArgs::All(std::string_view flag) const {
  CHECK(Find(flag).kind == FlagKind::kRepeatedText) << flag;
  return Find(flag).values;
}

class ArgsParser {
 public:
  explicit ArgsParser(const Verb& verb) : verb_(verb) {
    for (const Flag& flag : verb.flags) {
      ParsedArgs::Entry entry{.kind = flag.kind, .given = false, .values = {}};
      if (!flag.fallback.empty() && flag.kind != FlagKind::kRepeatedText) entry.values = {flag.fallback};
      parsed_.entries_.emplace(flag.name, std::move(entry));
    }
  }

  absl::StatusOr<ParsedArgs> Parse(const std::vector<std::string>& args) {
    bool flags_end = false;
    for (size_t i = 0; i < args.size(); ++i) {
      const std::string& word = args[i];
      if (flags_end || word.size() < 2 || word[0] != '-' || IsNumber(word)) {
        parsed_.positional_.push_back(word);
      } else if (word == "--") {
        flags_end = true;
      } else {
        RETURN_IF_ERROR(ParseFlag(args, &i));
      }
    }
    const size_t count = parsed_.positional_.size();
    if (count < verb_.min_positional || count > verb_.max_positional) {
      const bool few = count < verb_.min_positional;
      return UsageError(Concat(few ? "an argument is missing" : "unexpected argument",
                               few ? "" : " '" + Printable(parsed_.positional_[verb_.max_positional]) + "'",
                               "; usage: moebius ", verb_.name, verb_.usage.empty() ? "" : " ", verb_.usage,
                               "; see moebius ", verb_.name, " --help"));
    }
    return std::move(parsed_);
  }

 private:
  static bool IsNumber(const std::string& word) {
    double value;
    return ParseWhole(word, &value);
  }

  absl::Status ParseFlag(const std::vector<std::string>& args, size_t* i) {
    const std::string& word = args[*i];
    const size_t equals = word.find('=');
    const std::string name = word.substr(0, equals);
    const Flag* flag = nullptr;
    std::vector<std::string> names = {"--help"};
    for (const Flag& candidate : verb_.flags) {
      names.push_back("--" + candidate.name);
      if (names.back() == name) flag = &candidate;
    }
    if (flag == nullptr) {
      return UsageError(Concat("unknown flag '", Printable(name), "'; ", Suggest(name, names, ""), "moebius ",
                               verb_.name, " has no such flag; see moebius ", verb_.name, " --help"));
    }
    ParsedArgs::Entry& entry = parsed_.entries_.find(flag->name)->second;
    std::string value;
    if (flag->kind == FlagKind::kSwitch) {
      if (equals != std::string::npos) {
        return UsageError(
            Concat(name, " got a value; it is a switch; write ", name, " alone or leave it out"));
      }
      entry.given = true;
      return absl::OkStatus();
    }
    if (equals != std::string::npos) {
      value = word.substr(equals + 1);
    } else if (*i + 1 < args.size() && !args[*i + 1].starts_with("--")) {
      value = args[++*i];
    } else {
      const bool flag_follows = *i + 1 < args.size();
      return UsageError(Concat(name, " needs a value; ",
                               flag_follows ? Concat("'", Printable(args[*i + 1], 40), "' looks like a flag")
                                            : std::string("nothing follows it"),
                               "; write ", name, flag_follows ? "=" : " ", flag->placeholder));
    }
    RETURN_IF_ERROR(CheckValue(*flag, value));
    if (flag->kind != FlagKind::kRepeatedText) entry.values.clear();
    entry.values.push_back(value);
    entry.given = true;
    return absl::OkStatus();
  }

  const Verb& verb_;
  ParsedArgs parsed_;
};

absl::StatusOr<ParsedArgs> ParseArgs(const Verb& verb, const std::vector<std::string>& args) {
  return ArgsParser(verb).Parse(args);
}

std::string VerbHelp(const Verb& verb) {
  std::string out = Concat("moebius ", verb.name, ": ", verb.summary, "\n\nUsage: moebius ", verb.name,
                           verb.usage.empty() ? "" : " ", verb.usage, "\n");
  if (!verb.details.empty()) out += "\n" + Wrap(verb.details, 0, kHelpWidth) + "\n";
  size_t indent = 0;
  for (const Flag& flag : verb.flags) {
    const size_t shown =
        flag.kind == FlagKind::kSwitch ? 0 : std::max<size_t>(flag.placeholder.size(), 1) + 1;
    indent = std::max(indent, flag.name.size() + 6 + shown);
  }
  indent = std::clamp<size_t>(indent, 12, 32);
  out += "\nFlags\n";
  for (const Flag& flag : verb.flags) out += FlagLine(flag, indent);
  out += FlagLine({.name = "help", .kind = FlagKind::kSwitch, .help = "print this text"}, indent);
  out += "\nExamples\n";
  for (const std::string& example : verb.examples) out += "  " + example + "\n";
  return out;
}

std::string ProgramHelp(const std::vector<Verb>& verbs) {
  std::string out =
      "moebius trains DeepSeek-V3-class Mixture-of-Experts models.\n\n"
      "Usage: moebius VERB [ARGUMENTS] [FLAGS]\n\nVerbs\n";
  size_t indent = 0;
  for (const Verb& verb : verbs) indent = std::max(indent, verb.name.size() + 4);
  for (const Verb& verb : verbs) {
    std::string left = "  " + verb.name;
    left.resize(indent, ' ');
    out += left + Wrap(verb.summary, indent, kHelpWidth) + "\n";
  }
  return out +
         "\nmoebius VERB --help shows the flags of a verb with two examples; moebius --version the version.\n"
         "Exit codes: 0 done, 64 usage, 65 damaged data, 66 input missing, 69 device, memory or isolation\n"
         "missing, 70 internal, 71 comparison failed, 73 cannot write, 75 stopped after saving (run again),\n"
         "76 bad numbers or nothing to learn from, 79 hang or lost rank, 128+n signal.\n";
}

int RunProgram(const std::vector<Verb>& verbs, const std::vector<std::string>& args) {
  if (args.empty()) {
    std::fputs(ProgramHelp(verbs).c_str(), stderr);
    return kExitUsage;
  }
  absl::Status status;
  size_t used = 0;
  // `moebius help train` is `moebius train --help`.
  if (args[0] == "help" && args.size() > 1) {
    std::vector<std::string> swapped(args.begin() + 1, args.end());
    swapped.push_back("--help");
    return RunProgram(verbs, swapped);
  }
  if (IsHelp(args[0]) || args[0] == "help") {
    Print(ProgramHelp(verbs));
    status = FlushOutput();
  } else if (args[0] == "--version") {
    Print("moebius " MOEBIUS_VERSION "\n");
    status = FlushOutput();
  } else if (const Verb* verb = FindVerb(verbs, args, &used); verb != nullptr) {
    const std::vector<std::string> rest(args.begin() + used, args.end());
    if (AsksForHelp(*verb, rest)) {
      Print(VerbHelp(*verb));
    } else {
      absl::StatusOr<ParsedArgs> parsed = ParseArgs(*verb, rest);
      status = parsed.ok() ? verb->run(*parsed) : parsed.status();
    }
    if (absl::Status flushed = FlushOutput(); status.ok()) status = flushed;
  } else if (const auto family = Family(verbs, args[0]);
             !family.empty() && args.size() > 1 && IsHelp(args[1])) {
    for (const Verb& member : family) Print(VerbHelp(member) + (&member == &family.back() ? "" : "\n"));
    status = FlushOutput();
  } else {
    status = UnknownVerb(verbs, args);
  }
  return status.ok() ? 0 : Report(status);
}

Flag SetFlag() {
  return {.name = "set",
          .kind = FlagKind::kRepeatedText,
          .placeholder = "FIELD=VALUE",
          .help = "override a recipe field, for example --set optimizer.lr=3e-4"};
}

Flag PrintConfigFlag() {
  return {.name = "print-config",
          .kind = FlagKind::kSwitch,
          .help = "print the resolved recipe with the origin of each value, and stop"};
}

Flag RanksFlag() {
  return {.name = "ranks",
          .kind = FlagKind::kInteger,
          .placeholder = "N",
          .fallback = "1",
          .help = "run as N ranks, as threads of this process; leave it out under mpirun",
          .min = 1,
          .max = 1024};
}

Flag DeviceFlag() {
  return {.name = "device",
          .placeholder = "NAME",
          .fallback = "cpu",
          .help = "where to compute; cuda: an NVIDIA GPU, in a build of the preset cuda",
          .choices = {"cpu", "cuda"}};
}

Flag ThreadsFlag() {
  return {.name = "threads",
          .kind = FlagKind::kInteger,
          .placeholder = "N",
          .fallback = "0",
          .help = "compute threads of this process; 0: the cores it may use",
          .min = 0,
          .max = 4096};
}

}  // namespace moebius
