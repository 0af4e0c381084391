#include "data/tokenizer/add_tokens.h"

#include <algorithm>
#include <set>

#include "core/base/status.h"
#include "core/base/strings.h"
#include "data/tokenizer/token_index.h"
#include "data/tokenizer/tokenizer_spec.h"
#include "data/tokenizer/utf8_text.h"

namespace moebius {

absl::StatusOr<std::string> AddTokens(std::string_view tokenizer_json, const std::vector<std::string>& names,
                                      const std::string& source) {
  ASSIGN_OR_RETURN(TokenizerSpec spec, ParseTokenizerJson(tokenizer_json, source));
  const TokenIndex vocab(spec.vocab);
  std::set<std::string> existing, given;
  auto next_id = static_cast<int32_t>(spec.vocab.size());
  for (const AddedToken& token : spec.added_tokens) {
    existing.insert(token.content);
    next_id = std::max(next_id, token.id + 1);
  }
  for (const std::string& name : names) {
    if (name.empty() || !IsUtf8(name) || !given.insert(name).second) {
      return UsageError(Concat("token \"", Printable(name), "\" cannot be added to ", source,
                               "; it is empty, not UTF-8 or given twice; name every new token once"));
    }
    if (existing.contains(name)) continue;
    const int32_t in_vocab = vocab.Find(name);
    if (in_vocab < 0 && next_id > kMaxTokenId)
      return UsageError(Concat(source, ": has no id left for token \"", Printable(name), "\"; ids end at ",
                               kMaxTokenId, "; add fewer tokens"));
    spec.added_tokens.push_back(
        {.id = in_vocab >= 0 ? in_vocab : next_id++, .content = name, .special = true});
  }
  return WriteTokenizerJson(spec);
}

}  // namespace moebius
