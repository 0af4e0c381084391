// What stands in an answer's text: its last number, its program. One reading for the rewards of training
// (rl/problems) and the graders of benchmarks (rl/evaluation).
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace moebius {

// Without blanks and line ends around it.
std::string_view Trimmed(std::string_view text);

// The last number as digits with an optional sign and point, without the commas between groups of digits:
// "1,234.50" gives "1234.50", "$-3." and "-$3" give "-3", "is .5" gives ".5". A minus behind a letter or
// digit is a hyphen, and a point behind one the end of a sentence.
std::optional<std::string> LastNumber(std::string_view text);

// The first number, read the same way, of a list without blanks ("3,4") the last.
std::optional<std::string> FirstNumber(std::string_view text);

// A program: of the blocks between lines of ``` that are not blank, the last. "```python" always begins a
// block, a bare ``` ends the one that is open or begins one. A block that is never closed goes to the end of
// the text; if a bare ``` began it behind another block, it was a stray one and begins none. All of the text
// where it has no such line, "" where every block is blank.
std::string ProgramIn(std::string_view answer);

// Without the calculator marks "<<48/2=24>>" that GSM8K puts into its worked answers.
std::string WithoutCalculatorMarks(std::string_view text);

}  // namespace moebius
