// Rewards of an answer's text that need no model and no gold: its form, its language, its repetition and its
// length. What must be right about the content is the graders' matter (rl/tasks, rl/math, choice.h).
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace moebius {

// nullopt: there is nothing to compute it from. Never the same as 0, which says that the answer is bad: such
// an answer is left out of the advantages (rl/objective/advantages.h takes NaN for it).
using Reward = std::optional<double>;

struct FormatOptions {
  std::string think_tag = "think";
  std::string answer_tag = "answer";
  // The prompt already ended with the opening think tag, so the text must not have it.
  bool think_opened = false;
  // 0.2 for each expected tag that stands exactly once, where the whole form is missed.
  bool partial_credit = false;
};
// 1 for exactly <think>...</think> and then exactly <answer>...</answer>, with only blanks before, between
// and behind, every tag once, and an answer that is not blank; else 0 or the partial credit, at most 0.8.
// nullopt when a tag's name is empty or both are the same.
Reward FormatReward(const FormatOptions& options, std::string_view text);

enum class Script {
  kLatin,
  kGreek,
  kCyrillic,
  kHebrew,
  kArabic,
  kDevanagari,
  kThai,
  kHangul,
  kHan,
  kJapanese
};
// "latin", ...; nullopt for a name that is none of them.
std::optional<Script> ScriptByName(std::string_view name);
// Share of the letters (Unicode's \p{L}) that are of `script`; Japanese is kana and Han. nullopt for text
// without letters or that is not UTF-8. The letters of markup and code count as what they are.
Reward LanguageConsistency(Script script, std::string_view text);

// Share of n-grams that repeat an earlier one: 1 - distinct / all; nullopt with fewer than n units. Over
// words (runs of bytes between blanks, as written) or over tokens. n >= 1.
Reward RepeatedWords(int64_t n, std::string_view text);
Reward RepeatedTokens(int64_t n, std::span<const int32_t> tokens);

// SoftOverlong of rl/objective/estimates.h for a recipe's numbers: in [-1, 0]; nullopt unless
// 0 < margin <= maximum and length >= 0.
struct LengthShaping {
  int64_t maximum = 0;  // tokens
  int64_t margin = 0;
};
Reward LengthReward(const LengthShaping& shaping, int64_t length);

// Sum of weight * reward; nullopt when a part with a weight other than 0 has none, or when there are no
// parts.
struct RewardPart {
  double weight = 1;
  Reward reward;
};
Reward WeightedReward(std::span<const RewardPart> parts);

}  // namespace moebius
