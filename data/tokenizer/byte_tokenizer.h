// Tokenizers without training: every byte, or every one of a few symbols, is a token. For models so small
// that a learned vocabulary would be most of their weights. Files are read by Hugging Face `tokenizers` too.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "data/tokenizer/tokenizer.h"

namespace moebius {

// Ends a document and an answer: the name that FindEndOfDocument finds.
inline constexpr std::string_view kEndOfText = "<|endoftext|>";

// A tokenizer.json without merges: ids 0 to 255 are the bytes by value, then come `special_tokens` in order
// (the first ends a document). Names must be UTF-8 of two characters or more, each once.
std::string ByteTokenizerJson(const std::vector<std::string>& special_tokens);

// The same with the characters of `symbols` only, ids from 0 in their order, so that a vocabulary has some
// twenty entries. It leaves out what it has no token for, as Hugging Face does: encode through PromptCodec,
// which refuses such text. With `numbers` the digits need not be given: ids 0 to 99 are the numbers of one
// and two digits by value (longer ones are cut), as vocabularies of large models have them, and the symbols
// follow from 100. UsageError for no symbol, one given twice, or one that is neither printable ASCII nor a
// line end or tab.
absl::StatusOr<std::string> SymbolTokenizerJson(std::string_view symbols, bool numbers,
                                                const std::vector<std::string>& special_tokens);

// What a recipe's `tokenizer` says: "bytes", "symbols:0123456789+-*=" or "numbers:+-*=" (each with
// kEndOfText), else the path of a tokenizer.json or of a folder that has one ("./bytes" for one of that
// name). Errors as of SymbolTokenizerJson and Tokenizer::Load.
absl::StatusOr<Tokenizer> MakeTokenizer(const std::string& what);

}  // namespace moebius
