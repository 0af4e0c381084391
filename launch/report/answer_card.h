// Judged answers to one prompt as HTML: the prompt, then a card for each different answer.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "launch/metrics.h"
#include "rl/problems/answer_form.h"

namespace moebius {

// A text in three: what was judged, and what stands before and after it. Where the form finds no answer all
// of it is `before`.
struct AnswerParts {
  std::string_view before, answer, after;
};
// Without a form the whole text is the answer. The parts refer to `text`.
AnswerParts SplitAnswer(const std::optional<AnswerForm>& form, std::string_view text);

// At most about `max_text` bytes of `text`, the middle cut out at characters' borders; safe HTML.
std::string ShortenedHtml(std::string_view text, size_t max_text);

class AnswerSet {
 public:
  // Rows are borrowed, and have the same prompt and gold answer.
  void Add(const SampleRow* row);

  const std::string& prompt() const { return answers_.front().row->prompt; }
  const std::string& gold() const { return answers_.front().row->gold; }

  // The greatest advantage first; texts cut to `max_text` bytes.
  std::string Render(const std::optional<AnswerForm>& form, size_t max_text) const;
  size_t EstimatedBytes(size_t max_text) const;

 private:
  struct Answer {
    const SampleRow* row = nullptr;
    int64_t times = 1;  // this often, word by word, with the same figures
  };
  std::vector<Answer> answers_;
};

}  // namespace moebius
