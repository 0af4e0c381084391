#include "data/tokenizer/byte_tokenizer.h"

#include <utility>

#include "core/base/status.h"
#include "core/base/strings.h"
#include "core/io/file.h"
#include "data/tokenizer/byte_alphabet.h"
#include "data/tokenizer/tokenizer_spec.h"

namespace moebius {
namespace {

constexpr std::string_view kSymbols = "symbols:", kNumbers = "numbers:";
constexpr std::string_view kDigits = "0123456789";

// One token for each byte of `bytes`.
TokenizerSpec SpecOf(std::string_view bytes) {
  const ByteAlphabet alphabet;
  TokenizerSpec spec;
  spec.pre_tokenizer = PreTokenizerKind::kNone;
  for (const char byte : bytes) spec.vocab.push_back(alphabet.Character(static_cast<unsigned char>(byte)));
  return spec;
}

// Ids from 10 to 99 are the numbers of two digits; what stands there moves up.
void InsertNumbers(TokenizerSpec* spec) {
  std::vector<std::string> numbers;
  for (int32_t number = 10; number < 100; ++number) {
    numbers.push_back(Concat(number));
    spec->merges.push_back({.left = number / 10, .right = number % 10, .result = number});
  }
  spec->vocab.insert(spec->vocab.begin() + 10, numbers.begin(), numbers.end());
}

std::string JsonOf(TokenizerSpec spec, const std::vector<std::string>& special_tokens) {
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
  return JsonOf(SpecOf(bytes), special_tokens);
}

absl::StatusOr<std::string> SymbolTokenizerJson(std::string_view symbols, bool numbers,
                                                const std::vector<std::string>& special_tokens) {
  const auto refuse = [&](const std::string& why) {
    return UsageError(Concat("tokenizer ", numbers ? "numbers" : "symbols", " \"", Printable(symbols),
                             "\" cannot be used; ", why, "; write every symbol once, like \"",
                             numbers ? "numbers:+-*=" : "symbols:0123456789+-*=", '"'));
  };
  if (symbols.empty()) return refuse("there is none");
  const std::string all = Concat(numbers ? kDigits : "", symbols);
  for (size_t i = all.size() - symbols.size(); i < all.size(); ++i) {
    const char c = all[i];
    const bool fits = (c >= ' ' && c <= '~') || c == '\n' || c == '\t';
    if (!fits) {
      return refuse(Concat("byte ", i + symbols.size() - all.size(),
                           " is neither printable ASCII nor a line end or tab"));
    }
    if (all.find(c) != i) return refuse(Concat("\"", Printable(all.substr(i, 1)), "\" is there twice"));
  }
  TokenizerSpec spec = SpecOf(all);
  if (numbers) InsertNumbers(&spec);
  return JsonOf(std::move(spec), special_tokens);
}

absl::StatusOr<Tokenizer> MakeTokenizer(const std::string& what) {
  const std::vector<std::string> special = {std::string(kEndOfText)};
  if (what == "bytes") return Tokenizer::FromJson(ByteTokenizerJson(special), what);
  const bool numbers = what.starts_with(kNumbers);
  if (!numbers && !what.starts_with(kSymbols)) {
    if (FileExists(what) || FolderExists(what)) return Tokenizer::Load(what);
    return MissingError(Concat("tokenizer \"", Printable(what), "\": ", WhyAbsent(what),
                               "; it is \"bytes\", ",
                               "\"symbols:0123456789+=\", \"numbers:+=\" or a tokenizer.json; correct it"));
  }
  const std::string_view symbols = std::string_view(what).substr((numbers ? kNumbers : kSymbols).size());
  ASSIGN_OR_RETURN(std::string json, SymbolTokenizerJson(symbols, numbers, special));
  return Tokenizer::FromJson(std::move(json), what);
}

}  // namespace moebius
