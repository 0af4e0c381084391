#include "launch/eval/task_knobs.h"

#include <algorithm>
#include <charconv>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string_view>
#include <variant>

#include "core/base/nearest.h"
#include "core/base/strings.h"

namespace moebius {
namespace {

using Member = std::variant<int TaskOptions::*, int64_t TaskOptions::*, uint64_t TaskOptions::*,
                            double TaskOptions::*, bool TaskOptions::*>;
struct Knob {
  std::string_view kind;  // that reads it; "": all
  const char* name;
  Member member;
};
constexpr Knob kKnobs[] = {{"", "seed", &TaskOptions::seed},
                           {"", "held_out", &TaskOptions::held_out},
                           {"sort", "sort_length", &TaskOptions::sort_length},
                           {"add", "add_digits", &TaskOptions::add_digits},
                           {"multiply", "multiply_low", &TaskOptions::multiply_low},
                           {"multiply", "multiply_high", &TaskOptions::multiply_high},
                           {"countdown", "countdown_numbers", &TaskOptions::countdown_numbers},
                           {"countdown", "countdown_highest", &TaskOptions::countdown_highest},
                           {"countdown", "countdown_target", &TaskOptions::countdown_target},
                           {"countdown", "countdown_division", &TaskOptions::countdown_division},
                           {"maze", "maze_rows", &TaskOptions::maze_rows},
                           {"maze", "maze_cols", &TaskOptions::maze_cols},
                           {"maze", "maze_walls", &TaskOptions::maze_walls},
                           {"maze", "maze_distance", &TaskOptions::maze_distance},
                           {"maze", "maze_shortest", &TaskOptions::maze_shortest},
                           {"logic", "logic_persons", &TaskOptions::logic_persons},
                           {"logic", "logic_statements", &TaskOptions::logic_statements}};

bool Read(const std::string& text, bool& value) {
  value = text == "true";
  return value || text == "false";
}

template <typename Number>
bool Read(const std::string& text, Number& value) {
  const auto result = std::from_chars(text.data(), text.data() + text.size(), value);
  return result.ec == std::errc() && result.ptr == text.data() + text.size();
}

bool IsReadBy(const Knob& knob, const std::string& task) {
  return IsTask(task) && (knob.kind.empty() || knob.kind == task);
}

}  // namespace

bool IsTask(const std::string& benchmark) {
  const auto is_it = [&](const Knob& knob) { return !knob.kind.empty() && knob.kind == benchmark; };
  return std::any_of(std::begin(kKnobs), std::end(kKnobs), is_it);
}

std::vector<std::string> TaskKnobNames() {
  std::vector<std::string> names;
  for (const Knob& knob : kKnobs) names.emplace_back(knob.name);
  return names;
}

absl::Status SetTaskKnob(const std::string& assignment, const std::vector<std::string>& benchmarks,
                         TaskOptions& options) {
  const size_t equals = assignment.find('=');
  const std::string name = assignment.substr(0, equals);
  const std::string value = equals == assignment.npos ? "" : assignment.substr(equals + 1);
  for (const Knob& knob : kKnobs) {
    if (name != knob.name) continue;
    const auto reads = [&](const std::string& benchmark) { return IsReadBy(knob, benchmark); };
    if (std::none_of(benchmarks.begin(), benchmarks.end(), reads)) {
      return UsageError(
          Concat("--knob ", name, " is given, and none of ", Join(benchmarks), " reads it, ",
                 knob.kind.empty() ? "only procedural sets do" : Concat("only ", knob.kind, " does"),
                 "; leave it out"));
    }
    if (std::visit([&](const auto member) { return Read(value, options.*member); }, knob.member)) {
      return absl::OkStatus();
    }
    return UsageError(Concat("--knob ", name, " has the value \"", Printable(value),
                             "\"; it is no number, or true or false of a switch; write --knob ", name,
                             "=VALUE"));
  }
  const std::string nearest = Nearest(name, TaskKnobNames());
  return UsageError(Concat("no knob \"", Printable(name), "\"; the knobs are ", Join(TaskKnobNames()), "; ",
                           nearest.empty() ? "choose one" : Concat("did you mean ", nearest, "?")));
}

nlohmann::ordered_json TaskKnobs(const std::string& task, const TaskOptions& options) {
  nlohmann::ordered_json out = nlohmann::ordered_json::object();
  for (const Knob& knob : kKnobs) {
    if (IsReadBy(knob, task))
      std::visit([&](const auto member) { out[knob.name] = options.*member; }, knob.member);
  }
  return out;
}

}  // namespace moebius
