#include "launch/report/run_data.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>

#include "core/base/log.h"
#include "core/base/status.h"
#include "core/base/strings.h"
#include "core/io/file.h"
#include "core/io/json.h"
#include "core/model/config.h"
#include "launch/recipe.h"
#include "launch/recipe.pb.h"
#include "launch/run_folder.h"

namespace moebius {
namespace {

constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

// The objects of `environment.json` in file order. ParseJson sorts keys, so the order comes from the text.
absl::StatusOr<std::vector<std::pair<std::string, std::string>>> ReadEnvironmentFile(
    const std::string& path) {
  ASSIGN_OR_RETURN(const std::string text, ReadFile(path, 1 << 20));
  ASSIGN_OR_RETURN(const nlohmann::json json, ParseJson(text, path));
  std::vector<std::pair<std::string, std::string>> out;
  if (!json.is_object())
    return DamagedError(Concat(path, ": not a JSON object; the file is damaged; remove it"));
  for (const auto& [key, value] : json.items()) {
    std::string shown = value.is_string() ? value.get<std::string>() : DumpJson(value);
    if (value.is_array()) {
      std::vector<std::string> parts;
      for (const auto& part : value)
        parts.push_back(part.is_string() ? part.get<std::string>() : DumpJson(part));
      shown = Join(parts, " ");
    }
    if (key.ends_with("_bytes") && value.is_number()) shown = HumanBytes(value.get<double>());
    out.emplace_back(key, shown);
  }
  std::stable_sort(out.begin(), out.end(), [&text](const auto& a, const auto& b) {
    return text.find("\"" + a.first + "\"") < text.find("\"" + b.first + "\"");
  });
  return out;
}

// Names of the layers whose experts are counted, in that order: numbers as in "model.layers.3".
std::vector<std::string> MoeLayerNames(const ModelConfig& config) {
  std::vector<std::string> names;
  for (int64_t l = 0; l < config.num_hidden_layers + config.num_nextn_predict_layers; ++l) {
    const int64_t module = l - config.num_hidden_layers + 1;
    if (config.IsMoe(l)) names.push_back(module > 0 ? Concat("MTP ", module) : Concat("Layer ", l));
  }
  return names;
}

void ReadRecipe(const Recipe& recipe, RunData* run) {
  run->recipe = recipe.Values();
  if (auto form = AnswerForm::Make(recipe.proto().answer()); form.ok()) run->answer_form = *std::move(form);
  if (const auto config = ConfigFromProto(recipe.proto().model()); config.ok())
    run->load_layers = MoeLayerNames(*config);
}

}  // namespace

std::vector<Point> RunData::Series(std::string_view metric) const {
  std::vector<Point> points;
  for (const MetricsRow& row : metrics) {
    const std::optional<double> value = row.Get(metric);
    if (value && std::isfinite(*value)) points.push_back({static_cast<double>(row.step), *value});
  }
  return points;
}

std::string RunData::RecipeValue(const std::string& path) const {
  const auto it = recipe.find(path);
  if (it == recipe.end()) return "";
  const std::string& text = it->second;
  return text.size() >= 2 && text.front() == '"' ? text.substr(1, text.size() - 2) : text;
}

std::vector<std::string> RunData::Names(std::string_view prefix) const {
  std::set<std::string> names;
  for (const MetricsRow& row : metrics) {
    for (const auto& [name, value] : row.values) {
      if (name.starts_with(prefix)) names.insert(name.substr(prefix.size()));
    }
  }
  return {names.begin(), names.end()};
}

std::vector<std::string> RunData::Evaluations() const {
  std::vector<std::string> names = Names("eval/");
  std::erase_if(names, [](const std::string& name) {
    const size_t tail = name.rfind('_');
    if (tail == std::string::npos) return false;
    const std::string_view what = std::string_view(name).substr(tail);
    return what == "_ci" || what == "_undecided" ||
           (what.starts_with("_pass") && what.find_first_not_of("0123456789", 5) == std::string_view::npos);
  });
  return names;
}

absl::StatusOr<RunData> ReadRun(const std::string& path) {
  ASSIGN_OR_RETURN(const RunFolder folder, RunFolder::OpenForReading(path));
  RunData run;
  run.path = path;
  run.name = FileName(std::filesystem::absolute(path).lexically_normal().string());
  if (FileExists(folder.metrics_path())) {  // not before the first step
    ASSIGN_OR_RETURN(run.metrics, ReadMetrics(folder.metrics_path()));
  }
  if (FileExists(folder.expert_load_path())) {
    ASSIGN_OR_RETURN(run.loads, ReadExpertLoad(folder.expert_load_path()));
  }
  if (FolderExists(folder.samples_path())) {
    ASSIGN_OR_RETURN(run.samples, ReadSamples(folder.samples_path()));
  }
  if (FileExists(folder.recipe_path())) {
    ASSIGN_OR_RETURN(run.recipe_text, ReadFile(folder.recipe_path(), 4 << 20));
    // Another version's may have fields that this one does not know: what it trained is there all the same.
    const absl::StatusOr<Recipe> recipe = Recipe::LoadUnchecked(folder.recipe_path());
    if (recipe.ok()) {
      ReadRecipe(*recipe, &run);
    } else {
      LogLine(Concat("warning: ", recipe.status().message(), "; the report shows the recipe as text alone"));
    }
  }
  if (FileExists(folder.environment_path())) {
    ASSIGN_OR_RETURN(run.environment, ReadEnvironmentFile(folder.environment_path()));
  }
  return run;
}

double LastValue(const std::vector<Point>& series) { return series.empty() ? kNone : series.back().y; }

double LowestValue(const std::vector<Point>& series) {
  double low = kNone;
  for (const Point& p : series) low = std::isnan(low) ? p.y : std::min(low, p.y);
  return low;
}

double MedianValue(const std::vector<Point>& series) {
  if (series.empty()) return kNone;
  std::vector<double> values;
  for (const Point& p : series) values.push_back(p.y);
  std::nth_element(values.begin(), values.begin() + values.size() / 2, values.end());
  return values[values.size() / 2];
}

double TailMean(const std::vector<Point>& series, size_t count) {
  if (series.empty() || count == 0) return kNone;
  double sum = 0;
  const size_t begin = series.size() - std::min(count, series.size());
  for (size_t i = begin; i < series.size(); ++i) sum += series[i].y;
  return sum / static_cast<double>(series.size() - begin);
}

}  // namespace moebius
