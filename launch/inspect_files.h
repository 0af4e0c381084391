// What `moebius inspect` prints of single things: models (a folder with config.json, with or without
// weights), recipes, token files and folders of them. Runs are in verb_inspect.cc.
#pragma once

#include <string>

#include "absl/status/status.h"

namespace moebius {

bool IsModelFolder(const std::string& path);
absl::Status PrintModelFolder(const std::string& path);

bool IsRecipeFile(const std::string& path);
absl::Status PrintRecipeFile(const std::string& path);

// What moebius data build makes.
bool IsDataFolder(const std::string& path);
absl::Status PrintDataFolder(const std::string& path);

bool IsTokenFile(const std::string& path);
absl::Status PrintTokenFile(const std::string& path);

}  // namespace moebius
