// Recipes as text, and what is wrong with them.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "core/base/status.h"
#include "launch/recipe.h"

namespace moebius {

inline constexpr char kMinimalRecipe[] = R"(
name: "tiny"
init { from: "model" }
data { train: "train.h5" validation: "val.h5" shuffle: true pack: CONTIGUOUS }
batch { sequences: 16 sequence_length: 512 microbatch_sequences: 2 }
steps: 500
seed: 1
)";

inline absl::StatusOr<Recipe> ReadRecipe(const std::string& text, const std::vector<std::string>& sets = {}) {
  return Recipe::FromText(text, "r.textproto", sets);
}

inline std::string RecipeError(const std::string& text, const std::vector<std::string>& sets = {}) {
  const auto recipe = ReadRecipe(text, sets);
  EXPECT_FALSE(recipe.ok());
  EXPECT_EQ(ExitCode(recipe.status()), kExitUsage);
  return std::string(recipe.status().message());
}

inline void ExpectHas(const std::string& text, const std::string& part) {
  EXPECT_NE(text.find(part), std::string::npos) << "looking for: " << part << "\nin: " << text;
}

}  // namespace moebius
