// From a recipe to the model that it trains.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/model/config.h"
#include "launch/recipe.h"

namespace moebius {

// A recipe with its model known: what the recipe leaves open is filled in from init.from's config.json, the
// tokenizer, or that of the data if there is some.
absl::StatusOr<ModelConfig> ResolveModel(Recipe& recipe);
// Of a run that has begun, or of a fork, without that folder too: what it has of init.from its checkpoints
// have, and are read for it.
absl::StatusOr<ModelConfig> ResolveModelOfRun(Recipe& recipe, const std::string& run_folder);
// MissingError if the data, which ResolveModel does without, is not there.
absl::Status CheckTextsExist(const proto::Recipe& recipe);

}  // namespace moebius
