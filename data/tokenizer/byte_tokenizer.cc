#include "data/tokenizer/byte_tokenizer.h"

#include "core/base/status.h"
#include "core/base/strings.h"
#include "data/tokenizer/byte_alphabet.h"
#include "data/tokenizer/tokenizer_spec.h"

namespace moebius {
namespace {

constexpr std::string_view kSymbols = "symbols:";

// One token for each byte of `bytes`, then the special ones.
std::string JsonOf(std::string_view bytes, const std::vector<std::string>& special_tokens) {
  const ByteAlphabet alphabet;
  TokenizerSpec spec;
  spec.pre_tokenizer = PreTokenizerKind::kNone;
  for (const char byte : bytes) spec.vocab.push_back(alphabet.Character(static_cast<unsigned char>(byte)));
  for (const std::string& content : special_tokens) {
    const auto id = static_cast<int32_t>(spec.vocab.size() + spec.added_tokens.size());
    spec.added_tokens.push_back({.id = id, .content = content, .special = true});
  }
  return WriteTokenizerJson(spec);
}

}  // namespace

std::string ByteTokenizerJson(const std::vector<std::string>& special_tokens) {
  std::string bytes;
  for (int byte = 0; byte < 256; ++byte) bytes += static_cast<char>(byte);
  return JsonOf(bytes, special_tokens);
}

absl::StatusOr<std::string> SymbolTokenizerJson(std::string_view symbols,
                                                const std::vector<std::string>& special_tokens) {
  const auto refuse = [&](const std::string& why) {
    return UsageError(Concat("tokenizer symbols \"", Printable(symbols), "\" cannot be used; ", why,
                             "; write every symbol once, like \"symbols:0123456789+-*=\""));
  };
  if (symbols.empty()) return refuse("there is none");
  for (size_t i = 0; i < symbols.size(); ++i) {
    const char c = symbols[i];
    const bool fits = (c >= ' ' && c <= '~') || c == '\n' || c == '\t';
    if (!fits) return refuse(Concat("byte ", i, " is neither printable ASCII nor a line end or tab"));
    if (symbols.find(c) != i)
      return refuse(Concat("\"", Printable(symbols.substr(i, 1)), "\" is there twice"));
  }
  return JsonOf(symbols, special_tokens);
}

absl::StatusOr<Tokenizer> MakeTokenizer(const std::string& what) {
  const std::vector<std::string> special = {std::string(kEndOfText)};
  if (what == "bytes") return Tokenizer::FromJson(ByteTokenizerJson(special), what);
  if (!what.starts_with(kSymbols)) return Tokenizer::Load(what);
  ASSIGN_OR_RETURN(std::string json, SymbolTokenizerJson(what.substr(kSymbols.size()), special));
  return Tokenizer::FromJson(std::move(json), what);
}

}  // namespace moebius
