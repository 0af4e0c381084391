#include "launch/eval/task_knobs.h"

#include <charconv>
#include <variant>

#include "core/base/nearest.h"
#include "core/base/strings.h"

namespace moebius {
namespace {

using Member = std::variant<int TaskOptions::*, int64_t TaskOptions::*, uint64_t TaskOptions::*,
                            double TaskOptions::*, bool TaskOptions::*>;
struct Knob {
  const char* name;
  Member member;
};
constexpr Knob kKnobs[] = {{"seed", &TaskOptions::seed},
                           {"held_out", &TaskOptions::held_out},
                           {"sort_length", &TaskOptions::sort_length},
                           {"add_digits", &TaskOptions::add_digits},
                           {"multiply_low", &TaskOptions::multiply_low},
                           {"multiply_high", &TaskOptions::multiply_high},
                           {"countdown_numbers", &TaskOptions::countdown_numbers},
                           {"countdown_highest", &TaskOptions::countdown_highest},
                           {"countdown_target", &TaskOptions::countdown_target},
                           {"countdown_division", &TaskOptions::countdown_division},
                           {"maze_rows", &TaskOptions::maze_rows},
                           {"maze_cols", &TaskOptions::maze_cols},
                           {"maze_walls", &TaskOptions::maze_walls},
                           {"maze_distance", &TaskOptions::maze_distance},
                           {"maze_shortest", &TaskOptions::maze_shortest},
                           {"logic_persons", &TaskOptions::logic_persons},
                           {"logic_statements", &TaskOptions::logic_statements}};

bool Read(const std::string& text, bool& value) {
  value = text == "true";
  return value || text == "false";
}

template <typename Number>
bool Read(const std::string& text, Number& value) {
  const auto result = std::from_chars(text.data(), text.data() + text.size(), value);
  return result.ec == std::errc() && result.ptr == text.data() + text.size();
}

}  // namespace

std::vector<std::string> TaskKnobNames() {
  std::vector<std::string> names;
  for (const Knob& knob : kKnobs) names.emplace_back(knob.name);
  return names;
}

absl::Status SetTaskKnob(const std::string& assignment, TaskOptions& options) {
  const size_t equals = assignment.find('=');
  const std::string name = assignment.substr(0, equals);
  const std::string value = equals == assignment.npos ? "" : assignment.substr(equals + 1);
  for (const Knob& knob : kKnobs) {
    if (name != knob.name) continue;
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

}  // namespace moebius
