// What this process runs on and what it was built from: environment.json of a run, `moebius doctor`, the
// report.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"

namespace moebius {

struct Environment {
  std::string version;  // of moebius
  std::string commit;   // git commit it was configured at, "" outside a repository
  std::string compiler;
  std::string build_type;
  std::string host;
  std::string system;  // "Debian GNU/Linux 12 (bookworm)"
  std::string kernel;  // "Linux 6.1.0-18-amd64 x86_64"
  std::string cpu_model;
  std::vector<std::string>
      cpu_features;          // those that matter here: avx2 fma f16c avx512f avx512_bf16 amx_bf16 ...
  int logical_cores = 0;     // of the machine
  int usable_cores = 0;      // of this process: affinity mask and cgroup quota
  int64_t memory_bytes = 0;  // of the machine, or of the cgroup where that is less
  int64_t available_memory_bytes = 0;

  bool HasFeature(std::string_view name) const;
};

Environment ReadEnvironment();

// environment.json: the fields above, then `more` (text values, such as "perf/mfu_basis" or "backend").
std::string EnvironmentJson(const Environment& environment,
                            const std::vector<std::pair<std::string, std::string>>& more);

// The cores that --threads 0 means: usable_cores without reading anything else; at least 1.
int UsableCores();

}  // namespace moebius
