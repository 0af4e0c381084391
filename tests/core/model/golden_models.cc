#include "tests/core/model/golden_models.h"

#include <nlohmann/json.hpp>
#include <sstream>

#include "core/base/check.h"
#include "core/io/file.h"
#include "core/io/json.h"

namespace moebius {
namespace {

using nlohmann::json;

std::string Text(const std::string& path) {
  absl::StatusOr<std::string> text = ReadFile(path);
  CHECK(text.ok()) << std::string(text.status().message());
  return *std::move(text);
}

json Parse(const std::string& text, const std::string& source) {
  absl::StatusOr<json> value = ParseJson(text, source);
  CHECK(value.ok()) << std::string(value.status().message());
  return *std::move(value);
}

template <typename T>
std::vector<std::vector<T>> Lines(const std::string& path, const char* field) {
  std::vector<std::vector<T>> out;
  std::istringstream lines(Text(path));
  for (std::string line; std::getline(lines, line);) {
    if (!line.empty()) out.push_back(Parse(line, path).at(field).get<std::vector<T>>());
  }
  return out;
}

GoldenTraining ReadTraining(const std::string& path) {
  const json value = Parse(Text(path), path);
  GoldenTraining out;
  out.sequences = value.at("sequences").get<int64_t>();
  out.sequence_length = value.at("sequence_length").get<int64_t>();
  out.tokens = value.at("tokens").get<std::vector<int32_t>>();
  for (const auto& [name, run] : value.at("runs").items()) {
    GoldenRun& r = out.runs.emplace_back();
    r.name = name;
    r.sequence_loss = run.at("sequence_loss_alpha").get<double>();
    r.bias_update_speed = run.at("bias_update_speed").get<double>();
    r.mtp_loss_weight = run.at("mtp_loss_weight").get<double>();
    for (const json& step : run.at("steps")) {
      r.steps.push_back({step.get<std::map<std::string, double>>()});
    }
  }
  return out;
}

}  // namespace

std::vector<int32_t> GoldenTraining::Batch(int64_t step) const {
  std::vector<int32_t> out;
  for (int64_t s = step * sequences; s < (step + 1) * sequences; ++s) {
    const auto first = tokens.begin() + s * sequence_length;
    out.insert(out.end(), first, first + sequence_length + 1);
  }
  return out;
}

GoldenModel ReadGoldenModel(const std::string& folder) {
  GoldenModel out;
  out.folder = JoinPath(folder, "model");
  out.score_input = Lines<int32_t>(JoinPath(folder, "score_input.jsonl"), "ids");
  out.score_expected = Lines<double>(JoinPath(folder, "score_expected.jsonl"), "logprobs");
  CHECK_EQ(out.score_input.size(), out.score_expected.size());
  const std::string train = JoinPath(folder, "train.json");
  out.trains = FileExists(train);
  if (out.trains) out.training = ReadTraining(train);
  return out;
}

std::vector<std::string> GoldenFolders(const std::string& root) {
  const std::string models = JoinPath(root, "golden/models");
  std::vector<std::string> out;
  absl::StatusOr<std::vector<std::string>> names = ListDir(models);
  CHECK(names.ok()) << std::string(names.status().message());
  for (const std::string& name : *names) {
    if (FileExists(JoinPath(models, name + "/score_input.jsonl"))) out.push_back(JoinPath(models, name));
  }
  return out;
}

}  // namespace moebius
