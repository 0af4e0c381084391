#include "rl/problems/problem.h"

#include "core/base/status.h"
#include "core/base/strings.h"
#include "rl/problems/problem_kinds.h"
#include "rl/problems/problems.pb.h"

namespace moebius {

std::string FillIn(std::string_view text,
                   const std::vector<std::pair<std::string_view, std::string>>& values) {
  std::string out;
  while (!text.empty()) {
    bool filled = false;
    for (const auto& [name, value] : values) {
      const std::string place = Concat('{', name, '}');
      if (!text.starts_with(place)) continue;
      out += value;
      text.remove_prefix(place.size());
      filled = true;
      break;
    }
    if (filled) continue;
    out += text.front();
    text.remove_prefix(1);
  }
  return out;
}

absl::StatusOr<std::unique_ptr<ProblemSet>> MakeProblemSet(const proto::Problems& problems, TaskSplit split,
                                                           sandbox::Sandbox* sandbox) {
  if (problems.jsonl().empty()) return MakeProcedural(problems, split);
  if (problems.has_kind())
    return UsageError(Concat("problems: both kind (\"", Printable(problems.kind()), "\") and jsonl (",
                             Printable(problems.jsonl()), ") are set; a run asks one of them; remove one"));
  return MakeJsonl(problems, split, sandbox);
}

}  // namespace moebius
