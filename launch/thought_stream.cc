#include "launch/thought_stream.h"

#include <algorithm>

namespace moebius {
namespace {

// Bytes at the end of `text` that may be the beginning of `tag`.
size_t BeginOfTag(std::string_view text, std::string_view tag) {
  for (size_t n = std::min(text.size(), tag.size() - 1); n > 0; --n)
    if (text.ends_with(tag.substr(0, n))) return n;
  return 0;
}

}  // namespace

void ThoughtStream::Give(std::string_view piece) {
  if (!piece.empty()) take_(part_, piece);
}

void ThoughtStream::Push(std::string_view piece) {
  const std::string text = held_ + std::string(piece);
  std::string_view rest = text;
  while (true) {
    const std::string_view tag = part_ == TextPart::kAnswer ? "<think>" : "</think>";
    const size_t at = rest.find(tag);
    if (at == std::string_view::npos) {
      const size_t hold = BeginOfTag(rest, tag);
      Give(rest.substr(0, rest.size() - hold));
      held_ = rest.substr(rest.size() - hold);
      return;
    }
    Give(rest.substr(0, at));
    rest.remove_prefix(at + tag.size());
    part_ = part_ == TextPart::kAnswer ? TextPart::kThoughts : TextPart::kAnswer;
  }
}

void ThoughtStream::Finish() {
  Give(held_);
  held_.clear();
}

}  // namespace moebius
