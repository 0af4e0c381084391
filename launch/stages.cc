#include "launch/stages.h"

#include <algorithm>
#include <cstdio>
#include <vector>

#include "core/base/status.h"
#include "core/base/strings.h"
#include "core/io/file.h"
#include "launch/metrics.h"
#include "launch/recipe.pb.h"

namespace moebius {
namespace {

// A recipe field that the processes of a job are set up with, before any stage begins.
struct JobSetting {
  const char* field;
  bool given;  // else `value` is the default
  double value;
};

std::vector<JobSetting> JobSettings(const proto::Recipe& r) {
  const proto::Parallel& p = r.parallel();
  const proto::Link &within = p.within_node(), &between = p.between_nodes();
  return {
      {"parallel.ranks_per_node", p.has_ranks_per_node(), static_cast<double>(p.ranks_per_node())},
      {"parallel.hang_limit_s", p.has_hang_limit_s(), p.hang_limit_s()},
      {"parallel.within_node.gigabytes_per_s", within.has_gigabytes_per_s(), within.gigabytes_per_s()},
      {"parallel.within_node.latency_us", within.has_latency_us(), within.latency_us()},
      {"parallel.between_nodes.gigabytes_per_s", between.has_gigabytes_per_s(), between.gigabytes_per_s()},
      {"parallel.between_nodes.latency_us", between.has_latency_us(), between.latency_us()},
  };
}

// UsageError where a stage asks for another setting than the pipeline's, which all stages get.
absl::Status CheckJobSettings(const proto::Recipe& pipeline, const proto::Recipe& stage,
                              const std::string& name) {
  const std::vector<JobSetting> whole = JobSettings(pipeline), asked = JobSettings(stage);
  for (size_t i = 0; i < whole.size(); ++i) {
    if (!asked[i].given || asked[i].value == whole[i].value) continue;
    return UsageError(Concat("stage ", name, ": ", asked[i].field, " is ", asked[i].value,
                             ", of the pipeline ", whole[i].value,
                             "; all stages run in the same processes; set it in the pipeline's recipe"));
  }
  return absl::OkStatus();
}

}  // namespace

std::string StageFolder(const proto::Recipe& r, const std::string& path, int i) {
  char number[16];
  std::snprintf(number, sizeof number, "%02d-", i + 1);
  return JoinPath(path, number + r.stage(i).name());
}

absl::StatusOr<Recipe> LoadStage(const Recipe& pipeline, const std::string& recipe_path,
                                 const std::string& path, int i) {
  const proto::Recipe& r = pipeline.proto();
  const proto::Stage& stage = r.stage(i);
  std::vector<std::string> sets = {Concat("name=", stage.name())};
  // What holds for the whole.
  if (r.has_seed()) sets.push_back(Concat("seed=", r.seed()));
  if (r.has_threads()) sets.push_back(Concat("threads=", r.threads()));
  if (r.has_device()) sets.push_back(Concat("device=", proto::Device_Name(r.device())));
  bool has_start = false;
  for (std::string set : stage.set()) {
    for (int j = 0; j < i; ++j) {
      const std::string mark = Concat("{", r.stage(j).name(), "}");
      for (size_t at; (at = set.find(mark)) != std::string::npos;)
        set.replace(at, mark.size(), StageFolder(r, path, j));
    }
    has_start |= set.starts_with("init.") || set.starts_with("init=");
    sets.push_back(std::move(set));
  }
  if (i > 0 && !has_start) {
    sets.push_back(Concat("init.from=\"", StageFolder(r, path, i - 1), "/checkpoints/latest\""));
  }
  const size_t slash = recipe_path.rfind('/');
  const std::string folder = slash == std::string::npos ? "." : recipe_path.substr(0, slash);
  const std::string file =
      stage.recipe().starts_with("/") ? stage.recipe() : JoinPath(folder, stage.recipe());
  absl::StatusOr<Recipe> loaded = Recipe::Load(file, sets);
  RETURN_IF_ERROR(Annotate(loaded.status(), Concat("stage ", stage.name())));
  RETURN_IF_ERROR(CheckJobSettings(r, loaded->proto(), stage.name()));
  return loaded;
}

std::string StageLine(const std::string& name, const std::string& folder) {
  std::string line = Concat(name, std::string(name.size() < 24 ? 24 - name.size() : 1, ' '));
  const auto rows = ReadMetrics(JoinPath(folder, "metrics.jsonl"));
  if (!rows.ok() || rows->empty()) return line + "\n";
  char text[96];
  for (const auto& [key, value] : rows->back().values) {
    if (!key.starts_with("eval/")) continue;
    std::snprintf(text, sizeof text, "%s %.3f  ", key.c_str() + 5, value);
    line += text;
  }
  // A validation that was caught up has a row without a time.
  const auto timed = std::find_if(rows->rbegin(), rows->rend(),
                                  [](const MetricsRow& row) { return row.Get("time_s").has_value(); });
  std::snprintf(text, sizeof text, "%.0f s\n", timed == rows->rend() ? 0 : *timed->Get("time_s"));
  return line + text;
}

}  // namespace moebius
