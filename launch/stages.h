// The stages of a recipe of task PIPELINE, each a run of its own in a folder of the whole.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "launch/recipe.h"

namespace moebius {

// Of a pipeline in `path`, stage i's own folder there: "01-sft".
std::string StageFolder(const proto::Recipe& pipeline, const std::string& path, int i);

// The recipe of stage i, with {NAME} of earlier stages replaced by their folders. `recipe_path` is the
// pipeline's file, which the stages' files are relative to. UsageError where a stage asks for other settings
// of the job than the pipeline, whose processes all stages run in.
absl::StatusOr<Recipe> LoadStage(const Recipe& pipeline, const std::string& recipe_path,
                                 const std::string& path, int i);

// What a stage came to, for the table at the end: its last evaluation and the time it took.
std::string StageLine(const std::string& name, const std::string& folder);

}  // namespace moebius
