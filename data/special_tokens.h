// The special tokens that data preparation needs, found by the names that released tokenizers give them:
// tokenizer.json does not say which token is which.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "data/token_view.h"
#include "data/tokenizer/tokenizer.h"

namespace moebius {

// Ends a document in a token file: the first of DeepSeek's "<｜end▁of▁sentence｜>", GPT-2's "<|endoftext|>",
// Llama's
// "<|end_of_text|>" and "</s>", "<eos>" that the tokenizer has.
std::optional<int32_t> FindEndOfDocument(const Tokenizer& tokenizer);

// Begins a text where its family begins texts so: "<｜begin▁of▁sentence｜>", "<|begin_of_text|>", "<s>",
// "<bos>".
std::optional<int32_t> FindBeginOfDocument(const Tokenizer& tokenizer);

// DeepSeek's "<｜fim▁begin｜>" ... or StarCoder's and Qwen's <|fim_prefix|>, <|fim_suffix|>, <|fim_middle|>
// (the same three places). UsageError (64) naming `source` when it has neither set.
absl::StatusOr<FimTokens> FindFimTokens(const Tokenizer& tokenizer, const std::string& source);

// Of a tokenizer that we train: DeepSeek-V3's begin, end and padding as ids 0, 1, 2, then its three of FIM.
std::vector<std::string> BuiltInSpecialTokens();

}  // namespace moebius
