#include "data/token_file.h"

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "core/base/check.h"
#include "core/base/status.h"
#include "core/base/strings.h"
#include "core/io/json.h"

namespace moebius {
namespace {

constexpr int64_t kMaxVocabulary = int64_t{1} << 31;

absl::Status Damaged(const std::string& path, std::string_view field, std::string_view what) {
  return DamagedError(
      Concat(path, ": ", field, " ", what, "; the token file is damaged or not one; build it again"));
}

// What core/io says already names file and field; a part that is missing is damage here, not a missing file.
absl::Status AsDamaged(const absl::Status& status) {
  return DamagedError(Concat(status.message(), "; build the token file again (moebius data build)"));
}

// What manifest.json in the folder of `path` says of this file; nullopt without manifest or entry.
absl::StatusOr<std::optional<FileHash>> HashInManifest(const std::string& path) {
  const std::string manifest_path = JoinPath(ParentPath(path), "manifest.json");
  if (!FileExists(manifest_path)) return std::nullopt;
  ASSIGN_OR_RETURN(const nlohmann::json manifest, ReadJsonFile(manifest_path));
  if (!HasJsonField(manifest, "outputs")) return std::nullopt;
  ASSIGN_OR_RETURN(const nlohmann::json* outputs, GetObject(manifest, "outputs", manifest_path));
  const std::string name = FileName(path);
  if (!HasJsonField(*outputs, name)) return std::nullopt;
  const std::string source = Concat(manifest_path, ": outputs");
  ASSIGN_OR_RETURN(const nlohmann::json* entry, GetObject(*outputs, name, source));
  FileHash hash;
  ASSIGN_OR_RETURN(hash.sha256, GetString(*entry, "sha256", Concat(source, ": ", name)));
  ASSIGN_OR_RETURN(hash.bytes, GetInt(*entry, "bytes", Concat(source, ": ", name), 0));
  return hash;
}

// Token i of a mapped file, in which a dataset may lie at any byte.
template <typename T>
T TokenAt(const std::byte* data, int64_t i) {
  T token;
  std::memcpy(&token, data + i * static_cast<int64_t>(sizeof(T)), sizeof(T));
  return token;
}

template <typename T>
uint32_t Largest(const std::byte* data, int64_t count) {
  T largest = 0;
  for (int64_t i = 0; i < count; ++i) largest = std::max(largest, TokenAt<T>(data, i));
  return largest;
}

// Converts and returns the largest.
template <typename T>
uint32_t Convert(const std::byte* data, std::span<int32_t> out) {
  T largest = 0;
  for (size_t i = 0; i < out.size(); ++i) {
    const T token = TokenAt<T>(data, static_cast<int64_t>(i));
    largest = std::max(largest, token);
    out[i] = static_cast<int32_t>(token);
  }
  return largest;
}

}  // namespace

// ---- writing

TokenFileWriter::TokenFileWriter(std::string path, int64_t vocab_size, std::unique_ptr<Hdf5Writer> writer)
    : path_(std::move(path)), vocab_size_(vocab_size), writer_(std::move(writer)) {}

TokenFileWriter::~TokenFileWriter() = default;

absl::StatusOr<std::unique_ptr<TokenFileWriter>> TokenFileWriter::Create(const std::string& path,
                                                                         int64_t vocab_size) {
  CHECK(vocab_size >= 1 && vocab_size <= kMaxVocabulary) << vocab_size;
  ASSIGN_OR_RETURN(Hdf5Writer writer, Hdf5Writer::Create(path));
  RETURN_IF_ERROR(writer.CreateDataset("tokens", vocab_size <= 65536 ? DType::kU16 : DType::kU32));
  RETURN_IF_ERROR(writer.CreateDataset("document_starts", DType::kI64));
  return std::unique_ptr<TokenFileWriter>(
      new TokenFileWriter(path, vocab_size, std::make_unique<Hdf5Writer>(std::move(writer))));
}

absl::Status TokenFileWriter::AddDocument(std::span<const int32_t> tokens) {
  if (tokens.empty()) return absl::OkStatus();
  const auto [low, high] = std::minmax_element(tokens.begin(), tokens.end());
  CHECK(*low >= 0 && *high < vocab_size_)
      << "tokens " << *low << " to " << *high << " of a vocabulary of " << vocab_size_;
  const int64_t start = num_tokens_;
  RETURN_IF_ERROR(writer_->Append("document_starts", std::span<const int64_t>(&start, 1)));
  num_tokens_ += static_cast<int64_t>(tokens.size());
  ++num_documents_;
  if (vocab_size_ <= 65536) {
    narrow_.assign(tokens.begin(), tokens.end());
    return writer_->Append("tokens", std::span<const uint16_t>(narrow_));
  }
  wide_.assign(tokens.begin(), tokens.end());
  return writer_->Append("tokens", std::span<const uint32_t>(wide_));
}

absl::StatusOr<FileHash> TokenFileWriter::Finish(const TokenFileInfo& info) {
  CHECK_EQ(info.vocab_size, vocab_size_);
  if (num_tokens_ == 0) {
    return DamagedError(
        Concat(path_,
               ": no text to write; every document was empty or left out; look at the sources and the "
               "held-out list"));
  }
  RETURN_IF_ERROR(writer_->SetAttribute("format_version", kTokenFileVersion));
  RETURN_IF_ERROR(writer_->SetAttribute("vocab_size", info.vocab_size));
  RETURN_IF_ERROR(writer_->SetAttribute("bytes", info.bytes));
  RETURN_IF_ERROR(writer_->SetAttribute("tokenizer_sha256", std::string_view(info.tokenizer_sha256)));
  if (!info.tokenizer_json.empty())
    RETURN_IF_ERROR(writer_->WriteBytes("tokenizer_json", info.tokenizer_json));
  return writer_->Commit();
}

// ---- reading

absl::StatusOr<std::unique_ptr<TokenFile>> TokenFile::Open(const std::string& path) {
  if (!FileExists(path)) {
    return MissingError(
        FolderExists(path)
            ? Concat(path, ": a folder, no token file; name a file in it, for example ",
                     JoinPath(path, "train.h5"))
            : Concat(path, ": no such token file; moebius data build makes them; check the path"));
  }
  ASSIGN_OR_RETURN(const int64_t size, FileSize(path));
  ASSIGN_OR_RETURN(const std::optional<FileHash> listed, HashInManifest(path));
  Hdf5File::Options options;
  if (listed) {
    if (listed->bytes != size) {
      return DamagedError(
          Concat(path, ": ", size, " bytes, but manifest.json beside it says ", listed->bytes,
                 "; the file was changed or cut short; build it again, or remove the manifest to "
                 "use the file as it is"));
    }
    if (size <= kMaxCheckedBytes) options.expected_sha256 = listed->sha256;
  }
  ASSIGN_OR_RETURN(const Hdf5File file, Hdf5File::Open(path, options));
  std::unique_ptr<TokenFile> tokens(new TokenFile());
  tokens->path_ = path;
  if (listed) tokens->listed_sha256_ = listed->sha256;
  RETURN_IF_ERROR(tokens->ReadAttributes(file));
  RETURN_IF_ERROR(tokens->MapTokens(file));
  RETURN_IF_ERROR(tokens->ReadDocumentStarts(file));
  if (size <= kMaxCheckedBytes) RETURN_IF_ERROR(tokens->CheckTokens());
  return tokens;
}

absl::Status TokenFile::ReadAttributes(const Hdf5File& file) {
  auto version = file.IntAttribute("format_version");
  if (!version.ok()) return AsDamaged(version.status());
  if (*version != kTokenFileVersion) {
    return Damaged(path_, "attribute format_version",
                   Concat("is ", *version, ", this program reads ", kTokenFileVersion));
  }
  auto vocab_size = file.IntAttribute("vocab_size");
  if (!vocab_size.ok()) return AsDamaged(vocab_size.status());
  if (*vocab_size < 1 || *vocab_size > kMaxVocabulary) {
    return Damaged(path_, "attribute vocab_size", Concat("is ", *vocab_size, ", outside 1 to 2^31"));
  }
  auto bytes = file.IntAttribute("bytes");
  if (!bytes.ok()) return AsDamaged(bytes.status());
  if (*bytes < 0) return Damaged(path_, "attribute bytes", Concat("is negative: ", *bytes));
  info_.vocab_size = *vocab_size;
  info_.bytes = *bytes;
  if (file.HasAttribute("tokenizer_sha256")) {
    auto sha256 = file.StringAttribute("tokenizer_sha256");
    if (!sha256.ok()) return AsDamaged(sha256.status());
    info_.tokenizer_sha256 = *sha256;
  }
  if (file.Has("tokenizer_json")) {
    auto json = file.ReadBytes("tokenizer_json");
    if (!json.ok()) return AsDamaged(json.status());
    info_.tokenizer_json = *std::move(json);
    if (!info_.tokenizer_sha256.empty() && Sha256Hex(info_.tokenizer_json) != info_.tokenizer_sha256) {
      return Damaged(path_, "/tokenizer_json", "does not have the hash in attribute tokenizer_sha256");
    }
  }
  return absl::OkStatus();
}

absl::Status TokenFile::MapTokens(const Hdf5File& file) {
  auto dataset = file.Find("tokens");
  if (!dataset.ok()) return AsDamaged(dataset.status());
  if (dataset->dtype != DType::kU16 && dataset->dtype != DType::kU32) {
    return Damaged(path_, "/tokens", "is not of type uint16 or uint32");
  }
  if (dataset->length == 0) return Damaged(path_, "/tokens", "is empty");
  num_tokens_ = dataset->length;
  token_bytes_ = dataset->dtype == DType::kU16 ? 2 : 4;
  if (const auto extents = file.Extents("tokens"); extents.ok()) {
    ASSIGN_OR_RETURN(mapped_, MappedFile::Open(path_));
    int64_t expected = 0;
    for (const Hdf5File::Extent& extent : *extents) {
      ASSIGN_OR_RETURN(const auto bytes, mapped_.Slice(static_cast<uint64_t>(extent.file_offset),
                                                       static_cast<uint64_t>(extent.count * token_bytes_)));
      if (extent.first != expected) return Damaged(path_, "/tokens", "has gaps");
      expected += extent.count;
      stretches_.push_back({extent.first, extent.count, bytes.data()});
    }
    if (expected != num_tokens_) return Damaged(path_, "/tokens", "is not stored in full");
    return absl::OkStatus();
  }
  memory_.resize(static_cast<size_t>(num_tokens_ * token_bytes_));
  const auto count = static_cast<size_t>(num_tokens_);
  const absl::Status status =
      token_bytes_ == 2
          ? file.Read("tokens", 0, std::span(reinterpret_cast<uint16_t*>(memory_.data()), count))
          : file.Read("tokens", 0, std::span(reinterpret_cast<uint32_t*>(memory_.data()), count));
  if (!status.ok()) return AsDamaged(status);
  stretches_.push_back({0, num_tokens_, memory_.data()});
  return absl::OkStatus();
}

absl::Status TokenFile::ReadDocumentStarts(const Hdf5File& file) {
  auto dataset = file.Find("document_starts");
  if (!dataset.ok()) return AsDamaged(dataset.status());
  if (dataset->dtype != DType::kI64) return Damaged(path_, "/document_starts", "is not of type int64");
  if (dataset->length == 0 || dataset->length > num_tokens_) {
    return Damaged(path_, "/document_starts",
                   Concat("has ", dataset->length, " entries for ", num_tokens_, " tokens"));
  }
  document_starts_.resize(static_cast<size_t>(dataset->length));
  const absl::Status status = file.Read("document_starts", 0, std::span<int64_t>(document_starts_));
  if (!status.ok()) return AsDamaged(status);
  if (document_starts_[0] != 0)
    return Damaged(path_, "/document_starts", Concat("begins with ", document_starts_[0], ", not 0"));
  for (size_t d = 1; d < document_starts_.size(); ++d) {
    if (document_starts_[d] <= document_starts_[d - 1] || document_starts_[d] >= num_tokens_) {
      return Damaged(path_, Concat("/document_starts[", d, "]"),
                     Concat("is ", document_starts_[d], ", which is not between its predecessor ",
                            document_starts_[d - 1], " and the ", num_tokens_, " tokens"));
    }
  }
  return absl::OkStatus();
}

absl::Status TokenFile::CheckTokens() const {
  for (const Stretch& stretch : stretches_) {
    const uint32_t largest = token_bytes_ == 2 ? Largest<uint16_t>(stretch.data, stretch.count)
                                               : Largest<uint32_t>(stretch.data, stretch.count);
    if (largest >= info_.vocab_size) {
      return Damaged(path_, "/tokens",
                     Concat("holds token ", largest, ", but attribute vocab_size is ", info_.vocab_size));
    }
  }
  return absl::OkStatus();
}

absl::Status TokenFile::Read(int64_t begin, std::span<int32_t> out) const {
  CHECK(begin >= 0 && begin + static_cast<int64_t>(out.size()) <= num_tokens_)
      << path_ << ": tokens " << begin << " + " << out.size() << " of " << num_tokens_;
  auto stretch = std::upper_bound(stretches_.begin(), stretches_.end(), begin,
                                  [](int64_t at, const Stretch& s) { return at < s.first; }) -
                 1;
  while (!out.empty()) {
    const size_t count = std::min(out.size(), static_cast<size_t>(stretch->first + stretch->count - begin));
    const std::byte* data = stretch->data + (begin - stretch->first) * token_bytes_;
    const uint32_t largest = token_bytes_ == 2 ? Convert<uint16_t>(data, out.first(count))
                                               : Convert<uint32_t>(data, out.first(count));
    if (largest >= info_.vocab_size) {
      return Damaged(path_, "/tokens",
                     Concat("holds token ", largest, ", but attribute vocab_size is ", info_.vocab_size));
    }
    out = out.subspan(count);
    begin += static_cast<int64_t>(count);
    ++stretch;
  }
  return absl::OkStatus();
}

}  // namespace moebius
