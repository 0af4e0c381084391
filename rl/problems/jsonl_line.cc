#include "rl/problems/jsonl_line.h"

#include <nlohmann/json.hpp>
#include <set>

#include "core/base/status.h"
#include "core/base/strings.h"
#include "core/io/hash.h"
#include "core/io/json.h"
#include "data/message_lines.h"
#include "rl/reward/answer_text.h"

namespace moebius {
namespace {

using nlohmann::json;

absl::Status Bad(const std::string& where, std::string_view field, std::string_view why) {
  return DamagedError(Concat(where, ": field \"", field, "\" ", why,
                             "; the form of a line is in rl/problems/jsonl_line.h; correct the file"));
}

absl::StatusOr<std::vector<std::string>> ReadChoices(const json& line, const std::string& where) {
  ASSIGN_OR_RETURN(std::vector<std::string> choices, GetStringArray(line, "choices", where));
  if (choices.size() < 2 || choices.size() > 26)
    return Bad(where, "choices", Concat("has ", choices.size(), " texts, outside 2 to 26"));
  const std::set<std::string> different(choices.begin(), choices.end());
  if (different.size() != choices.size())
    return Bad(where, "choices", "has the same text twice, so that a right answer could be wrong");
  return choices;
}

absl::Status ReadAsked(const json& line, const std::vector<std::string>& choices, const std::string& where,
                       JsonlProblem* problem) {
  std::vector<std::string> given;
  for (const char* field : {"question", "problem", "prompt", "messages"})
    if (HasJsonField(line, field)) given.emplace_back(field);
  if (given.size() != 1)
    return DamagedError(
        Concat(where, ": has ", given.empty() ? "none" : Join(given, " and "),
               " of \"question\", \"problem\", \"prompt\" and \"messages\"; a line has exactly one; correct "
               "the file"));
  const std::string& field = given[0];
  if (field == "messages") {
    ASSIGN_OR_RETURN(problem->messages, ReadMessages(line, where));
    if (problem->messages.back().role != "user")
      return Bad(where, field, "does not end with a message of role \"user\", so nothing is asked");
    return absl::OkStatus();
  }
  ASSIGN_OR_RETURN(std::string text, GetString(line, field, where));
  if (Trimmed(text).empty()) return Bad(where, field, "is blank");
  if (field != "prompt")
    for (size_t i = 0; i < choices.size(); ++i)
      text += Concat('\n', static_cast<char>('A' + i), ". ", choices[i]);
  problem->messages = {{"user", std::move(text)}};
  return absl::OkStatus();
}

// Text, or a number as the line writes it: json would round one of many digits.
absl::StatusOr<std::string> ReadAnswer(const json& line, std::string_view text, const std::string& where) {
  if (!HasJsonField(line, "answer")) return Bad(where, "answer", "is missing");
  const json& answer = line["answer"];
  if (!answer.is_string() && !answer.is_number())
    return Bad(where, "answer", Concat("is ", DescribeJson(answer), ", expected text or a number"));
  if (answer.is_string()) return answer.get<std::string>();
  ASSIGN_OR_RETURN(const sandbox::Value value, sandbox::ParseValue(text, where));
  return sandbox::Member(value, "answer")->text;
}

absl::Status ReadChoice(const json& line, const std::string& where, JsonlProblem* problem) {
  int64_t index = -1;
  if (HasJsonField(line, "answer") && line["answer"].is_number_integer()) {
    ASSIGN_OR_RETURN(index, GetInt(line, "answer", where, 0, problem->num_choices - 1));
  } else {
    ASSIGN_OR_RETURN(const std::string letter, GetString(line, "answer", where));
    if (letter.size() == 1) index = letter[0] - 'A';
    if (index < 0 || index >= problem->num_choices)
      return Bad(where, "answer",
                 Concat("is \"", Printable(letter), "\", not a letter from A to ",
                        static_cast<char>('A' + problem->num_choices - 1)));
  }
  problem->gold = static_cast<char>('A' + index);
  return absl::OkStatus();
}

absl::Status ReadGold(const json& line, std::string_view text, JsonlKind kind, const std::string& where,
                      JsonlProblem* problem) {
  ASSIGN_OR_RETURN(const std::string answer, ReadAnswer(line, text, where));
  constexpr std::string_view kMark = "####";
  const size_t mark = kind == JsonlKind::kMath ? answer.rfind(kMark) : std::string::npos;
  if (mark == std::string::npos) {
    problem->gold = Trimmed(answer);
  } else {
    problem->gold = Trimmed(std::string_view(answer).substr(mark + kMark.size()));
    if (problem->solution.empty())
      problem->solution = Trimmed(WithoutCalculatorMarks(std::string_view(answer).substr(0, mark)));
  }
  if (problem->gold.empty()) return Bad(where, "answer", "is blank");
  return absl::OkStatus();
}

// The tests are read from the line once more: sandbox::Value keeps integers of any size.
absl::Status ReadTests(const json& line, std::string_view text, const std::string& where,
                       JsonlProblem* problem) {
  ASSIGN_OR_RETURN(const std::string language, GetStringOr(line, "language", "python", where));
  ASSIGN_OR_RETURN(problem->language, sandbox::ParseLanguage(language, where));
  ASSIGN_OR_RETURN(const sandbox::Value value, sandbox::ParseValue(text, where));
  const sandbox::Value* tests = sandbox::Member(value, "tests");
  if (tests == nullptr) return Bad(where, "tests", "is missing");
  ASSIGN_OR_RETURN(problem->tests, sandbox::ReadTestSpec(*tests, where));
  problem->fingerprint = Sha256Hex(text);
  return absl::OkStatus();
}

}  // namespace

std::string JsonlProblem::Key() const {
  std::string key;
  for (const ChatMessage& message : messages)
    key += Concat(message.role, " ", message.content.size(), " ", message.content, "\n");
  return key;
}

absl::StatusOr<JsonlProblem> ReadJsonlProblem(std::string_view line, JsonlKind kind,
                                              const std::string& where) {
  ASSIGN_OR_RETURN(const json object, ParseJson(line, where));
  if (!object.is_object())
    return DamagedError(Concat(where, ": is ", DescribeJson(object), ", expected object; correct the file"));
  JsonlProblem problem;
  ASSIGN_OR_RETURN(problem.id, GetStringOr(object, "id", where, where));
  ASSIGN_OR_RETURN(problem.solution, GetStringOr(object, "solution", "", where));
  std::vector<std::string> choices;
  if (kind == JsonlKind::kChoice) {
    ASSIGN_OR_RETURN(choices, ReadChoices(object, where));
    problem.num_choices = static_cast<int>(choices.size());
  }
  RETURN_IF_ERROR(ReadAsked(object, choices, where, &problem));
  switch (kind) {
    case JsonlKind::kMath:
    case JsonlKind::kExact:
      RETURN_IF_ERROR(ReadGold(object, line, kind, where, &problem));
      break;
    case JsonlKind::kChoice:
      RETURN_IF_ERROR(ReadChoice(object, where, &problem));
      break;
    case JsonlKind::kCode:
      RETURN_IF_ERROR(ReadTests(object, line, where, &problem));
      break;
  }
  return problem;
}

}  // namespace moebius
