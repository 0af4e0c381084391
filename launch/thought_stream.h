// Takes a growing text apart into thoughts, between <think> and </think>, and answer, as soon as it is
// certain what a piece belongs to.
#pragma once

#include <functional>
#include <string>
#include <string_view>

namespace moebius {

enum class TextPart { kThoughts, kAnswer };

class ThoughtStream {
 public:
  // `take` gets each piece once, in order, never empty and without the tags. `start`: kThoughts where the
  // prompt has opened them already.
  ThoughtStream(TextPart start, std::function<void(TextPart part, std::string_view piece)> take)
      : part_(start), take_(std::move(take)) {}

  void Push(std::string_view piece);
  // What was held back because it might have become a tag.
  void Finish();

 private:
  void Give(std::string_view piece);

  TextPart part_;
  std::function<void(TextPart, std::string_view)> take_;
  std::string held_;  // the beginning of a tag, perhaps
};

}  // namespace moebius
