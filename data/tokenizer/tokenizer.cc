#include "data/tokenizer/tokenizer.h"

#include <algorithm>
#include <array>
#include <mutex>
#include <optional>
#include <unordered_map>

#include "core/base/check.h"
#include "core/base/status.h"
#include "core/base/strings.h"
#include "core/io/file.h"
#include "data/tokenizer/bpe_model.h"
#include "data/tokenizer/byte_alphabet.h"
#include "data/tokenizer/normalize.h"
#include "data/tokenizer/utf8_text.h"

namespace moebius {
namespace {

// Working memory of encoding threads, handed from call to call so that word caches stay warm.
class ScratchPool {
 public:
  std::unique_ptr<BpeModel::Scratch> Take() {
    {
      const std::lock_guard lock(mutex_);
      if (!idle_.empty()) {
        std::unique_ptr<BpeModel::Scratch> scratch = std::move(idle_.back());
        idle_.pop_back();
        return scratch;
      }
    }
    return std::make_unique<BpeModel::Scratch>();
  }
  void Give(std::unique_ptr<BpeModel::Scratch> scratch) {
    const std::lock_guard lock(mutex_);
    idle_.push_back(std::move(scratch));
  }

 private:
  std::mutex mutex_;
  std::vector<std::unique_ptr<BpeModel::Scratch>> idle_;
};

BpeModelSpec ModelSpec(const TokenizerSpec& spec) {
  BpeModelSpec model;
  const ByteAlphabet alphabet;
  model.byte_ids.fill(-1);
  for (size_t id = 0; id < spec.vocab.size(); ++id) {
    if (spec.vocab[id].empty()) continue;
    // A special token in vocab has characters outside the alphabet: no piece of text is ever that token.
    std::optional<std::string> bytes = alphabet.ToBytes(spec.vocab[id]);
    if (!bytes.has_value()) continue;
    if (bytes->size() == 1)
      model.byte_ids[static_cast<unsigned char>((*bytes)[0])] = static_cast<int32_t>(id);
    model.tokens.emplace_back(*std::move(bytes), static_cast<int32_t>(id));
  }
  model.merges.reserve(spec.merges.size());
  for (const TokenizerSpec::Merge& merge : spec.merges) {
    model.merges.push_back({merge.left, merge.right, merge.result});
  }
  model.unknown_id = spec.unknown_id;
  model.fuse_unknown = spec.fuse_unknown;
  model.ignore_merges = spec.ignore_merges;
  return model;
}

std::vector<AddedToken> Added(const TokenizerSpec& spec, bool normalized) {
  std::vector<AddedToken> tokens;
  for (AddedToken token : spec.added_tokens) {
    if (token.normalized != normalized) continue;
    // Looked for in normalised text, so it must be that itself.
    if (normalized && spec.normalize_nfc) token.content = NormalizeNfc(token.content);
    tokens.push_back(std::move(token));
  }
  return tokens;
}

}  // namespace

struct Tokenizer::Impl {
  Impl(TokenizerSpec spec, std::string json_text);

  void Encode(std::string_view text, bool parse_special, BpeModel::Scratch* scratch,
              std::vector<int32_t>* ids) const;
  // Added tokens that `matcher` finds become their ids, and encode_rest what lies between.
  template <typename EncodeRest>
  void EncodeAround(const AddedTokenMatcher& matcher, std::string_view text, bool parse_special,
                    std::vector<int32_t>* ids, const EncodeRest& encode_rest) const;
  void EncodePlain(std::string_view text, BpeModel::Scratch* scratch, std::vector<int32_t>* ids) const;

