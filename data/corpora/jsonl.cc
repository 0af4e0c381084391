#include "data/corpora/jsonl.h"

#include <charconv>
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

// The code unit of the \uXXXX that begins at `at`, or -1.
int EscapedUnit(std::string_view json, size_t at) {
  int unit = 0;
  if (at + 6 > json.size() || json[at] != '\\' || json[at + 1] != 'u') return -1;
  const auto [end, error] = std::from_chars(&json[at + 2], &json[at] + 6, unit, 16);
  return error == std::errc() && end == &json[at] + 6 ? unit : -1;
}

// Halves of pairs without the other half, which are no text, become \uFFFD. Returns how many.
int64_t ReplaceLoneSurrogates(std::string* json) {
  int64_t replaced = 0;
  for (size_t at = 0; (at = json->find('\\', at)) != std::string::npos;) {
    const int unit = EscapedUnit(*json, at), next = EscapedUnit(*json, at + 6);
    if (unit < 0) {
      at += 2;  // another escape, of one character
    } else if (unit >= 0xD800 && unit < 0xDC00 && next >= 0xDC00 && next < 0xE000) {
      at += 12;
    } else {
      if (unit >= 0xD800 && unit < 0xE000) {
        json->replace(at, 6, "\\uFFFD");
        ++replaced;
      }
      at += 6;
    }
  }
  return replaced;
}

class JsonlReader : public DocumentReader {
 public:
  JsonlReader(std::vector<std::string> files, std::string source, std::string field, InvalidText invalid_text)
      : invalid_text_(invalid_text),
        files_(std::move(files)),
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
      if (IsBlank(line)) continue;
      const std::string where = lines_->Where();
      document->replaced = 0;
      Document raw;
      if (invalid_text_ == InvalidText::kReplace) {
        raw = {.name = "", .text = std::string(line), .origin = where};
        ASSIGN_OR_RETURN(document->replaced, MakeValidUtf8(invalid_text_, &raw));
        document->replaced += ReplaceLoneSurrogates(&raw.text);
        line = raw.text;
      }
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
  InvalidText invalid_text_;
  std::vector<std::string> files_;
  std::string prefix_, source_, field_;
  size_t next_file_ = 0;
  std::optional<LineReader> lines_;
};

}  // namespace

std::unique_ptr<DocumentReader> ReadJsonl(std::vector<std::string> files, std::string source,
                                          std::string field, InvalidText invalid_text) {
  return std::make_unique<JsonlReader>(std::move(files), std::move(source), std::move(field), invalid_text);
}

}  // namespace moebius
