// JSON from files and strangers: parsed with limits, read through typed getters that name source and field.
// nlohmann::json is only declared here: a .cc that touches a value includes <nlohmann/json.hpp>.
#pragma once

#include <cstdint>
#include <limits>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace moebius {

// Arrays and objects nested deeper than this are refused while parsing (nlohmann 3.11.2 recurses when it
// copies, prints or destroys: 100,000 nested arrays end the process).
inline constexpr int kMaxJsonDepth = 64;

// One JSON value and nothing after it but white space. Refused as DamagedError with `source`, line and
// column: syntax errors, invalid UTF-8, lone surrogates, duplicate keys, NaN and infinities, numbers beyond
// double, depth above kMaxJsonDepth. Never throws. `source` is what a message calls the text, mostly a path.
absl::StatusOr<nlohmann::json> ParseJson(std::string_view text, const std::string& source);

// MissingError when there is no such file; DamagedError when larger than max_bytes or not JSON.
absl::StatusOr<nlohmann::json> ReadJsonFile(const std::string& path, int64_t max_bytes = int64_t{1} << 30);

// The text of a value; indent < 0 is one line. Invalid UTF-8 becomes U+FFFD, NaN and infinities null: never
// throws. Numbers print with as many digits as reading them back exactly takes.
std::string DumpJson(const nlohmann::json& value, int indent = -1);
// ordered_json keeps members in the order they were added (small objects only: its look-up is linear).
std::string DumpJson(const nlohmann::ordered_json& value, int indent = -1);

// Text for a message: kind and, of a small value, the text ("string \"abc\"", "array of 3").
std::string DescribeJson(const nlohmann::json& value);

// True if `object` is an object with a member `field` that is not null.
bool HasJsonField(const nlohmann::json& object, std::string_view field);

// Getters. DamagedError "SOURCE: field "f" is missing / is WHAT, expected KIND / is V, outside MIN to MAX".
// Pointers live as long as `object`. Integers must be written as integers (1.0 is refused); GetDouble takes
// both and only finite values.
absl::StatusOr<int64_t> GetInt(const nlohmann::json& object, std::string_view field,
                               const std::string& source, int64_t min = std::numeric_limits<int64_t>::min(),
                               int64_t max = std::numeric_limits<int64_t>::max());
absl::StatusOr<double> GetDouble(const nlohmann::json& object, std::string_view field,
                                 const std::string& source,
                                 double min = std::numeric_limits<double>::lowest(),
                                 double max = std::numeric_limits<double>::max());
absl::StatusOr<bool> GetBool(const nlohmann::json& object, std::string_view field, const std::string& source);
absl::StatusOr<std::string> GetString(const nlohmann::json& object, std::string_view field,
                                      const std::string& source);
absl::StatusOr<const nlohmann::json*> GetObject(const nlohmann::json& object, std::string_view field,
                                                const std::string& source);
absl::StatusOr<const nlohmann::json*> GetArray(const nlohmann::json& object, std::string_view field,
                                               const std::string& source);
absl::StatusOr<std::vector<int64_t>> GetIntArray(const nlohmann::json& object, std::string_view field,
                                                 const std::string& source,
                                                 int64_t min = std::numeric_limits<int64_t>::min(),
                                                 int64_t max = std::numeric_limits<int64_t>::max());
absl::StatusOr<std::vector<double>> GetDoubleArray(const nlohmann::json& object, std::string_view field,
                                                   const std::string& source);
absl::StatusOr<std::vector<std::string>> GetStringArray(const nlohmann::json& object, std::string_view field,
                                                        const std::string& source);

// The same with a default for a field that is absent or null; a present one of the wrong kind is an error.
absl::StatusOr<int64_t> GetIntOr(const nlohmann::json& object, std::string_view field, int64_t otherwise,
                                 const std::string& source, int64_t min = std::numeric_limits<int64_t>::min(),
                                 int64_t max = std::numeric_limits<int64_t>::max());
absl::StatusOr<double> GetDoubleOr(const nlohmann::json& object, std::string_view field, double otherwise,
                                   const std::string& source,
                                   double min = std::numeric_limits<double>::lowest(),
                                   double max = std::numeric_limits<double>::max());
absl::StatusOr<bool> GetBoolOr(const nlohmann::json& object, std::string_view field, bool otherwise,
                               const std::string& source);
absl::StatusOr<std::string> GetStringOr(const nlohmann::json& object, std::string_view field,
                                        const std::string& otherwise, const std::string& source);

}  // namespace moebius
