#include "rl/evaluation/sources.h"

#include <nlohmann/json.hpp>

#include "core/base/strings.h"
#include "core/io/byte_source.h"
#include "core/io/file.h"
#include "core/io/hash.h"
#include "core/io/json.h"
#include "core/io/line_reader.h"

namespace moebius {
namespace {

constexpr int64_t kMaxCsvBytes = int64_t{1} << 28;

class CsvParser {
 public:
  CsvParser(std::string_view text, const std::string& source) : text_(text), source_(source) {}

  absl::StatusOr<std::vector<CsvRow>> Parse() {
    if (text_.starts_with("\xEF\xBB\xBF")) at_ = 3;
    std::vector<CsvRow> rows;
    while (at_ < text_.size()) {
      CsvRow row{.line = line_};
      do {
        ASSIGN_OR_RETURN(std::string field, Field());
        row.fields.push_back(std::move(field));
      } while (Take(','));
      Take('\r');
      if (at_ < text_.size() && !Take('\n')) {
        return DamagedError(Concat(Where(),
                                   ": text behind a quoted field; a quote inside a field is doubled "
                                   "and the field quoted; write the file again"));
      }
      ++line_;
      if (row.fields.size() > 1 || !row.fields[0].empty()) rows.push_back(std::move(row));
    }
    return rows;
  }

 private:
  bool Take(char c) {
    if (at_ >= text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }

  std::string Where() const { return Concat(source_, " line ", line_); }

  absl::StatusOr<std::string> Field() {
    std::string field;
    if (!Take('"')) {
      while (at_ < text_.size() && text_[at_] != ',' && text_[at_] != '\n' && text_[at_] != '\r') {
        if (text_[at_] == '"') {
          return DamagedError(Concat(Where(),
                                     ": a quote inside a field that is not quoted; it would have to "
                                     "be doubled and the field quoted; write the file again"));
        }
        field += text_[at_++];
      }
      return field;
    }
    const int64_t first_line = line_;
    while (true) {
      if (at_ >= text_.size()) {
        return DamagedError(Concat(source_, " line ", first_line,
                                   ": a quoted field is never closed; the file is cut short or damaged; get "
                                   "it again"));
      }
      const char c = text_[at_++];
      if (c == '"' && !Take('"')) return field;
      line_ += c == '\n';
      field += c;
    }
  }

  std::string_view text_;
  const std::string& source_;
  size_t at_ = 0;
  int64_t line_ = 1;
};

}  // namespace

absl::StatusOr<std::vector<CsvRow>> ParseCsv(std::string_view text, const std::string& source) {
  return CsvParser(text, source).Parse();
}

std::string HashOfHashes(const std::vector<SourceFile>& files) {
  std::string lines;
  for (const SourceFile& file : files) lines += file.sha256 + "\n";
  return Sha256Hex(lines);
}

absl::StatusOr<std::string> SourceReader::Find(const std::vector<std::string>& names) const {
  if (folder_.empty()) {
    return UsageError(Concat(benchmark_,
                             " needs data; its files are not part of moebius; give --data DIR, a "
                             "folder with ",
                             Join(names, " or ")));
  }
  for (const std::string& name : names) {
    for (const std::string_view packed : kPackedEndings) {
      const std::string path = JoinPath(folder_, Concat(name, packed));
      if (FileExists(path)) return path;
    }
  }
  return MissingError(Concat(JoinPath(folder_, Join(names, " or ")), ": is not there; ", benchmark_,
                             " is read from it; docs/evaluation.md says what it holds"));
}

absl::Status SourceReader::ReadJsonRows(
    const std::string& path,
    const std::function<absl::Status(const nlohmann::json& object, const std::string& where)>& row) {
  ASSIGN_OR_RETURN(const FileHash hash, HashFile(path));
  ASSIGN_OR_RETURN(LineReader lines, LineReader::Open(path));
  int64_t rows = 0;
  std::string_view line;
  while (true) {
    ASSIGN_OR_RETURN(const bool more, lines.Next(&line));
    if (!more) break;
    if (IsBlank(line)) continue;
    ASSIGN_OR_RETURN(const nlohmann::json object, ParseJson(line, lines.Where()));
    if (!object.is_object()) {
      return DamagedError(Concat(lines.Where(), ": is ", DescribeJson(object),
                                 "; a line is one JSON object; get the file again"));
    }
    RETURN_IF_ERROR(row(object, lines.Where()));
    ++rows;
  }
  if (rows == 0) return DamagedError(path + ": has no rows; the file is empty or cut short; get it again");
  files_.push_back({.path = path, .sha256 = hash.sha256, .rows = rows});
  return absl::OkStatus();
}

absl::StatusOr<std::vector<CsvRow>> SourceReader::ReadCsv(const std::string& path, std::string_view first,
                                                          std::string_view last) {
  ASSIGN_OR_RETURN(const FileHash hash, HashFile(path));
  ASSIGN_OR_RETURN(const std::unique_ptr<ByteSource> source, OpenByteSource(path, kMaxCsvBytes));
  ASSIGN_OR_RETURN(const std::string text, ReadAll(*source));
  ASSIGN_OR_RETURN(std::vector<CsvRow> rows, ParseCsv(text, path));
  if (!rows.empty() && rows[0].fields.front() == first && rows[0].fields.back() == last)
    rows.erase(rows.begin());
  if (rows.empty()) {
    return DamagedError(path +
                        ": has no rows but perhaps a header; the file is empty or cut short; get it again");
  }
  files_.push_back({.path = path, .sha256 = hash.sha256, .rows = std::ssize(rows)});
  return rows;
}

}  // namespace moebius
