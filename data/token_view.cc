#include "data/token_view.h"

#include <algorithm>

#include "core/base/check.h"
#include "core/base/status.h"

namespace moebius {

TokenView::TokenView(std::unique_ptr<TokenFile> file)
    : file_(std::move(file)), num_tokens_(file_->num_tokens()) {}

absl::StatusOr<TokenView> TokenView::WithFim(std::unique_ptr<TokenFile> file, double rate, uint64_t seed,
                                             FimTokens tokens, std::optional<int32_t> end_of_document) {
  TokenView view(std::move(file));
  view.fim_ = Fim{rate, seed, tokens, end_of_document, {}};
  view.num_tokens_ = 0;
  const auto documents = static_cast<int64_t>(view.file_->document_starts().size());
  view.fim_->starts.reserve(documents);
  for (int64_t d = 0; d < documents; ++d) {
    view.fim_->starts.push_back(view.num_tokens_);
    ASSIGN_OR_RETURN(const int64_t body, view.BodyLength(d));
    view.num_tokens_ += view.FileLength(d) + (ChooseFimCuts(seed, d, rate, body) ? 3 : 0);
  }
  return view;
}

int64_t TokenView::FileLength(int64_t d) const {
  const auto starts = file_->document_starts();
  const auto next = static_cast<size_t>(d) + 1;
  return (next < starts.size() ? starts[next] : file_->num_tokens()) - starts[d];
}

absl::StatusOr<int64_t> TokenView::BodyLength(int64_t d) const {
  const int64_t length = FileLength(d);
  if (length == 0 || !fim_->end_of_document) return length;
  int32_t last = 0;
  RETURN_IF_ERROR(file_->Read(file_->document_starts()[d] + length - 1, {&last, 1}));
  return length - (last == *fim_->end_of_document ? 1 : 0);
}

absl::Status TokenView::Read(int64_t begin, std::span<int32_t> out) const {
  CHECK(begin >= 0 && begin + static_cast<int64_t>(out.size()) <= num_tokens_)
      << "tokens " << begin << " + " << out.size() << " of " << num_tokens_;
  if (!fim_) return file_->Read(begin, out);
  const std::vector<int64_t>& starts = fim_->starts;
  int64_t d = std::upper_bound(starts.begin(), starts.end(), begin) - starts.begin() - 1;
  while (!out.empty()) {
    const int64_t end = d + 1 < static_cast<int64_t>(starts.size()) ? starts[d + 1] : num_tokens_;
    const size_t count = std::min(out.size(), static_cast<size_t>(end - begin));
    RETURN_IF_ERROR(ReadDocument(d, begin - starts[d], out.first(count)));
    out = out.subspan(count);
    begin += static_cast<int64_t>(count);
    ++d;
  }
  return absl::OkStatus();
}

absl::Status TokenView::ReadDocument(int64_t d, int64_t begin, std::span<int32_t> out) const {
  const int64_t start = file_->document_starts()[d], length = FileLength(d);
  ASSIGN_OR_RETURN(const int64_t body, BodyLength(d));
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
    if (out.empty()) break;
    if (begin >= piece.length) {
      begin -= piece.length;
      continue;
    }
    const size_t count = std::min(out.size(), static_cast<size_t>(piece.length - begin));
    if (piece.from < 0) {
      out[0] = piece.literal;
    } else {
      RETURN_IF_ERROR(file_->Read(start + piece.from + begin, out.first(count)));
    }
    out = out.subspan(count);
    begin = 0;
  }
  return absl::OkStatus();
}

}  // namespace moebius
