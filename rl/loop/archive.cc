#include "rl/loop/archive.h"

#include <cstdio>
#include <limits>
#include <map>

#include "core/base/status.h"
#include "core/io/file.h"
#include "core/io/hdf5_file.h"

namespace moebius {
namespace {

struct Columns {
  std::vector<int32_t> tokens, prompt_tokens;
  std::vector<float> logprobs, sampling_logprobs, proximal, live, reference;
  std::vector<Route> routes;
  std::vector<int64_t> token_ends, prompt_ends, text_ends, verdict_ends, extracted_ends, route_ends, problem,
      sequence;
  std::vector<double> reward, correct, visible, differs;
  std::map<std::string, std::vector<double>> parts;
  std::vector<uint8_t> finished;
  std::string text, verdict, extracted;
};

Columns Collect(const std::vector<RolloutGroup>& groups) {
  const double none = std::numeric_limits<double>::quiet_NaN();
  Columns c;
  const auto add = [](auto& to, const auto& from) { to.insert(to.end(), from.begin(), from.end()); };
  for (const RolloutGroup& group : groups) {
    for (const RolloutSample& s : group.samples) {
      add(c.tokens, s.tokens);
      add(c.prompt_tokens, group.prompt);
      add(c.logprobs, s.logprobs);
      add(c.sampling_logprobs, s.sampling_logprobs);
      add(c.proximal, s.proximal);
      add(c.live, s.live);
      add(c.reference, s.reference);
      add(c.text, s.text);
      add(c.verdict, s.score.verdict);
      add(c.extracted, s.score.extracted);
      add(c.routes, group.prompt_routes);
      add(c.routes, s.routes);
      c.route_ends.push_back(std::ssize(c.routes));
      c.token_ends.push_back(std::ssize(c.tokens));
      c.prompt_ends.push_back(std::ssize(c.prompt_tokens));
      c.text_ends.push_back(std::ssize(c.text));
      c.verdict_ends.push_back(std::ssize(c.verdict));
      c.extracted_ends.push_back(std::ssize(c.extracted));
      c.problem.push_back(static_cast<int64_t>(group.problem));
      c.sequence.push_back(static_cast<int64_t>(s.sequence));
      for (const auto& [name, value] : s.score.parts) {
        c.parts[name].resize(c.reward.size(), none);
        c.parts[name].push_back(value);
      }
      c.reward.push_back(s.score.reward.value_or(none));
      c.correct.push_back(s.score.correct.value_or(none));
      c.visible.push_back(s.score.visible.value_or(none));
      c.differs.push_back(s.score.differs ? static_cast<double>(*s.score.differs) : none);
      c.finished.push_back(s.finished ? 1 : 0);
    }
  }
  for (auto& [name, values] : c.parts) values.resize(c.reward.size(), none);
  return c;
}

template <typename T>
absl::Status Write(Hdf5Writer& file, const std::string& name, DType dtype, const std::vector<T>& values) {
  RETURN_IF_ERROR(file.CreateDataset(name, dtype));
  return file.Append(name, std::span<const T>(values));
}

}  // namespace

std::string ArchivePath(const std::string& folder, int64_t step) {
  char name[40];
  std::snprintf(name, sizeof name, "rollout-%08lld.h5", static_cast<long long>(step));
  return JoinPath(folder, name);
}

absl::Status WriteArchive(const std::string& path, const std::vector<RolloutGroup>& groups,
                          const std::vector<double>& advantages, uint64_t seed) {
  const Columns c = Collect(groups);
  ASSIGN_OR_RETURN(Hdf5Writer file, Hdf5Writer::Create(path));
  RETURN_IF_ERROR(file.SetAttribute("format_version", 1));
  RETURN_IF_ERROR(file.SetAttribute("seed", static_cast<int64_t>(seed)));
  RETURN_IF_ERROR(Write(file, "tokens", DType::kI32, c.tokens));
  RETURN_IF_ERROR(Write(file, "prompt_tokens", DType::kI32, c.prompt_tokens));
  RETURN_IF_ERROR(Write(file, "logprobs", DType::kF32, c.logprobs));
  RETURN_IF_ERROR(Write(file, "sampling_logprobs", DType::kF32, c.sampling_logprobs));
  if (!c.proximal.empty()) RETURN_IF_ERROR(Write(file, "proximal", DType::kF32, c.proximal));
  if (!c.live.empty()) RETURN_IF_ERROR(Write(file, "live", DType::kF32, c.live));
  if (!c.reference.empty()) RETURN_IF_ERROR(Write(file, "reference", DType::kF32, c.reference));
  RETURN_IF_ERROR(Write(file, "token_ends", DType::kI64, c.token_ends));
  RETURN_IF_ERROR(Write(file, "prompt_ends", DType::kI64, c.prompt_ends));
  RETURN_IF_ERROR(Write(file, "text_ends", DType::kI64, c.text_ends));
  RETURN_IF_ERROR(Write(file, "verdict_ends", DType::kI64, c.verdict_ends));
  RETURN_IF_ERROR(Write(file, "extracted_ends", DType::kI64, c.extracted_ends));
  RETURN_IF_ERROR(Write(file, "problem", DType::kI64, c.problem));
  RETURN_IF_ERROR(Write(file, "sequence", DType::kI64, c.sequence));
  RETURN_IF_ERROR(Write(file, "reward", DType::kF64, c.reward));
  for (const auto& [name, values] : c.parts) {
    RETURN_IF_ERROR(Write(file, "reward_" + name, DType::kF64, values));
  }
  RETURN_IF_ERROR(Write(file, "correct", DType::kF64, c.correct));
  RETURN_IF_ERROR(Write(file, "visible", DType::kF64, c.visible));
  RETURN_IF_ERROR(Write(file, "differs", DType::kF64, c.differs));
  std::vector<double> all_advantages = advantages;
  all_advantages.resize(c.reward.size(), std::numeric_limits<double>::quiet_NaN());
  RETURN_IF_ERROR(Write(file, "advantage", DType::kF64, all_advantages));
  RETURN_IF_ERROR(Write(file, "finished", DType::kU8, c.finished));
  if (!c.routes.empty()) {
    const RolloutGroup& first = groups.front();
    const int64_t size = std::ssize(first.prompt_routes) / std::ssize(first.prompt);
    RETURN_IF_ERROR(file.SetAttribute("route_size", size));
    RETURN_IF_ERROR(Write(file, "routes", DType::kU16, c.routes));
    RETURN_IF_ERROR(Write(file, "route_ends", DType::kI64, c.route_ends));
  }
  RETURN_IF_ERROR(file.WriteBytes("text", c.text));
  RETURN_IF_ERROR(file.WriteBytes("verdict", c.verdict));
  RETURN_IF_ERROR(file.WriteBytes("extracted", c.extracted));
  return file.Commit().status();
}

}  // namespace moebius
