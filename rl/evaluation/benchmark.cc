#include "rl/evaluation/benchmark.h"

#include <algorithm>
#include <utility>

#include "core/base/nearest.h"
#include "core/base/strings.h"
#include "rl/evaluation/makers.h"

namespace moebius {
namespace {

using Maker = absl::StatusOr<Benchmark> (*)(const BenchmarkOptions&);
constexpr std::pair<std::string_view, Maker> kMakers[] = {{"gsm8k", MakeGsm8k},         {"math", MakeMath},
                                                          {"aime", MakeAime},           {"mmlu", MakeMmlu},
                                                          {"humaneval", MakeHumanEval}, {"mbpp", MakeMbpp}};
constexpr std::string_view kProcedural[] = {"sort", "add", "multiply", "countdown", "maze", "logic"};

}  // namespace

absl::StatusOr<int64_t> ShotsOf(const BenchmarkOptions& options, const std::string& source, int64_t examples,
                                int64_t wanted) {
  if (examples >= wanted || !options.shots) return std::min(examples, wanted);
  return UsageError(Concat(source, ": has ", examples, " worked examples; --shots is ", wanted, "; give ",
                           examples, " or less"));
}

std::string ProtocolText(int64_t shots, Asking asking) {
  return Concat(shots, shots == 1 ? " shot, " : " shots, ", asking == Asking::kChat ? "chat" : "text");
}

std::vector<std::string> BenchmarkNames() {
  std::vector<std::string> names;
  for (const auto& [name, maker] : kMakers) names.emplace_back(name);
  for (const std::string_view name : kProcedural) names.emplace_back(name);
  return names;
}

absl::Status CheckBenchmarkName(const std::string& name) {
  const std::vector<std::string> names = BenchmarkNames();
  if (std::find(names.begin(), names.end(), name) != names.end()) return absl::OkStatus();
  const std::string nearest = Nearest(name, names);
  return UsageError(Concat("no benchmark \"", Printable(name), "\"; the benchmarks are ", Join(names), "; ",
                           nearest.empty() ? "choose one" : Concat("did you mean ", nearest, "?")));
}

bool NeedsSandbox(const std::string& name) { return name == "humaneval" || name == "mbpp"; }

absl::StatusOr<Benchmark> MakeBenchmark(const std::string& name, const BenchmarkOptions& options) {
  RETURN_IF_ERROR(CheckBenchmarkName(name));
  if (NeedsSandbox(name) && options.sandbox == nullptr) {
    return UnavailableError(Concat(name,
                                   " runs programs that a model wrote; there is no sandbox to run them in; "
                                   "start one first"));
  }
  Maker make = nullptr;
  for (const auto& [known, maker] : kMakers)
    if (known == name) make = maker;
  ASSIGN_OR_RETURN(Benchmark benchmark, make != nullptr ? make(options) : MakeProcedural(name, options));
  benchmark.name = name;
  return benchmark;
}

}  // namespace moebius
