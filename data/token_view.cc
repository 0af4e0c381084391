#include "data/token_view.h"

#include <algorithm>

#include "core/base/check.h"

namespace moebius {

TokenView::TokenView(std::unique_ptr<TokenFile> file)
    : file_(std::move(file)), num_tokens_(file_->num_tokens()) {}

TokenView::TokenView(std::unique_ptr<TokenFile> file, double rate, uint64_t seed, FimTokens tokens,
                     std::optional<int32_t> end_of_document)
    : file_(std::move(file)), fim_(Fim{rate, seed, tokens, end_of_document, {}}) {
  const auto documents = static_cast<int64_t>(file_->document_starts().size());
  fim_->starts.reserve(documents);
  for (int64_t d = 0; d < documents; ++d) {
    fim_->starts.push_back(num_tokens_);
    num_tokens_ += FileLength(d) + (ChooseFimCuts(seed, d, rate, BodyLength(d)) ? 3 : 0);
  }
}

int64_t TokenView::FileLength(int64_t d) const {
  const auto starts = file_->document_starts();
  const auto next = static_cast<size_t>(d) + 1;
  return (next < starts.size() ? starts[next] : file_->num_tokens()) - starts[d];
}

int64_t TokenView::BodyLength(int64_t d) const {
  const int64_t length = FileLength(d);
  if (length == 0 || !fim_->end_of_document) return length;
  int32_t last = 0;
  file_->Read(file_->document_starts()[d] + length - 1, {&last, 1});
  return length - (last == *fim_->end_of_document ? 1 : 0);
}

void TokenView::Read(int64_t begin, std::span<int32_t> out) const {
  CHECK(begin >= 0 && begin + static_cast<int64_t>(out.size()) <= num_tokens_)
      << "tokens " << begin << " + " << out.size() << " of " << num_tokens_;
  if (!fim_) return file_->Read(begin, out);
  const std::vector<int64_t>& starts = fim_->starts;
  int64_t d = std::upper_bound(starts.begin(), starts.end(), begin) - starts.begin() - 1;
  while (!out.empty()) {
    const int64_t end = d + 1 < static_cast<int64_t>(starts.size()) ? starts[d + 1] : num_tokens_;
    const size_t count = std::min(out.size(), static_cast<size_t>(end - begin));
    ReadDocument(d, begin - starts[d], out.first(count));
    out = out.subspan(count);
    begin += static_cast<int64_t>(count);
    ++d;
  }
}

void TokenView::ReadDocument(int64_t d, int64_t begin, std::span<int32_t> out) const {
  const int64_t start = file_->document_starts()[d], length = FileLength(d), body = BodyLength(d);
  const auto cuts = ChooseFimCuts(fim_->seed, d, fim_->rate, body);
  if (!cuts) return file_->Read(start + begin, out);
  // A piece is one literal token, or tokens [from, from + length) of the document in the file.
  struct Piece {
    int64_t from, length;
    int32_t literal;
  };
  const Piece pieces[] = {
      {-1, 1, fim_->tokens.begin}, {0, cuts->middle_begin, 0},
      {-1, 1, fim_->tokens.hole},  {cuts->middle_end, body - cuts->middle_end, 0},
      {-1, 1, fim_->tokens.end},   {cuts->middle_begin, cuts->middle_end - cuts->middle_begin, 0},
      {body, length - body, 0}};
  for (const Piece& piece : pieces) {
    if (out.empty()) return;
    if (begin >= piece.length) {
      begin -= piece.length;
      continue;
    }
    const size_t count = std::min(out.size(), static_cast<size_t>(piece.length - begin));
    if (piece.from < 0) {
      out[0] = piece.literal;
    } else {
      file_->Read(start + piece.from + begin, out.first(count));
    }
    out = out.subspan(count);
    begin = 0;
  }
}

}  // namespace moebius
