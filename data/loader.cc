#include "data/loader.h"

#include <algorithm>
#include <utility>

#include "core/base/check.h"
#include "core/base/status.h"
#include "core/base/strings.h"
#include "data/permutation.h"
#include "data/special_tokens.h"
#include "data/tokenizer/tokenizer.h"

namespace moebius {
namespace {

absl::StatusOr<std::unique_ptr<TokenFile>> OpenFor(const std::string& path, int64_t vocab_size) {
  ASSIGN_OR_RETURN(std::unique_ptr<TokenFile> file, TokenFile::Open(path));
  if (vocab_size > 0 && file->info().vocab_size > vocab_size) {
    return UsageError(Concat(path, ": its vocabulary has ", file->info().vocab_size,
                             " tokens, the model's vocab_size is ", vocab_size,
                             "; set model.vocab_size to at least ", file->info().vocab_size,
                             " or build the token file with the model's tokenizer"));
  }
  return file;
}

// Whether `token` is among the file's first ones.
absl::StatusOr<bool> Holds(const TokenFile& file, int32_t token) {
  constexpr int64_t kLookedAt = int64_t{1} << 24;
  std::vector<int32_t> tokens(std::min(kLookedAt, file.num_tokens()));
  RETURN_IF_ERROR(file.Read(0, tokens));
  return std::find(tokens.begin(), tokens.end(), token) != tokens.end();
}

absl::StatusOr<TokenView> ViewFor(std::unique_ptr<TokenFile> file, const LoaderOptions& options) {
  if (options.fim_rate <= 0) return TokenView(std::move(file));
  if (file->info().tokenizer_json.empty()) {
    return UsageError(Concat(
        file->path(), ": data.fim_rate is ", options.fim_rate,
        ", but the token file does not carry its tokenizer (/tokenizer_json), so the fill-in-the-middle "
        "tokens are unknown; set fim_rate to 0 or build the file again"));
  }
  ASSIGN_OR_RETURN(const Tokenizer tokenizer,
                   Tokenizer::FromJson(file->info().tokenizer_json, Concat(file->path(), "/tokenizer_json")));
  ASSIGN_OR_RETURN(const FimTokens tokens, FindFimTokens(tokenizer, file->path()));
  ASSIGN_OR_RETURN(const bool rearranged, Holds(*file, tokens.begin));
  if (rearranged) {
    return UsageError(Concat(file->path(), ": data.fim_rate is ", options.fim_rate,
                             ", but it was built with a fim_rate: its documents are rearranged already; set "
                             "data.fim_rate to 0, or build the file again without"));
  }
  return TokenView::WithFim(std::move(file), options.fim_rate, options.seed, tokens,
                            FindEndOfDocument(tokenizer));
}

// Adds the positions of documents that begin inside tokens [begin, begin + length), which lie at `position`
// of the sequence; positions at or beyond `limit` have no input there.
void AddStarts(std::span<const int64_t> document_starts, int64_t begin, int64_t length, int64_t position,
               int64_t limit, std::vector<int32_t>* starts) {
  if (position < limit) starts->push_back(static_cast<int32_t>(position));
  auto next = std::upper_bound(document_starts.begin(), document_starts.end(), begin);
  for (; next != document_starts.end() && *next < begin + length && position + *next - begin < limit;
       ++next) {
    starts->push_back(static_cast<int32_t>(position + *next - begin));
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<Loader>> Loader::Open(const LoaderOptions& options) {
  CHECK_GE(options.sequence_length, 1);
  if (!(options.fim_rate >= 0 && options.fim_rate <= 1)) {
    return UsageError(
        Concat("data.fim_rate: ", options.fim_rate, " is not a share between 0 and 1; correct the recipe"));
  }
  std::vector<double> weights;
  for (const LoaderOptions::Part& part : options.parts) weights.push_back(part.weight);
  if (weights.empty()) return UsageError("data: no token file to train on; set data.train or data.mixture");
  ASSIGN_OR_RETURN(MixturePattern mixture, MixturePattern::Create(weights));
  std::unique_ptr<Loader> loader(new Loader(options, std::move(mixture)));
  for (const LoaderOptions::Part& part : options.parts) RETURN_IF_ERROR(loader->AddPart(part.path));
  return loader;
}

absl::Status Loader::AddPart(const std::string& path) {
  ASSIGN_OR_RETURN(std::unique_ptr<TokenFile> file, OpenFor(path, options_.vocab_size));
  if (!views_.empty()) {
    const TokenFileInfo &first = views_[0].file().info(), &info = file->info();
    if (first.tokenizer_sha256 != info.tokenizer_sha256) {
      return UsageError(Concat(path, ": made with another tokenizer (", info.tokenizer_sha256.substr(0, 12),
                               "...) than ", views_[0].file().path(), " (",
                               first.tokenizer_sha256.substr(0, 12),
                               "...); build the parts of a mixture with one tokenizer"));
    }
  }
  ASSIGN_OR_RETURN(TokenView view, ViewFor(std::move(file), options_));
  SequencePlan plan(options_.packing, view.document_starts(), view.num_tokens(), options_.sequence_length);
  if (plan.size() == 0) {
    return UsageError(
        Concat(path, ": ", view.num_tokens(), " tokens are too few for one sequence of sequence_length ",
               options_.sequence_length, " and its last label; use a shorter sequence or more text"));
  }
  views_.push_back(std::move(view));
  plans_.push_back(std::move(plan));
  return absl::OkStatus();
}

absl::Status Loader::GetSequence(int64_t sample, std::span<int32_t> tokens,
                                 std::vector<int32_t>* document_starts) const {
  CHECK_GE(sample, 0);
  CHECK_EQ(static_cast<int64_t>(tokens.size()), options_.sequence_length + 1);
  const MixturePattern::Pick pick = mixture_.At(sample);
  const SequencePlan& plan = plans_[pick.part];
  const TokenView& view = views_[pick.part];
  const int64_t epoch = pick.index / plan.size();
  int64_t sequence = pick.index % plan.size();
  if (options_.shuffle) {
    const KeyedPermutation order(static_cast<uint64_t>(plan.size()), options_.seed,
                                 Concat("data/shuffle/", pick.part, "/", epoch));
    sequence = static_cast<int64_t>(order(static_cast<uint64_t>(sequence)));
  }
  std::vector<Segment> segments;
  plan.Segments(sequence, &segments);
  document_starts->clear();
  int64_t position = 0;
  for (const Segment& segment : segments) {
    RETURN_IF_ERROR(view.Read(segment.begin, tokens.subspan(position, segment.length)));
    AddStarts(view.document_starts(), segment.begin, segment.length, position, options_.sequence_length,
              document_starts);
    position += segment.length;
  }
  return absl::OkStatus();
}

absl::Status Loader::GetBatch(int64_t first, int64_t count, Batch* batch) const {
  const int64_t stride = options_.sequence_length + 1;
  batch->first_sample = first;
  batch->num_sequences = count;
  batch->sequence_length = options_.sequence_length;
  batch->tokens.resize(static_cast<size_t>(count * stride));
  batch->document_starts.resize(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) {
    RETURN_IF_ERROR(GetSequence(first + i, std::span(batch->tokens).subspan(i * stride, stride),
                                &batch->document_starts[i]));
  }
  return absl::OkStatus();
}

double Loader::epochs(int64_t k, int64_t samples) const {
  const int64_t periods = samples / MixturePattern::kPeriod;
  int64_t used = num_parts() == 1 ? samples : periods * mixture_.count(k);
  if (num_parts() > 1) {
    for (int64_t g = periods * MixturePattern::kPeriod; g < samples; ++g) used += mixture_.At(g).part == k;
  }
  return static_cast<double>(used) / static_cast<double>(plans_[k].size());
}

absl::StatusOr<EvaluationPass> EvaluationPass::Open(const std::string& path, int64_t sequence_length,
                                                    int64_t vocab_size) {
  CHECK_GE(sequence_length, 1);
  ASSIGN_OR_RETURN(std::unique_ptr<TokenFile> file, OpenFor(path, vocab_size));
  const int64_t labels = file->num_tokens() - 1;
  if (labels < 1) {
    return UsageError(Concat(path, ": a single token leaves nothing to predict; hold out more text"));
  }
  if (file->info().bytes == 0) {
    return DamagedError(
        Concat(path, ": attribute bytes is 0, so bits per byte have no meaning; build the file again"));
  }
  return EvaluationPass(std::move(file), sequence_length, (labels + sequence_length - 1) / sequence_length);
}

absl::Status EvaluationPass::GetSequence(int64_t i, std::vector<int32_t>* tokens,
                                         std::vector<int32_t>* document_starts) const {
  CHECK(i >= 0 && i < num_sequences_) << "sequence " << i << " of " << num_sequences_;
  const int64_t begin = i * sequence_length_;
  const int64_t inputs = std::min(sequence_length_, num_labels() - begin);
  tokens->resize(static_cast<size_t>(inputs + 1));
  document_starts->clear();
  AddStarts(file_->document_starts(), begin, inputs + 1, 0, inputs, document_starts);
  return file_->Read(begin, *tokens);
}

}  // namespace moebius
