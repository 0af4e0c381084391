// Where the final answer stands in a model's text, for benchmarks with conventions of their own beside those
// of rl/math/extract.h and rl/reward/choice.h.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace moebius {

// The text behind the last </think>; all of it where there is none, nothing if it begins with a <think> that
// is never closed.
std::string_view WithoutThoughts(std::string_view text);

// A number asked for by a word problem, from the first of: the last answer tag or box; what follows the last
// "####" on its line; the number behind "the answer is"; the last number of the text.
std::optional<std::string> FindNumberAnswer(std::string_view text);

// A formula asked for by a problem: answer tag, box or "the answer is", as rl/math/extract.h finds it.
std::optional<std::string> FindMathAnswer(std::string_view text);

// A short exact answer (procedural sets), from the first of: the last answer tag; the last box; the first or
// the last line that is not blank.
enum class AnswerLine { kFirst, kLast };
std::optional<std::string> FindShortAnswer(std::string_view text, AnswerLine line);

}  // namespace moebius
