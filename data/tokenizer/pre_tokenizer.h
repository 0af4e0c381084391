// Cuts text into the pieces inside which byte pair merges happen. One hand-written splitter for each known
// pre-tokenizer of released models, equal to Hugging Face's expression by expression, in linear time.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "data/tokenizer/unicode_classes.h"

namespace moebius {

enum class PreTokenizerKind {
  kNone,        // ByteLevel without an expression: the whole text is one piece
  kGpt2,        // ByteLevel with GPT-2's expression
  kDeepSeekV3,  // three Splits, each inside the pieces of the one before, then ByteLevel
  kLlama3,      // Split with Llama 3's expression (numbers by up to three digits)
  kQwen2,       // the same with single digits
  kSmolLm,      // Digits (each alone), then GPT-2's expression inside the rest
};

// The expressions as they stand in tokenizer.json (GPT-2's is built into ByteLevel there).
inline constexpr std::string_view kGpt2Expression =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
inline constexpr std::string_view kLlama3Expression =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|)"
    R"(\s*[\r\n]+|\s+(?!\S)|\s+)";
inline constexpr std::string_view kQwen2Expression =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|)"
    R"(\s*[\r\n]+|\s+(?!\S)|\s+)";
inline constexpr std::string_view kDeepSeekV3Expressions[3] = {
    R"(\p{N}{1,3})", "[一-龥\u3040-ゟ゠-ヿ]+",
    R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+|)"
    R"( ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"};

// "gpt2", "deepseek-v3", "llama3", "qwen2", "smollm", "none".
std::string_view PreTokenizerName(PreTokenizerKind kind);
std::optional<PreTokenizerKind> PreTokenizerFromName(std::string_view name);
std::vector<std::string> PreTokenizerNames();

class PreTokenizer {
 public:
  explicit PreTokenizer(PreTokenizerKind kind) : kind_(kind), classes_(&GetUnicodeClasses()) {}
  PreTokenizerKind kind() const { return kind_; }

  // Appends the ends (offsets in `text`) of the pieces from `begin` on, at most `max_pieces`; returns the
  // last end, which is where the next call begins. `begin` is 0 or what a call returned; pieces are never
  // empty and cover the text, whatever its bytes.
  size_t Split(std::string_view text, size_t begin, size_t max_pieces, std::vector<size_t>* ends) const;

  // An offset in (0, limit] where cutting `text` in two leaves every piece as it is, as large as possible but
  // not below limit / 2; else (no line end and no blank between ASCII letters there) the start of a character
  // at or below `limit`. 0 < limit < text.size(). Not for kNone, whose one piece every cut divides.
  static size_t SafeCut(std::string_view text, size_t limit);

 private:
  PreTokenizerKind kind_;
  const UnicodeClasses* classes_;
};

}  // namespace moebius
