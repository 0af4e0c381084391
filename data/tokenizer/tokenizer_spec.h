// What a tokenizer.json says, as a value: read with every feature that we do not have refused by name, never
// half understood, and written so that Hugging Face `tokenizers` reads it and encodes alike.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "data/tokenizer/added_tokens.h"
#include "data/tokenizer/pre_tokenizer.h"

namespace moebius {

inline constexpr size_t kMaxTokenizerJsonBytes = size_t{256} << 20;
inline constexpr int32_t kMaxTokenId = (1 << 22) - 1;

struct TokenizerSpec {
  PreTokenizerKind pre_tokenizer = PreTokenizerKind::kDeepSeekV3;
  bool add_prefix_space = false;  // every piece of text between added tokens gets a leading blank
  bool normalize_nfc = false;

  // model (byte-level BPE)
  std::vector<std::string> vocab;  // by id, in GPT-2's byte alphabet; "" for an id that no token has
  struct Merge {
    int32_t left, right, result;  // token ids
  };
  std::vector<Merge> merges;  // by rank
  int32_t unknown_id = -1;    // -1: none
  bool fuse_unknown = false;
  bool ignore_merges = false;

  std::vector<AddedToken> added_tokens;
  // What an encoding with special tokens puts around the text (post_processor's template).
  std::vector<int32_t> prefix_ids, suffix_ids;
};

// DamagedError naming `source` and the field: not JSON, too large, ids or merges that do not fit together, or
// a feature (another model, expression, normalizer, ...) that this tokenizer does not have.
absl::StatusOr<TokenizerSpec> ParseTokenizerJson(std::string_view json, const std::string& source);

// The first field of tokenizer.json, of those that decide a text's ids, in which two differ that have the
// same tokens by id: "pre_tokenizer", "normalizer", "model.merges", ...; "" for none.
std::string_view FirstDifference(const TokenizerSpec& a, const TokenizerSpec& b);

// As HF's save(pretty) lays it out. Prefix and suffix become a TemplateProcessing.
std::string WriteTokenizerJson(const TokenizerSpec& spec);

}  // namespace moebius
