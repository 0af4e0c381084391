#include <algorithm>
#include <unordered_map>

#include "core/base/check.h"
#include "rl/objective/estimates.h"
#include "rl/reward/text_reward.h"

namespace moebius {

Reward RepeatedTokens(int64_t n, std::span<const int32_t> tokens) {
  CHECK_GE(n, 1);
  const int64_t size = tokens.size();
  if (size < n) return std::nullopt;
  // Starts of the n-grams in the order of their content: equal ones become neighbours.
  std::vector<int64_t> starts(size - n + 1);
  for (size_t i = 0; i < starts.size(); ++i) starts[i] = i;
  const auto gram = [&](int64_t start) { return tokens.subspan(start, n); };
  std::sort(starts.begin(), starts.end(), [&](int64_t a, int64_t b) {
    return std::lexicographical_compare(gram(a).begin(), gram(a).end(), gram(b).begin(), gram(b).end());
  });
  int64_t repeated = 0;
  for (size_t i = 1; i < starts.size(); ++i)
    repeated += std::equal(gram(starts[i]).begin(), gram(starts[i]).end(), gram(starts[i - 1]).begin());
  return static_cast<double>(repeated) / starts.size();
}

Reward RepeatedWords(int64_t n, std::string_view text) {
  constexpr std::string_view kBlanks = " \t\r\n";
  std::unordered_map<std::string_view, int32_t> numbers;
  std::vector<int32_t> words;
  for (size_t at = text.find_first_not_of(kBlanks); at != std::string_view::npos;) {
    const size_t end = std::min(text.find_first_of(kBlanks, at), text.size());
    const auto [word, fresh] = numbers.try_emplace(text.substr(at, end - at), numbers.size());
    words.push_back(word->second);
    at = text.find_first_not_of(kBlanks, end);
  }
  return RepeatedTokens(n, words);
}

Reward LengthReward(const LengthShaping& shaping, int64_t length) {
  if (shaping.margin <= 0 || shaping.margin > shaping.maximum || length < 0) return std::nullopt;
  return SoftOverlong(length, shaping.maximum, shaping.margin);
}

}  // namespace moebius
