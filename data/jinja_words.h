// What a chat template in Jinja says in its own words, without running it: enough to tell the templates that
// we render from those that only look like them.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace moebius {

// In place of what only running the template would tell.
inline constexpr char kJinjaValue = '\x01';

struct JinjaParts {
  // What is written, in order, as one text: text outside of tags as trim_blocks and lstrip_blocks leave it,
  // and every expression as its literals with kJinjaValue between them ("'a' + 'b'" is "ab").
  std::string output;
  // Each text outside of tags, and the literals of each expression and statement, joined likewise, in order.
  // raise_exception's are left out.
  std::vector<std::string> pieces;
};
JinjaParts ReadJinja(std::string_view text);

// The first word (letters, digits, _ and whatever is not ASCII) of `text` that is not in `known`; "" for
// none.
std::string_view FirstUnknownWord(std::string_view text, const std::vector<std::string_view>& known);

}  // namespace moebius
