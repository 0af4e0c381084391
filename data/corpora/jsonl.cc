#include "data/corpora/jsonl.h"

#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "core/base/status.h"
#include "core/base/strings.h"
#include "core/io/json.h"
#include "core/io/line_reader.h"
#include "data/corpora/text_tree.h"

namespace moebius {
namespace {

// A document is a line, and a document may be a whole book.
constexpr int64_t kMaxLineBytes = int64_t{1} << 30;

class JsonlReader : public DocumentReader {
 public:
  JsonlReader(std::vector<std::string> files, std::string source, std::string field)
      : files_(std::move(files)),
        prefix_(SharedFolder(files_)),
        source_(std::move(source)),
        field_(std::move(field)) {}

  absl::StatusOr<bool> Next(Document* document) override {
    while (true) {
      if (!lines_) {
        if (next_file_ == files_.size()) return false;
        ASSIGN_OR_RETURN(lines_, LineReader::Open(files_[next_file_], {.max_line_bytes = kMaxLineBytes}));
      }
      std::string_view line;
      ASSIGN_OR_RETURN(const bool more, lines_->Next(&line));
      if (!more) {
        lines_.reset();
        ++next_file_;
        continue;
      }
      if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
      const std::string where = lines_->Where();
      ASSIGN_OR_RETURN(const nlohmann::json object, ParseJson(line, where));
      if (!object.is_object()) {
        return DamagedError(Concat(where, ": ", DescribeJson(object),
                                   " is not an object; each line must be like {\"", field_,
                                   "\": \"...\"}; correct the file"));
      }
      ASSIGN_OR_RETURN(document->text, GetString(object, field_, where));
      document->name =
          Concat(source_, "/", files_[next_file_].substr(prefix_.size()), ":", lines_->line_number());
      document->origin = where;
      return true;
    }
  }

 private:
  std::vector<std::string> files_;
  std::string prefix_, source_, field_;
  size_t next_file_ = 0;
  std::optional<LineReader> lines_;
};

}  // namespace

std::unique_ptr<DocumentReader> ReadJsonl(std::vector<std::string> files, std::string source,
                                          std::string field) {
  return std::make_unique<JsonlReader>(std::move(files), std::move(source), std::move(field));
}

}  // namespace moebius
