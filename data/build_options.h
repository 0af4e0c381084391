// The data sections of recipes as values that code reads; the only place where defaults and ranges of
// data.proto's fields are turned into options.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "data/document_set.h"
#include "data/loader.h"

namespace moebius {

namespace proto {
class Data;
class DataBuild;
}  // namespace proto

// Checks every field of the recipe; UsageError (64) names the field.
absl::StatusOr<DocumentSetOptions> DocumentSetOptionsFrom(const proto::DataBuild& recipe);

// `vocab_size` is the model's, 0 for unknown.
absl::StatusOr<LoaderOptions> LoaderOptionsFrom(const proto::Data& data, int64_t sequence_length,
                                                int64_t vocab_size, uint64_t seed);

}  // namespace moebius
