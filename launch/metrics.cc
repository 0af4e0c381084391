#include "launch/metrics.h"

#include <charconv>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "core/base/status.h"
#include "core/base/strings.h"
#include "core/io/file.h"
#include "core/io/json.h"

namespace moebius {
namespace {

void AppendNumber(double value, std::string* out) {
  if (!std::isfinite(value)) {
    *out += "null";
    return;
  }
  char digits[32];
  // Whole numbers without exponent: scripts read "tokens" as an integer.
  const bool whole = value == std::floor(value) && std::fabs(value) < 0x1p53;
  const auto result = whole ? std::to_chars(digits, digits + sizeof digits, static_cast<int64_t>(value))
                            : std::to_chars(digits, digits + sizeof digits, value);
  out->append(digits, result.ptr);
}

void AppendShare(double value, std::string* out) {
  char digits[32];
  const auto result = std::to_chars(digits, digits + sizeof digits, value, std::chars_format::general, 4);
  out->append(digits, result.ptr);
}

}  // namespace

void MetricsRow::Set(std::string_view name, double value) {
  for (auto& [key, old] : values) {
    if (key == name) {
      old = value;
      return;
    }
  }
  values.emplace_back(name, value);
}

std::optional<double> MetricsRow::Get(std::string_view name) const {
  for (const auto& [key, value] : values) {
    if (key == name) return value;
  }
  return std::nullopt;
}

std::string MetricsLine(const MetricsRow& row) {
  std::string out = Concat("{\"step\":", row.step);
  for (const auto& [name, value] : row.values) {
    out += "," + DumpJson(nlohmann::json(name)) + ":";
    AppendNumber(value, &out);
  }
  return out + "}";
}

absl::StatusOr<std::vector<MetricsRow>> ReadMetrics(const std::string& path) {
  std::vector<MetricsRow> rows;
  RETURN_IF_ERROR(ReadJsonLines(path, [&](const nlohmann::json& object, int64_t number) -> absl::Status {
    const std::string source = Concat(path, ", line ", number);
    MetricsRow row;
    ASSIGN_OR_RETURN(row.step, GetInt(object, "step", source, 0));
    for (const auto& [name, value] : object.items()) {
      if (name == "step") continue;
      if (value.is_number()) row.values.emplace_back(name, value.get<double>());
      if (value.is_null()) row.values.emplace_back(name, std::numeric_limits<double>::quiet_NaN());
    }
    rows.push_back(std::move(row));
    return absl::OkStatus();
  }));
  return rows;
}

std::string ExpertLoadLine(const ExpertLoadRow& row) {
  std::string out = Concat("{\"step\":", row.step, ",\"load\":[");
  for (size_t layer = 0; layer < row.load.size(); ++layer) {
    out += layer == 0 ? "[" : ",[";
    for (size_t expert = 0; expert < row.load[layer].size(); ++expert) {
      if (expert > 0) out += ",";
      AppendShare(row.load[layer][expert], &out);
    }
    out += "]";
  }
  return out + "]}";
}

absl::StatusOr<std::vector<ExpertLoadRow>> ReadExpertLoad(const std::string& path) {
  std::vector<ExpertLoadRow> rows;
  RETURN_IF_ERROR(ReadJsonLines(path, [&](const nlohmann::json& object, int64_t number) -> absl::Status {
    const std::string source = Concat(path, ", line ", number);
    ExpertLoadRow row;
    ASSIGN_OR_RETURN(row.step, GetInt(object, "step", source, 0));
    ASSIGN_OR_RETURN(const nlohmann::json* load, GetArray(object, "load", source));
    for (const nlohmann::json& layer : *load) {
      const nlohmann::json wrapped = {{"load", layer}};
      ASSIGN_OR_RETURN(row.load.emplace_back(), GetDoubleArray(wrapped, "load", source));
    }
    rows.push_back(std::move(row));
    return absl::OkStatus();
  }));
  return rows;
}

std::string SampleLine(const SampleRow& row) {
  nlohmann::ordered_json line{{"step", row.step}, {"prompt", row.prompt}, {"text", row.text}};
  if (!row.gold.empty()) line["gold"] = row.gold;
  if (!row.verdict.empty()) line["verdict"] = row.verdict;
  for (const auto& [name, value] : row.values) line["values"][name] = value;
  return DumpJson(line);
}

absl::StatusOr<std::vector<SampleRow>> ReadSamples(const std::string& folder) {
  std::vector<SampleRow> rows;
  ASSIGN_OR_RETURN(const std::vector<std::string> names, ListDir(folder));
  for (const std::string& name : names) {  // sorted, and steps have leading zeros
    if (!name.starts_with("step-") || !name.ends_with(".jsonl")) continue;
    const std::string path = JoinPath(folder, name);
    RETURN_IF_ERROR(ReadJsonLines(path, [&](const nlohmann::json& object, int64_t number) -> absl::Status {
      const std::string source = Concat(path, ", line ", number);
      SampleRow row;
      ASSIGN_OR_RETURN(row.step, GetInt(object, "step", source, 0));
      ASSIGN_OR_RETURN(row.prompt, GetString(object, "prompt", source));
      ASSIGN_OR_RETURN(row.text, GetString(object, "text", source));
      ASSIGN_OR_RETURN(row.gold, GetStringOr(object, "gold", "", source));
      ASSIGN_OR_RETURN(row.verdict, GetStringOr(object, "verdict", "", source));
      if (HasJsonField(object, "values")) {
        for (const auto& [name, value] : object["values"].items()) {
          row.values.emplace_back(
              name, value.is_number() ? value.get<double>() : std::numeric_limits<double>::quiet_NaN());
        }
      }
      rows.push_back(std::move(row));
      return absl::OkStatus();
    }));
  }
  return rows;
}

}  // namespace moebius
