#include "launch/verb_doctor.h"

#include <dnnl.h>
#include <google/protobuf/stubs/common.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "core/backend/backend.h"
#include "core/backend/gpu.h"
#include "core/base/status.h"
#include "core/base/strings.h"
#include "core/io/file.h"
#include "launch/environment.h"
#include "launch/progress.h"
#include "rl/sandbox/canaries.h"
#include "rl/sandbox/languages.h"
#include "rl/sandbox/runner.h"
#include "rl/sandbox/sandbox.h"

namespace moebius {
namespace {

// Collects lines and counts what needs attention.
class Findings {
 public:
  void Good(const std::string& what, const std::string& value) { Print("ok  ", what, value); }
  void Note(const std::string& what, const std::string& value) { Print("note", what, value); }
  void Bad(const std::string& what, const std::string& value) {
    Print("BAD ", what, value);
    ++bad_;
  }
  int bad() const { return bad_; }

 private:
  static void Print(const char* mark, const std::string& what, const std::string& value) {
    std::printf("%s  %-12s %s\n", mark, what.c_str(), value.c_str());
  }
  int bad_ = 0;
};

void CheckProcessor(const Environment& e, Findings* findings) {
  findings->Good("processor",
                 Concat(e.cpu_model, ", ", e.usable_cores, " of ", e.logical_cores, " cores usable"));
  findings->Good("features",
                 e.cpu_features.empty() ? "none of those that matter" : Join(e.cpu_features, " "));
  if (!e.HasFeature("avx2") && !e.HasFeature("asimd")) {
    findings->Note(
        "speed", "no AVX2: training works but runs several times slower; use a processor from 2014 or later");
  }
  const std::unique_ptr<Backend> backend = MakeCpuBackend({});
  findings->Good("backend", backend->Name());
  findings->Good("compute", backend->AutoCompute() == DType::kBF16
                                ? "precision AUTO is BF16: this processor has AVX512-BF16 or AMX"
                                : "precision AUTO is FP32: no AVX512-BF16 and no AMX here");
}

void CheckMemory(const Environment& e, Findings* findings) {
  const std::string text = Concat(HumanBytes(static_cast<double>(e.available_memory_bytes)), " free of ",
                                  HumanBytes(static_cast<double>(e.memory_bytes)));
  if (e.available_memory_bytes < (int64_t{2} << 30)) {
    findings->Note("memory", text + "; the quickstart needs about 2 GiB: close other programs");
  } else {
    findings->Good("memory", text);
  }
}

void CheckDisk(Findings* findings) {
  const absl::StatusOr<int64_t> free = FreeDiskBytes(".");
  if (!free.ok()) return findings->Bad("disk", std::string(free.status().message()));
  const std::string text = HumanBytes(static_cast<double>(*free)) + " free in the current folder";
  if (access(".", W_OK) != 0) {
    findings->Bad("disk", text + ", but it cannot be written; change to a folder of yours, or use --out");
  } else if (*free < (int64_t{1} << 30)) {
    findings->Note("disk", text + "; checkpoints may not fit: make room or use --out on another disk");
  } else {
    findings->Good("disk", text);
  }
}

void CheckLibraries(const Environment& e, Findings* findings) {
  const dnnl_version_t* dnnl = dnnl_version();
  findings->Good("moebius", Concat(e.version, e.commit.empty() ? "" : " (" + e.commit + ")", ", ",
                                   e.build_type, " build, ", e.compiler));
  findings->Good("libraries",
                 Concat("oneDNN ", dnnl->major, ".", dnnl->minor, ".", dnnl->patch, ", protobuf ",
                        google::protobuf::internal::VersionString(GOOGLE_PROTOBUF_VERSION)));
  if (e.build_type != "Release") {
    findings->Note("build",
                   Concat("this is a ", e.build_type, " build; for speed configure with cmake --preset cpu"));
  }
}

void CheckTerminal(Findings* findings) {
  const Terminal terminal = DetectTerminal(STDOUT_FILENO);
  findings->Good("terminal", terminal.interactive
                                 ? Concat("interactive, ", terminal.columns, " columns, ",
                                          terminal.colour ? "with colour" : "without colour (NO_COLOR)")
                                 : "not interactive: progress comes as plain lines");
}

void CheckPrograms(Findings* findings) {
  const auto found = [](const std::string& program) {
    const char* path = std::getenv("PATH");
    std::string rest = path == nullptr ? "" : path;
    for (size_t begin = 0; begin <= rest.size();) {
      const size_t end = std::min(rest.find(':', begin), rest.size());
      if (access(JoinPath(rest.substr(begin, end - begin), program).c_str(), X_OK) == 0) return true;
      begin = end + 1;
    }
    return false;
  };
  // What the two commands of the README use beside the binary.
  if (!found("cmake") || !found("g++")) {
    findings->Note("to build", "cmake or g++ is missing; launch/install_deps.sh installs what a build needs");
  }
  found("mpirun")
      ? findings->Good("processes", "mpirun is there, for launch/moebius-mpirun")
      : findings->Note("processes",
                       "mpirun is missing; --ranks and launch/moebius-processes do without, several "
                       "machines mostly want it: apt-get install openmpi-bin");
  if (!found("xz") || !found("bzip2")) {
    findings->Note(
        "to compare",
        "xz or bzip2 is missing; the quickstart prints their bits per byte: apt-get install xz-utils bzip2");
  }
}

// Where programs cannot be judged everything else works.
void CheckSandbox(const absl::StatusOr<std::unique_ptr<sandbox::Runner>>& runner, Findings* findings) {
  const char* const more = "; benchmarks and rewards of programs need it, see moebius sandbox check";
  if (!runner.ok()) return findings->Note("sandbox", Concat(runner.status().message(), more));
  const std::vector<std::string> missing = sandbox::NotHeld(sandbox::TryCanaries(**runner));
  if (!missing.empty()) {
    findings->Note("sandbox", Concat("programs would not be isolated: ", Join(missing), more));
  } else if (const absl::Status python = sandbox::TryLanguage(**runner, sandbox::Language::kPython);
             !python.ok()) {
    findings->Note("sandbox", Concat(python.message(), more));
  } else {
    findings->Good("sandbox", "programs are isolated, Python's are judged");
  }
}

// What is wrong with a GPU is a note: the CPU trains without.
void CheckGpus(Findings* findings) {
  const std::vector<GpuFinding> found = DescribeGpus();
  if (found.empty())
    findings->Good("gpus", "this build computes on the CPU; the preset `cuda` builds for NVIDIA GPUs");
  for (const GpuFinding& f : found) {
    f.kind == GpuFinding::Kind::kGood ? findings->Good(f.what, f.value) : findings->Note(f.what, f.value);
  }
}

absl::Status RunDoctor(const ParsedArgs&) {
  const Environment e = ReadEnvironment();
  const auto runner = sandbox::Runner::Start({.slots = 2, .without = {}});  // forks: before any thread
  Findings findings;
  findings.Good("system", Concat(e.system.empty() ? "unknown" : e.system, ", ", e.kernel));
  CheckProcessor(e, &findings);
  CheckMemory(e, &findings);
  CheckDisk(&findings);
  CheckLibraries(e, &findings);
  CheckGpus(&findings);
  CheckTerminal(&findings);
  CheckPrograms(&findings);
  CheckSandbox(runner, &findings);
  if (findings.bad() > 0) {
    return UnavailableError(
        Concat(findings.bad(), " of the lines above say BAD; training cannot work so; do what they advise"));
  }
  std::printf("\nThis machine can train.\n");
  return absl::OkStatus();
}

}  // namespace

std::vector<Verb> DoctorVerbs() {
  return {{.name = "doctor",
           .summary = "what this machine has and what is missing",
           .usage = "",
           .flags = {},
           .examples = {"moebius doctor", "cd /data && moebius doctor"},
           .run = RunDoctor}};
}

}  // namespace moebius
