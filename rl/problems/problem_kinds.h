// What MakeProblemSet chooses from, and what its kinds share; not for users of problems.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "rl/problems/problem.h"

namespace moebius {

absl::StatusOr<std::unique_ptr<ProblemSet>> MakeProcedural(const proto::Problems& problems, TaskSplit split);
absl::StatusOr<std::unique_ptr<ProblemSet>> MakeJsonl(const proto::Problems& problems, TaskSplit split,
                                                      sandbox::Sandbox* sandbox);

// `text` with every {name} replaced by its value; other braces stay as they are. What a value holds is not
// looked through again.
std::string FillIn(std::string_view text,
                   const std::vector<std::pair<std::string_view, std::string>>& values);

}  // namespace moebius
