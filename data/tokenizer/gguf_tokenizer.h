// The tokenizer inside a GGUF file (tokenizer.ggml.*, byte-level BPE) as the files that Hugging Face
// transformers and we read beside a model.
#pragma once

#include <map>
#include <string>

#include "core/io/gguf.h"
#include "data/tokenizer/tokenizer_spec.h"

namespace moebius {

// UsageError for another kind of tokenizer or an unknown pre-tokenizer; DamagedError naming file and key for
// lists that do not fit together.
absl::StatusOr<TokenizerSpec> TokenizerFromGguf(const GgufFile& file);

// name -> text: tokenizer.json, tokenizer_config.json with the names of the special tokens, and
// chat_template.jinja where the file has a chat template. tokenizer.json is read back as ours before it is
// given out.
absl::StatusOr<std::map<std::string, std::string>> TokenizerFilesFromGguf(const GgufFile& file);

}  // namespace moebius
