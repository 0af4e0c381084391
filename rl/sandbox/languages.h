// Whether this machine runs honest programs as it should. A Python or a compiler that is missing or does not
// work would make every answer wrong.
#pragma once

#include "absl/status/status.h"
#include "rl/sandbox/runner.h"
#include "rl/sandbox/test_spec.h"

namespace moebius::sandbox {

// UnavailableError (69) unless small right programs are judged right. A tenth of a second, for C++ most of
// one.
absl::Status TryLanguage(Runner& runner, Language language);

}  // namespace moebius::sandbox
