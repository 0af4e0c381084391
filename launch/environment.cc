#include "launch/environment.h"

#include <sched.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>
#include <thread>

#include "core/base/memory.h"
#include "core/base/strings.h"
#include "core/io/file.h"
#include "core/io/json.h"

namespace moebius {

extern const char* const kBuildCommit;  // made by every build: write_commit.cmake

namespace {

constexpr int64_t kMaxBytes = 16 << 20;

std::string ReadOrEmpty(const std::string& path) { return ReadFile(path, kMaxBytes).value_or(""); }

std::string Trim(const std::string& text) {
  const size_t begin = text.find_first_not_of(" \t\n\""), end = text.find_last_not_of(" \t\n\"");
  return begin == std::string::npos ? "" : text.substr(begin, end - begin + 1);
}

// The value of the first line "KEY<separator>VALUE".
std::string Field(const std::string& text, const std::string& key, char separator) {
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    const size_t at = line.find(separator);
    if (at != std::string::npos && Trim(line.substr(0, at)) == key) return Trim(line.substr(at + 1));
  }
  return "";
}

// "max 100000" or "150000 100000": quota and period of cgroup version 2. 0: no quota.
double CgroupCores() {
  std::istringstream in(ReadOrEmpty("/sys/fs/cgroup/cpu.max"));
  double quota = 0, period = 0;
  if (in >> quota >> period && period > 0) return quota / period;
  return 0;
}

int AffinityCores() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
  return static_cast<int>(std::thread::hardware_concurrency());
}

std::vector<std::string> FeaturesThatMatter(const std::string& flags) {
  static const std::set<std::string> kWanted = {
      "sse4_2",   "avx",         "avx2",        "fma",         "f16c",     "avx512f",
      "avx512bw", "avx512_vnni", "avx512_bf16", "avx512_fp16", "avx_vnni", "amx_tile",
      "amx_bf16", "amx_int8",    "asimd",       "bf16",        "sve"};
  std::vector<std::string> features;
  std::istringstream in(flags);
  for (std::string flag; in >> flag;) {
    if (kWanted.contains(flag)) features.push_back(flag);
  }
  return features;
}

}  // namespace

bool Environment::HasFeature(std::string_view name) const {
  return std::find(cpu_features.begin(), cpu_features.end(), name) != cpu_features.end();
}

int UsableCores() {
  const double quota = CgroupCores();
  int cores = AffinityCores();
  // A quota of 1.5 cores feeds two threads better than one.
  if (quota > 0) cores = std::min(cores, static_cast<int>(std::ceil(quota)));
  return std::max(cores, 1);
}

Environment ReadEnvironment() {
  Environment e;
  e.version = MOEBIUS_VERSION;
  e.commit = kBuildCommit;
  e.compiler = Concat("GCC ", __VERSION__);
#ifdef __clang__
  e.compiler = __VERSION__;
#endif
  e.build_type = MOEBIUS_BUILD_TYPE;
  char host[256] = "";
  gethostname(host, sizeof host - 1);
  e.host = host;
  e.system = Field(ReadOrEmpty("/etc/os-release"), "PRETTY_NAME", '=');
  struct utsname names;
  if (uname(&names) == 0) e.kernel = Concat(names.sysname, " ", names.release, " ", names.machine);
  const std::string cpu = ReadOrEmpty("/proc/cpuinfo");
  e.cpu_model = Field(cpu, "model name", ':');
  if (e.cpu_model.empty()) e.cpu_model = "unknown";
  std::string flags = Field(cpu, "flags", ':');
  if (flags.empty()) flags = Field(cpu, "Features", ':');
  e.cpu_features = FeaturesThatMatter(flags);
  e.logical_cores = static_cast<int>(sysconf(_SC_NPROCESSORS_ONLN));
  e.usable_cores = UsableCores();
  const MachineMemory memory = ReadMachineMemory();
  e.memory_bytes = memory.total;
  e.available_memory_bytes = memory.available;
  return e;
}

std::string EnvironmentJson(const Environment& e,
                            const std::vector<std::pair<std::string, std::string>>& more) {
  nlohmann::ordered_json json = {{"version", e.version},
                                 {"commit", e.commit},
                                 {"compiler", e.compiler},
                                 {"build_type", e.build_type},
                                 {"host", e.host},
                                 {"system", e.system},
                                 {"kernel", e.kernel},
                                 {"cpu_model", e.cpu_model},
                                 {"cpu_features", e.cpu_features},
                                 {"logical_cores", e.logical_cores},
                                 {"usable_cores", e.usable_cores},
                                 {"memory_bytes", e.memory_bytes}};
  for (const auto& [key, value] : more) json[key] = value;
  return DumpJson(json, 2) + "\n";
}

}  // namespace moebius
