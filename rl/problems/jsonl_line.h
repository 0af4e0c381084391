// One problem of a file of JSON lines. Fields beyond these are not looked at:
//
//   asked     exactly one of "question" or "problem" (text), "prompt" (text, taken as it is) and "messages"
//             ([{"role": ..., "content": ...}, ...], the last of role "user")
//   "answer"  MATH: text or number; of one that ends in "#### 42" (GSM8K) what follows the mark
//             EXACT: text or number      CHOICE: a letter, or a number counted from 0
//   "choices" CHOICE: 2 to 26 texts; written below a "question", lettered; not below "prompt" and "messages"
//   "tests"   CODE: what docs/sandbox.md says, "visible" for those that the question shows
//   "language"  CODE: "python" (default) or "cpp"
//   "solution"  text; a worked answer (CODE: a program)
//   "id"      text; a name for logs
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "rl/problems/problem.h"
#include "rl/sandbox/test_spec.h"

namespace moebius {

enum class JsonlKind { kMath, kCode, kChoice, kExact };

struct JsonlProblem {
  std::string id;
  std::vector<ChatMessage> messages;  // as the line has them
  std::string gold;                   // CODE: ""
  std::string solution;
  int num_choices = 0;
  sandbox::Language language = sandbox::Language::kPython;
  sandbox::TestSpec tests;
  std::string fingerprint;  // CODE: of the whole line

  // What is asked, whatever the wording around it: equal for lines that ask the same.
  std::string Key() const;
};

// DamagedError naming `where` ("PATH line 12") and the field.
absl::StatusOr<JsonlProblem> ReadJsonlProblem(std::string_view line, JsonlKind kind,
                                              const std::string& where);

}  // namespace moebius
