#include "launch/verb_bench_kernels.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "core/backend/device.h"
#include "core/backend/measure.h"
#include "core/base/nearest.h"
#include "core/base/status.h"
#include "core/base/strings.h"
#include "launch/bench/kernel_cases.h"

namespace moebius {
namespace {

struct Limits {
  double copy, fp32, bf16;  // bytes/s, FLOP/s
};
struct Measured {
  double seconds, flops, bytes;  // of a call
};

double SecondsSince(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// The mean of enough back-to-back calls for a launch to cost nothing, best of a few rounds. Calls go round
// over input sets that together no cache holds.
Measured Measure(const KernelCase& test, KernelInputs& inputs, Arena& arena, int64_t set_bytes) {
  constexpr double kRoundSeconds = 0.04;
  constexpr int kRounds = 4, kMostSets = 64, kMostCalls = 2000;
  arena.Reset();
  std::vector<KernelCall> sets = {test.make(inputs)};
  const int64_t count = std::min<int64_t>(set_bytes / std::max<int64_t>(arena.bytes(), 1) + 1, kMostSets);
  while (static_cast<int64_t>(sets.size()) < count) sets.push_back(test.make(inputs));
  KernelProfile profile;
  Context context = inputs.context();
  context.profile = &profile;
  sets[0](context);  // counts its work, and warms up
  const auto& work = profile.entries().begin()->second;
  context.profile = nullptr;
  const auto round = [&](int64_t calls) {
    context.stream.Synchronize();
    const auto start = std::chrono::steady_clock::now();
    for (int64_t i = 0; i < calls; ++i) sets[i % sets.size()](context);
    context.stream.Synchronize();
    return SecondsSince(start) / static_cast<double>(calls);
  };
  double best = round(static_cast<int64_t>(sets.size()));
  const auto calls = std::clamp<int64_t>(static_cast<int64_t>(kRoundSeconds / best), 1, kMostCalls);
  for (int i = 0; i < kRounds; ++i) best = std::min(best, round(calls));
  return {.seconds = best, .flops = work.flops, .bytes = work.bytes};
}

void Print(const KernelCase& test, const Measured& m, const Limits& limits) {
  const double peak = test.what.starts_with("fp32") ? limits.fp32 : limits.bf16;
  std::printf("%-21s %-42s %10.1f %9.1f %6.0f%% %9.2f %6.0f%%\n", test.kernel.c_str(), test.what.c_str(),
              m.seconds * 1e6, m.bytes / m.seconds / 1e9, 100 * m.bytes / m.seconds / limits.copy,
              m.flops / m.seconds / 1e12, 100 * m.flops / m.seconds / peak);
  std::fflush(stdout);
}

void PrintJson(const KernelCase& test, const Measured& m, const Limits& limits) {
  const double peak = test.what.starts_with("fp32") ? limits.fp32 : limits.bf16;
  const nlohmann::ordered_json line = {{"kernel", test.kernel},
                                       {"what", test.what},
                                       {"seconds", m.seconds},
                                       {"bytes", m.bytes},
                                       {"flops", m.flops},
                                       {"of_copy", m.bytes / m.seconds / limits.copy},
                                       {"of_peak", m.flops / m.seconds / peak}};
  std::printf("%s\n", line.dump().c_str());
  std::fflush(stdout);
}

// The cases of kernels whose names begin with `only`, in the order of the table.
absl::StatusOr<std::vector<KernelCase>> CasesOf(const KernelSizes& sizes, const std::string& only) {
  std::vector<KernelCase> cases;
  std::vector<std::string> names;
  for (const auto& list : {FlatCases(sizes), RowCases(sizes), RoutingCases(sizes), ProductCases(sizes)}) {
    for (const KernelCase& test : list) {
      if (std::find(names.begin(), names.end(), test.kernel) == names.end()) names.push_back(test.kernel);
      if (test.kernel.starts_with(only)) cases.push_back(test);
    }
  }
  if (!cases.empty()) return cases;
  const std::string nearest = Nearest(only, names);
  return UsageError(Concat("--only ", Printable(only), "; no kernel's name begins so; ",
                           nearest.empty() ? "choose of " + Join(names) : "did you mean " + nearest + "?"));
}

absl::Status RunBenchKernels(const ParsedArgs& args) {
  const Device device = *DeviceFromName(args.Text("device"));
  const bool gpu = device == Device::kCuda;
  ASSIGN_OR_RETURN(const std::vector<KernelCase> cases, CasesOf(SizesOf(gpu), args.Text("only")));
  ASSIGN_OR_RETURN(const std::unique_ptr<Backend> backend,
                   MakeBackend({.device = device, .threads = static_cast<int>(args.Integer("threads"))}));
  const Limits limits{.copy = MeasureCopyBandwidth(*backend),
                      .fp32 = MeasureProductPeak(*backend, DType::kF32),
                      .bf16 = MeasureProductPeak(*backend, DType::kBF16)};
  const bool json = args.On("json");
  if (!json) {
    std::printf("%s: copy %.1f GB/s read and written, products %.2f TFLOP/s fp32, %.2f bf16\n\n",
                backend->Name().c_str(), limits.copy / 1e9, limits.fp32 / 1e12, limits.bf16 / 1e12);
    std::printf("%-21s %-42s %10s %9s %7s %9s %7s\n", "kernel", "dtype and sizes", "us", "GB/s", "of copy",
                "TFLOP/s", "of peak");
  }
  const std::unique_ptr<Stream> stream = backend->NewStream(StreamKind::kCompute);
  Arena scratch(*backend), arena(*backend, int64_t{1} << (gpu ? 30 : 24));
  KernelInputs inputs(*backend, *stream, scratch, arena);
  for (const KernelCase& test : cases) {
    const Measured measured = Measure(test, inputs, arena, int64_t{gpu ? 512 : 128} << 20);
    json ? PrintJson(test, measured, limits) : Print(test, measured, limits);
  }
  return absl::OkStatus();
}

}  // namespace

Verb BenchKernelsVerb() {
  return {.name = "bench kernels",
          .summary = "every kernel of a backend against this machine's copy bandwidth and product peak",
          .usage = "[flags]",
          .flags = {{.name = "only",
                     .placeholder = "NAME",
                     .help = "kernels whose names start so: RmsNorm, GroupedMatMul"},
                    {.name = "json",
                     .kind = FlagKind::kSwitch,
                     .help = "print a line of JSON for each kernel instead of a table"},
                    DeviceFlag(),
                    ThreadsFlag()},
          .examples = {"moebius bench kernels --only RmsNorm", "moebius bench kernels --device cuda --json"},
          .details =
              "Times are means of many calls in a row over input sets larger than the caches. Bytes count "
              "what a call must read and write once; the copy that they are compared with counts its "
              "reads and writes too.",
          .run = RunBenchKernels};
}

}  // namespace moebius