  std::string json;
  PreTokenizer pre_tokenizer;
  bool add_prefix_space, normalize_nfc;
  std::vector<int32_t> prefix_ids, suffix_ids;
  std::vector<AddedToken> added_tokens;
  std::unordered_map<std::string, int32_t> added_ids;
  AddedTokenMatcher raw_matcher, normalized_matcher;
  BpeModel model;
  std::string token_bytes;             // of all tokens, by id
  std::vector<uint32_t> token_starts;  // [vocab_size + 1] offsets in token_bytes
  std::vector<bool> special;           // by id
  std::vector<bool> marker;            // [vocab_size] EncodeOptions::parse_special
  std::array<bool, 256> has_byte{};    // as a token of its own, or as the unknown one
  mutable ScratchPool scratch_pool;
};

Tokenizer::Impl::Impl(TokenizerSpec spec, std::string json_text)
    : json(std::move(json_text)),
      pre_tokenizer(spec.pre_tokenizer),
      add_prefix_space(spec.add_prefix_space),
      normalize_nfc(spec.normalize_nfc),
      prefix_ids(std::move(spec.prefix_ids)),
      suffix_ids(std::move(spec.suffix_ids)),
      raw_matcher(Added(spec, false)),
      normalized_matcher(Added(spec, true)),
      model(ModelSpec(spec)) {
  const ByteAlphabet alphabet;
  std::vector<std::string> tokens(spec.vocab.size());
  for (size_t id = 0; id < tokens.size(); ++id) tokens[id] = alphabet.ToBytesOrSelf(spec.vocab[id]);
  added_tokens = std::move(spec.added_tokens);
  for (const AddedToken& token : added_tokens) {
    tokens.resize(std::max<size_t>(tokens.size(), token.id + 1));
    // The content itself, where HF's decoder would read characters of the byte alphabet (U+00E9) as bytes:
    // else a token's text would not come back.
    tokens[token.id] = token.content;
    added_ids.emplace(token.content, token.id);
  }
  special.resize(tokens.size());
  marker.resize(tokens.size());
  for (const AddedToken& token : added_tokens) {
    special[token.id] = token.special;
    marker[token.id] = IsMarker(token);
  }
  if (spec.unknown_id >= 0) has_byte.fill(true);
  for (size_t id = 0; id < spec.vocab.size(); ++id) {
    if (tokens[id].size() != 1 || added_ids.contains(tokens[id])) continue;
    has_byte[static_cast<unsigned char>(tokens[id][0])] = true;
  }
  for (const std::string& token : tokens) {
    token_starts.push_back(static_cast<uint32_t>(token_bytes.size()));
    token_bytes += token;
  }
  token_starts.push_back(static_cast<uint32_t>(token_bytes.size()));
}

template <typename EncodeRest>
void Tokenizer::Impl::EncodeAround(const AddedTokenMatcher& matcher, std::string_view text,
                                   bool parse_special, std::vector<int32_t>* ids,
                                   const EncodeRest& encode_rest) const {
  if (!parse_special && matcher.only_markers()) return encode_rest(text);
  size_t from = 0, search = 0;
  for (;;) {
    const AddedTokenMatcher::Match match = matcher.Next(text, search, from);
    search = match.search;
    if (match.id >= 0 && marker[match.id] && !parse_special) continue;  // text, and hides what it spans
    if (match.id >= 0 && match.end <= from) continue;  // in the blanks that the one before it took
    if (match.begin > from) encode_rest(text.substr(from, match.begin - from));
    if (match.id < 0) return;
    ids->push_back(match.id);
    from = match.end;
  }
}

void Tokenizer::Impl::Encode(std::string_view text, bool parse_special, BpeModel::Scratch* scratch,
                             std::vector<int32_t>* ids) const {
  EncodeAround(raw_matcher, text, parse_special, ids, [&](std::string_view raw) {
    std::string normalized;
    if (normalize_nfc && NeedsNormalizing(raw)) {
      normalized = NormalizeNfc(raw);
      raw = normalized;
    }
    EncodeAround(normalized_matcher, raw, parse_special, ids,
                 [&](std::string_view plain) { EncodePlain(plain, scratch, ids); });
  });
}

void Tokenizer::Impl::EncodePlain(std::string_view text, BpeModel::Scratch* scratch,
                                  std::vector<int32_t>* ids) const {
  std::string prefixed;
  if (add_prefix_space && !text.empty() && text[0] != ' ') {
    prefixed.append(" ").append(text);
    text = prefixed;
  }
  std::vector<size_t>& ends = scratch->piece_ends;
  for (size_t begin = 0; begin < text.size();) {
    ends.clear();
    const size_t end = pre_tokenizer.Split(text, begin, 512, &ends);
    model.EncodePieces(text, begin, ends, scratch, ids);
    begin = end;
  }
}

absl::StatusOr<Tokenizer> Tokenizer::FromJson(std::string json, const std::string& source) {
  ASSIGN_OR_RETURN(TokenizerSpec spec, ParseTokenizerJson(json, source));
  return Tokenizer(std::make_unique<Impl>(std::move(spec), std::move(json)));
}

absl::StatusOr<Tokenizer> Tokenizer::Load(const std::string& path) {
  const std::string file = FolderExists(path) ? JoinPath(path, "tokenizer.json") : path;
  ASSIGN_OR_RETURN(std::string json, ReadFile(file, kMaxTokenizerJsonBytes));
  return FromJson(std::move(json), file);
}

Tokenizer::Tokenizer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;
Tokenizer::~Tokenizer() = default;

void Tokenizer::Encode(std::string_view text, std::vector<int32_t>* ids, const EncodeOptions& options) const {
  CHECK_LT(text.size(), size_t{1} << 32);
  if (options.add_special) ids->insert(ids->end(), impl_->prefix_ids.begin(), impl_->prefix_ids.end());
  std::unique_ptr<BpeModel::Scratch> scratch = impl_->scratch_pool.Take();
  impl_->Encode(text, options.parse_special, scratch.get(), ids);
  impl_->scratch_pool.Give(std::move(scratch));
  if (options.add_special) ids->insert(ids->end(), impl_->suffix_ids.begin(), impl_->suffix_ids.end());
}

std::vector<int32_t> Tokenizer::Encode(std::string_view text, const EncodeOptions& options) const {
  std::vector<int32_t> ids;
  Encode(text, &ids, options);
  return ids;
}

absl::Status Tokenizer::CheckNothingIsLost(std::string_view text, const EncodeOptions& options) const {
  if (std::find(impl_->has_byte.begin(), impl_->has_byte.end(), false) == impl_->has_byte.end())
    return absl::OkStatus();
  std::optional<char> lost;
  std::vector<int32_t> markers;
  const auto check = [&](std::string_view rest) {
    for (const char c : rest) {
      if (!lost && !impl_->has_byte[static_cast<unsigned char>(c)]) lost = c;
    }
  };
  impl_->EncodeAround(impl_->raw_matcher, text, options.parse_special, &markers, [&](std::string_view rest) {
    impl_->EncodeAround(impl_->normalized_matcher, rest, options.parse_special, &markers, check);
  });
  if (!lost) return absl::OkStatus();
  return UsageError(Concat(
      "the tokenizer has no token for \"", Printable(std::string(1, *lost)), "\" in \"", Printable(text, 200),
      "\"; it would be lost; use a tokenizer that has it (tokenizer: \"bytes\" has all), or "
      "other words"));
}

std::string Tokenizer::Decode(std::span<const int32_t> ids, SpecialTokens special) const {
  std::string bytes;
  for (const int32_t id : ids) {
    if (special == SpecialTokens::kKeep || !IsSpecial(id)) bytes += TokenBytes(id);
  }
  return bytes;
}

std::string Tokenizer::DecodeText(std::span<const int32_t> ids, SpecialTokens special) const {
  return ReplaceInvalidUtf8(Decode(ids, special));
}

std::string_view Tokenizer::TokenBytes(int32_t id) const {
  if (id < 0 || id >= vocab_size()) return {};
  const uint32_t begin = impl_->token_starts[id], end = impl_->token_starts[id + 1];
  return std::string_view(impl_->token_bytes).substr(begin, end - begin);
}

bool Tokenizer::IsSpecial(int32_t id) const { return id >= 0 && id < vocab_size() && impl_->special[id]; }

std::optional<int32_t> Tokenizer::TokenToId(std::string_view token) const {
  if (const auto found = impl_->added_ids.find(std::string(token)); found != impl_->added_ids.end()) {
    return found->second;
  }
  const std::string bytes = ByteAlphabet().ToBytesOrSelf(token);
  if (bytes.empty()) return std::nullopt;
  for (int32_t id = 0; id < vocab_size(); ++id) {
    if (TokenBytes(id) == bytes) return id;
  }
  return std::nullopt;
}

int32_t Tokenizer::vocab_size() const { return static_cast<int32_t>(impl_->token_starts.size()) - 1; }
const std::vector<int32_t>& Tokenizer::prefix_ids() const { return impl_->prefix_ids; }
PreTokenizerKind Tokenizer::pre_tokenizer() const { return impl_->pre_tokenizer.kind(); }
const std::vector<AddedToken>& Tokenizer::added_tokens() const { return impl_->added_tokens; }
const std::string& Tokenizer::json() const { return impl_->json; }

std::string StreamDecoder::Push(int32_t id) {
  if (special_ == SpecialTokens::kSkip && tokenizer_.IsSpecial(id)) return "";
  pending_ += tokenizer_.TokenBytes(id);
  const size_t held = IncompleteUtf8Suffix(pending_);
  std::string text = ReplaceInvalidUtf8(std::string_view(pending_).substr(0, pending_.size() - held));
  pending_.erase(0, pending_.size() - held);
  return text;
}

std::string StreamDecoder::Finish() {
  std::string text = ReplaceInvalidUtf8(pending_);
  pending_.clear();
  return text;
}

}  // namespace moebius
