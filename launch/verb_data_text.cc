#include "launch/verb_data_text.h"

#include <algorithm>
#include <cstdio>

#include "core/base/status.h"
#include "core/base/strings.h"
#include "data/token_file.h"
#include "data/tokenizer/tokenizer.h"

namespace moebius {
namespace {

constexpr int64_t kTokensAtOnce = 1 << 16;

absl::Status RunDataText(const ParsedArgs& args) {
  ASSIGN_OR_RETURN(const std::unique_ptr<TokenFile> file, TokenFile::Open(args.positional()[0]));
  if (file->info().tokenizer_json.empty()) {
    return UsageError(Concat(file->path(), " carries no tokenizer, so its tokens cannot become text; build it with moebius "
                             "data build"));
  }
  ASSIGN_OR_RETURN(const Tokenizer tokenizer, Tokenizer::FromJson(file->info().tokenizer_json, file->path()));
  std::vector<int32_t> ids;
  for (int64_t begin = 0; begin < file->num_tokens(); begin += kTokensAtOnce) {
    ids.resize(std::min(kTokensAtOnce, file->num_tokens() - begin));
    RETURN_IF_ERROR(file->Read(begin, ids));
    const std::string text = tokenizer.Decode(ids, SpecialTokens::kSkip);
    if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size()) {
      return CannotWriteError("cannot write the text; standard output is closed or full; make room and run it again");
    }
  }
  return absl::OkStatus();
}

}  // namespace

std::vector<Verb> DataTextVerbs() {
  return {{.name = "data text",
           .summary = "the text that a token file stands for",
           .usage = "FILE.h5",
           .flags = {},
           .examples = {"moebius data text data/val.h5 > held-out.txt", "moebius data text data/train.h5 | wc -c"},
           .min_positional = 1,
           .max_positional = 1,
           .run = RunDataText}};
}

}  // namespace moebius
