#include "launch/train/run_marks.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <span>

#include "absl/strings/str_split.h"
#include "core/base/status.h"
#include "core/base/strings.h"
#include "core/io/atomic_file.h"
#include "core/io/file.h"
#include "core/io/hash.h"
#include "data/corpora/text_tree.h"

namespace moebius {
namespace {

// What tells two sources apart: `brief`, and where it is known `content`, which says more. Runs of earlier
// builds noted `brief` alone.
struct Identity {
  std::string brief, content;
};

// Of a file some 64 places, its beginning and its end among them.
absl::Status AddPlaces(const std::string& path, Sha256* hash) {
  constexpr int64_t kPlaces = 64, kBytes = 4096;
  ASSIGN_OR_RETURN(const RandomAccessFile file, RandomAccessFile::Open(path));
  std::array<std::byte, kBytes> block;
  const int64_t last = std::max<int64_t>(0, file.size() - kBytes);
  for (int64_t place = 0; place < kPlaces; ++place) {
    const int64_t begin = place < kPlaces - 1 ? last / (kPlaces - 1) * place : last;
    const std::span<std::byte> part(block.data(), std::min(kBytes, file.size() - begin));
    RETURN_IF_ERROR(file.Read(begin, part));
    hash->Update(part);
  }
  return absl::OkStatus();
}

absl::StatusOr<Identity> IdentityOf(const std::string& model) {
  const std::string manifest = JoinPath(model, "manifest.json");
  if (FileExists(manifest)) {
    ASSIGN_OR_RETURN(const std::string text, ReadFile(manifest));
    return Identity{.brief = Sha256Hex(text), .content = ""};
  }
  ASSIGN_OR_RETURN(std::string all, ReadFile(JoinPath(model, "config.json")));
  ASSIGN_OR_RETURN(const std::vector<std::string> names, ListDir(model));
  Sha256 places;
  for (const std::string& name : names) {
    if (!name.ends_with(".safetensors")) continue;
    ASSIGN_OR_RETURN(const int64_t bytes, FileSize(JoinPath(model, name)));
    all += Concat("\n", name, " ", bytes);
    RETURN_IF_ERROR(AddPlaces(JoinPath(model, name), &places));
  }
  return Identity{.brief = Sha256Hex(all), .content = places.FinishHex()};
}

// All tokens of a file that is read whole when it is opened anyway; of a larger one what its manifest says,
// false where that says nothing.
absl::StatusOr<bool> AddContent(const TokenFile& file, Sha256* hash) {
  if (file.num_tokens() > TokenFile::kMaxCheckedBytes / 4) {
    hash->Update(std::as_bytes(std::span(file.listed_sha256())));
    return !file.listed_sha256().empty();
  }
  std::vector<int32_t> tokens(std::min<int64_t>(file.num_tokens(), 1 << 18));
  for (int64_t begin = 0; begin < file.num_tokens(); begin += std::ssize(tokens)) {
    const std::span<int32_t> part(tokens.data(), std::min(std::ssize(tokens), file.num_tokens() - begin));
    RETURN_IF_ERROR(file.Read(begin, part));
    hash->Update(std::as_bytes(part));
  }
  return true;
}

absl::StatusOr<Identity> IdentityOf(const Loader& texts) {
  constexpr int64_t kPlaces = 64, kLength = 64;
  std::string all;
  Sha256 content;
  bool known = true;
  for (int64_t k = 0; k < texts.num_parts(); ++k) {
    const TokenFile& file = texts.file(k);
    all += Concat(file.num_tokens(), " tokens, ", file.document_starts().size(), " documents, ",
                  file.info().bytes, " bytes, ", file.info().tokenizer_sha256, "\n");
    for (int64_t place = 0; place < kPlaces; ++place) {
      std::array<int32_t, kLength> tokens = {};
      const int64_t begin = file.num_tokens() / kPlaces * place;
      const int64_t count = std::min(kLength, file.num_tokens() - begin);
      RETURN_IF_ERROR(file.Read(begin, std::span(tokens.data(), count)));
      all.append(reinterpret_cast<const char*>(tokens.data()), sizeof tokens);
    }
    ASSIGN_OR_RETURN(const bool added, AddContent(file, &content));
    known = known && added;
  }
  return Identity{.brief = Sha256Hex(all), .content = known ? content.FinishHex() : ""};
}

// Notes `id` in the file `name`, a line each; false, and nothing noted, where a run that has a checkpoint
// noted another.
absl::StatusOr<bool> Note(const std::string& run_folder, const char* name, const Identity& id) {
  const std::string path = JoinPath(run_folder, name);
  const absl::StatusOr<std::vector<std::string>> saved = ListDir(JoinPath(run_folder, "checkpoints"));
  const bool has_checkpoint =
      saved.ok() && std::any_of(saved->begin(), saved->end(),
                                [](const std::string& name) { return name.starts_with("step-"); });
  if (!FileExists(path) || !has_checkpoint) {
    const std::string content = id.content.empty() ? "" : id.content + "\n";
    RETURN_IF_ERROR(WriteFileAtomically(path, Concat(id.brief, "\n", content)).status());
    return true;
  }
  ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  const std::vector<std::string> began = absl::StrSplit(text, '\n', absl::SkipEmpty());
  const bool both = began.size() > 1 && !id.content.empty();
  return !began.empty() && began[0] == id.brief && (!both || began[1] == id.content);
}

absl::Status Mark(const std::string& run_folder, const char* name, const Identity& id,
                  const std::string& otherwise) {
  ASSIGN_OR_RETURN(const bool same, Note(run_folder, name, id));
  return same ? absl::OkStatus() : UsageError(otherwise);
}

}  // namespace

absl::Status MarkTeacher(const std::string& run_folder, const std::string& teacher) {
  ASSIGN_OR_RETURN(const Identity id, IdentityOf(teacher));
  return Mark(run_folder, "teacher.sha256", id,
              Concat("distill.teacher ", teacher, " has other weights now than when ", run_folder,
                     " began; a run continues only as it was begun; name the checkpoint itself "
                     "(step-...) that it began with, or start a new run with another --out"));
}

absl::StatusOr<std::string> MarkInit(const std::string& run_folder, const std::string& init_from) {
  ASSIGN_OR_RETURN(const Identity id, IdentityOf(init_from));
  ASSIGN_OR_RETURN(const bool same, Note(run_folder, "init.sha256", id));
  if (same) return std::string();
  return Concat("init.from ", init_from, " has other weights now than when ", run_folder,
                " began, which goes on with its own; to begin with the new ones, remove that folder or name "
                "another with --out");
}

absl::Status MarkFiles(const std::string& run_folder, const std::vector<std::string>& patterns) {
  std::string all, names;
  for (const std::string& pattern : patterns) {
    if (pattern.empty()) continue;
    ASSIGN_OR_RETURN(const std::vector<std::string> paths, ExpandFiles(pattern));
    for (const std::string& path : paths) {
      ASSIGN_OR_RETURN(const FileHash hash, HashFile(path));
      all += hash.sha256 + "\n";
    }
    names += Concat(names.empty() ? "" : ", ", pattern);
  }
  if (all.empty()) return absl::OkStatus();
  return Mark(run_folder, "data.sha256", {.brief = Sha256Hex(all), .content = ""},
              Concat(names, ": has other lines now than when ", run_folder,
                     " began; a run continues only as it was begun; put the file back, or fork the run: "
                     "another --out and --set fork.from=",
                     run_folder));
}

absl::Status MarkTexts(const std::string& run_folder, const Loader& texts) {
  ASSIGN_OR_RETURN(const Identity id, IdentityOf(texts));
  return Mark(run_folder, "data.sha256", id,
              Concat(texts.file(0).path(), texts.num_parts() > 1 ? " or another part of the mixture" : "",
                     " has other tokens now than when ", run_folder,
                     " began; a run continues only as it was begun; put the file back, or start a new run "
                     "with another --out"));
}

}  // namespace moebius
