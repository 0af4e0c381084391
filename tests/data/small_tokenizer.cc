#include "tests/data/small_tokenizer.h"

#include "core/base/check.h"
#include "data/tokenizer/byte_alphabet.h"
#include "data/tokenizer/tokenizer_spec.h"

namespace moebius {

Tokenizer SmallTokenizer(const std::vector<std::string>& special) {
  const ByteAlphabet alphabet;
  TokenizerSpec spec;
  spec.pre_tokenizer = PreTokenizerKind::kGpt2;
  for (int byte = 0; byte < 256; ++byte)
    spec.vocab.push_back(alphabet.Character(static_cast<unsigned char>(byte)));
  spec.vocab.push_back("th");
  spec.vocab.push_back("the");
  spec.merges = {{'t', 'h', 256}, {256, 'e', 257}};
  for (const std::string& content : special) {
    spec.added_tokens.push_back({.id = kFirstSpecialId + static_cast<int32_t>(spec.added_tokens.size()),
                                 .content = content,
                                 .special = true});
  }
  auto tokenizer = Tokenizer::FromJson(WriteTokenizerJson(spec), "small tokenizer");
  CHECK(tokenizer.ok()) << tokenizer.status();
  return *std::move(tokenizer);
}

}  // namespace moebius
