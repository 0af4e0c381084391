// The letter that a text chooses in a multiple-choice question.
#pragma once

#include <string_view>

#include "rl/reward/text_reward.h"

namespace moebius {

enum class ChoiceOutcome { kFound, kNone, kSeveral };
struct Choice {
  ChoiceOutcome outcome = ChoiceOutcome::kNone;
  char letter = 0;  // for kFound
};

// Letters are 'A' to the one of number `count` (2 to 26). Read behind the last </think>, from the first of
// these sources that names a letter:
//   <answer>B</answer>; \boxed{B}, also \boxed{\text{(B)}}; "answer is (B)", "answer: **B**", "choice is B";
//   the whole text. Tags, boxes and the whole text must be the letter with what may enclose it ("(B)",
//   "**B.**") or an option with its text on one line ("B) Paris").
// Two different letters within one source are kSeveral, so "B or C", two boxes, or a phrase taken back later
// choose nothing. The word "A" before a small letter ("the answer is A bird") is no choice.
Choice ExtractChoice(int count, std::string_view text);

// 1 for the letter `gold`, else 0, also for no letter or several: who does not choose is wrong. nullopt when
// `gold` is not among the letters or `count` is not in [2, 26].
Reward ChoiceReward(int count, char gold, std::string_view text);

}  // namespace moebius
