// What benchmark.cc chooses from; not for users of benchmarks.
#pragma once

#include <string>
#include <string_view>

#include "rl/evaluation/benchmark.h"

namespace moebius {

absl::StatusOr<Benchmark> MakeGsm8k(const BenchmarkOptions& options);
absl::StatusOr<Benchmark> MakeMath(const BenchmarkOptions& options);
absl::StatusOr<Benchmark> MakeAime(const BenchmarkOptions& options);
absl::StatusOr<Benchmark> MakeMmlu(const BenchmarkOptions& options);
absl::StatusOr<Benchmark> MakeHumanEval(const BenchmarkOptions& options);
absl::StatusOr<Benchmark> MakeMbpp(const BenchmarkOptions& options);
// Held-out items of `kind` (rl/tasks); examples come from its training items.
absl::StatusOr<Benchmark> MakeProcedural(const std::string& kind, const BenchmarkOptions& options);

// `wanted`, where `source` has so many examples: fewer are an error where the user has asked for more, else
// all that there are.
absl::StatusOr<int64_t> ShotsOf(const BenchmarkOptions& options, const std::string& source, int64_t examples,
                                int64_t wanted);

// "5 shots, text", "0 shots, chat"
std::string ProtocolText(int64_t shots, Asking asking);

}  // namespace moebius
