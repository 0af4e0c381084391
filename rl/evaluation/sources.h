// Reading a benchmark's files from the user's folder, with their hashes.
#pragma once

#include <cstdint>
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/status.h"
#include "rl/evaluation/benchmark.h"

namespace moebius {

struct CsvRow {
  std::vector<std::string> fields = {};
  int64_t line = 0;  // that the row begins on, from 1
};

// What may stand behind a file's name: nothing, or how it is packed.
inline constexpr std::string_view kPackedEndings[] = {"", ".gz", ".zst"};

class SourceReader {
 public:
  // `benchmark` is for messages.
  SourceReader(std::string folder, std::string benchmark)
      : folder_(std::move(folder)), benchmark_(std::move(benchmark)) {}

  // The path of the first of `names` (relative, also with .gz or .zst) that exists. MissingError naming them.
  absl::StatusOr<std::string> Find(const std::vector<std::string>& names) const;

  // Calls `row` for every line of a JSONL file, in order; empty lines are passed over. Ends at the first
  // error, of `row` too. DamagedError naming the line for one that is no JSON object, or a file without any.
  absl::Status ReadJsonRows(
      const std::string& path,
      const std::function<absl::Status(const nlohmann::json& object, const std::string& where)>& row);

  // A CSV file whole. A first row that begins with `first` and ends with `last` names columns: it is passed
  // over, and counts as no row.
  absl::StatusOr<std::vector<CsvRow>> ReadCsv(const std::string& path, std::string_view first,
                                              std::string_view last);

  std::vector<SourceFile> TakeFiles() { return std::move(files_); }

 private:
  std::string folder_, benchmark_;
  std::vector<SourceFile> files_;
};

// Rows of comma-separated text (RFC 4180): quoted fields may hold commas, line ends and doubled quotes. A row
// with one empty field (an empty line) is dropped. DamagedError naming `source` and the line for a quote that
// is never closed or stands inside a field.
absl::StatusOr<std::vector<CsvRow>> ParseCsv(std::string_view text, const std::string& source);

// The one combined hash of several files: SHA-256 of their hex hashes, a line each, in order.
std::string HashOfHashes(const std::vector<SourceFile>& files);

}  // namespace moebius
