#include "core/io/line_reader.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "core/base/status.h"
#include "core/base/strings.h"

namespace moebius {
namespace {

constexpr size_t kBlockBytes = 256 * 1024;

}  // namespace

absl::StatusOr<LineReader> LineReader::Open(const std::string& path, Options options) {
  ASSIGN_OR_RETURN(std::unique_ptr<ByteSource> source, OpenByteSource(path, options.max_bytes));
  return LineReader(path, options, std::move(source));
}

std::string LineReader::Where() const { return Concat(path_, " line ", line_number_); }

// More bytes behind the unread ones; false at the end of the file.
absl::StatusOr<bool> LineReader::Fill() {
  if (!error_.ok()) return error_;
  if (begin_ > 0) {
    std::memmove(buffer_.data(), buffer_.data() + begin_, end_ - begin_);
    end_ -= std::exchange(begin_, 0);
  }
  if (end_ == buffer_.size()) buffer_.resize(std::max(kBlockBytes, 2 * buffer_.size()));
  absl::StatusOr<size_t> n = source_->Read(std::span(buffer_).subspan(end_));
  if (!n.ok()) {  // a line that is skipped has been told of, the one that is looked for has not
    return error_ = Annotate(n.status(), Concat("after line ", line_number_ - (skipping_ ? 0 : 1)));
  }
  end_ += *n;
  return *n > 0;
}

absl::Status LineReader::TooLong() {
  return DamagedError(Concat(Where(), ": longer than the limit of ", options_.max_line_bytes,
                             " bytes; split it or raise the limit"));
}

absl::StatusOr<bool> LineReader::Next(std::string_view* line) {
  if (!error_.ok()) return error_;
  size_t scanned = 0;  // bytes after begin_ known to hold no line end
  if (!skipping_) ++line_number_;
  while (true) {
    const char* start = buffer_.data() + begin_;
    const size_t size = end_ - begin_;
    const void* newline = size > scanned ? std::memchr(start + scanned, '\n', size - scanned) : nullptr;
    const size_t length = newline != nullptr ? static_cast<const char*>(newline) - start : size;
    const bool last = newline == nullptr && at_end_;
    if (skipping_ && (newline != nullptr || last)) {
      begin_ += length + (newline != nullptr ? 1 : 0);
      skipping_ = false;
      scanned = 0;
      ++line_number_;
      continue;
    }
    if (skipping_) {
      begin_ = end_;
    } else if (static_cast<int64_t>(length) > options_.max_line_bytes) {
      skipping_ = true;
      return TooLong();
    } else if (newline != nullptr || (last && size > 0)) {
      begin_ += length + (newline != nullptr ? 1 : 0);
      *line = std::string_view(start, length);
      if (line->ends_with('\r')) line->remove_suffix(1);
      if (line_number_ == 1 && line->starts_with("\xEF\xBB\xBF")) line->remove_prefix(3);
      return true;
    } else if (last) {
      --line_number_;
      return false;
    }
    scanned = end_ - begin_;
    ASSIGN_OR_RETURN(const bool more, Fill());
    at_end_ = !more;
  }
}

}  // namespace moebius
