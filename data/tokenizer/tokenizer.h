// Text to token ids and back: a byte-level BPE tokenizer from a Hugging Face tokenizer.json, giving the ids
// that HF's `tokenizers` gives. Immutable and safe to use from many threads. Chat templates are not its
// business.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "data/tokenizer/tokenizer_spec.h"

namespace moebius {

struct EncodeOptions {
  // Markers that stand in the text become their ids; else they are text like any other, which is right for
  // what strangers wrote. Markers are special tokens ("<|endoftext|>") and, as tokenizers disagree on what is
  // special, added tokens in brackets ("<think>", DeepSeek's "<｜User｜>", "[INST]"). Other added tokens
  // (runs of blanks) are words, and become their ids always.
  bool parse_special = true;
  // What the tokenizer's template puts around a text (mostly a begin-of-text token).
  bool add_special = false;
};

enum class SpecialTokens { kKeep, kSkip };

class Tokenizer {
 public:
  // DamagedError (65) naming `source` and the field for anything but a tokenizer that this code encodes
  // alike; tokenizer_spec.h says what is read.
  static absl::StatusOr<Tokenizer> FromJson(std::string json, const std::string& source);
  // A tokenizer.json, or a folder that has one. MissingError if there is no such file.
  static absl::StatusOr<Tokenizer> Load(const std::string& path);

  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;
  ~Tokenizer();

  // Appends the ids of `text`: any bytes, below 4 GiB. Without a normalizer (NFC), a template and unknown
  // bytes Decode gives the same bytes back. Bytes that are not UTF-8 count as characters without a class.
  // Linear time (a factor log n inside one word).
  void Encode(std::string_view text, std::vector<int32_t>* ids, const EncodeOptions& options = {}) const;
  std::vector<int32_t> Encode(std::string_view text, const EncodeOptions& options = {}) const;

  // The bytes of the tokens, one after another; ids that no token has give nothing. They may end inside a
  // character: DecodeText has U+FFFD there, and equals HF's decode.
  std::string Decode(std::span<const int32_t> ids, SpecialTokens special = SpecialTokens::kKeep) const;
  std::string DecodeText(std::span<const int32_t> ids, SpecialTokens special = SpecialTokens::kKeep) const;

  // The bytes that a token stands for, "" for an id that none has. Valid as long as the tokenizer.
  std::string_view TokenBytes(int32_t id) const;
  bool IsSpecial(int32_t id) const;
  // By the token's string in tokenizer.json: "<|endoftext|>", "\u0120the" (a blank is U+0120 there). Of a
  // token that is not an added one it searches the whole vocabulary.
  std::optional<int32_t> TokenToId(std::string_view token) const;

  // UsageError (64) naming the first byte of `text` that Encode would leave out: where there is neither a
  // token for it nor one for what is unknown.
  absl::Status CheckNothingIsLost(std::string_view text, const EncodeOptions& options = {}) const;

  int32_t vocab_size() const;  // highest id + 1
  // What add_special puts before a text.
  const std::vector<int32_t>& prefix_ids() const;
  PreTokenizerKind pre_tokenizer() const;
  const std::vector<AddedToken>& added_tokens() const;
  // The tokenizer.json that this tokenizer was made from, byte for byte.
  const std::string& json() const;

 private:
  struct Impl;
  explicit Tokenizer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// Decodes a growing list of tokens: gives out text as soon as whole characters are there, and never half of
// one. All that it gives, put together, is Tokenizer::DecodeText of all ids.
class StreamDecoder {
 public:
  // `tokenizer` must live as long.
  explicit StreamDecoder(const Tokenizer& tokenizer, SpecialTokens special = SpecialTokens::kKeep)
      : tokenizer_(tokenizer), special_(special) {}
  std::string Push(int32_t id);
  // What was held back, as U+FFFD: nothing completes it any more.
  std::string Finish();

 private:
  const Tokenizer& tokenizer_;
  const SpecialTokens special_;
  std::string pending_;
};

}  // namespace moebius
