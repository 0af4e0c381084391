#include "data/special_tokens.h"

#include "core/base/status.h"
#include "core/base/strings.h"
#include "data/tokenizer/bpe_trainer.h"

namespace moebius {

namespace {

std::optional<int32_t> FirstOf(const Tokenizer& tokenizer, const std::vector<const char*>& names) {
  for (const char* name : names) {
    if (const auto id = tokenizer.TokenToId(name)) return id;
  }
  return std::nullopt;
}

}  // namespace

std::optional<int32_t> FindEndOfDocument(const Tokenizer& tokenizer) {
  return FirstOf(tokenizer, {"<｜end▁of▁sentence｜>", "<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>"});
}

std::optional<int32_t> FindBeginOfDocument(const Tokenizer& tokenizer) {
  return FirstOf(tokenizer, {"<｜begin▁of▁sentence｜>", "<|begin_of_text|>", "<s>", "<bos>"});
}

absl::StatusOr<FimTokens> FindFimTokens(const Tokenizer& tokenizer, const std::string& source) {
  struct Names {
    const char *begin, *hole, *end;
  };
  for (const Names& names : {Names{"<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"},
                             Names{"<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"},
                             Names{"<fim_prefix>", "<fim_suffix>", "<fim_middle>"}}) {
    const auto begin = tokenizer.TokenToId(names.begin), hole = tokenizer.TokenToId(names.hole),
               end = tokenizer.TokenToId(names.end);
    if (begin && hole && end) return FimTokens{*begin, *hole, *end};
  }
  return UsageError(
      Concat(source,
             ": fim_rate is above 0, but the tokenizer has no fill-in-the-middle tokens (<｜fim▁begin｜>, "
             "<｜fim▁hole｜>, <｜fim▁end｜> or <|fim_prefix|>, <|fim_suffix|>, <|fim_middle|>); set "
             "fim_rate to 0 or use a tokenizer that has them"));
}

std::vector<std::string> BuiltInSpecialTokens() {
  std::vector<std::string> tokens = DefaultSpecialTokens();
  tokens.insert(tokens.end(), {"<｜fim▁hole｜>", "<｜fim▁begin｜>", "<｜fim▁end｜>"});
  return tokens;
}

}  // namespace moebius
