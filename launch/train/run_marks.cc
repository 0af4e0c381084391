#include "launch/train/run_marks.h"

#include <algorithm>
#include <array>

#include "core/base/status.h"
#include "core/base/strings.h"
#include "core/io/atomic_file.h"
#include "core/io/file.h"
#include "core/io/hash.h"
#include "data/corpora/text_tree.h"

namespace moebius {
namespace {

absl::StatusOr<std::string> IdOf(const std::string& model) {
  const std::string manifest = JoinPath(model, "manifest.json");
  if (FileExists(manifest)) {
    ASSIGN_OR_RETURN(const std::string text, ReadFile(manifest));
    return Sha256Hex(text);
  }
  ASSIGN_OR_RETURN(std::string all, ReadFile(JoinPath(model, "config.json")));
  ASSIGN_OR_RETURN(const std::vector<std::string> names, ListDir(model));
  for (const std::string& name : names) {
    if (!name.ends_with(".safetensors")) continue;
    ASSIGN_OR_RETURN(const int64_t bytes, FileSize(JoinPath(model, name)));
    all += Concat("\n", name, " ", bytes);
  }
  return Sha256Hex(all);
}

absl::StatusOr<std::string> IdOf(const Loader& texts) {
  constexpr int64_t kPlaces = 64, kLength = 64;
  std::string all;
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
  }
  return Sha256Hex(all);
}

// Notes `id` in the file `name`; false, and nothing noted, where a run that has a checkpoint noted another.
absl::StatusOr<bool> Note(const std::string& run_folder, const char* name, const std::string& id) {
  const std::string path = JoinPath(run_folder, name);
  const absl::StatusOr<std::vector<std::string>> saved = ListDir(JoinPath(run_folder, "checkpoints"));
  const bool has_checkpoint =
      saved.ok() && std::any_of(saved->begin(), saved->end(),
                                [](const std::string& name) { return name.starts_with("step-"); });
  if (!FileExists(path) || !has_checkpoint) {
    RETURN_IF_ERROR(WriteFileAtomically(path, id + "\n").status());
    return true;
  }
  ASSIGN_OR_RETURN(const std::string began, ReadFile(path));
  return began == id + "\n";
}

absl::Status Mark(const std::string& run_folder, const char* name, const std::string& id,
                  const std::string& otherwise) {
  ASSIGN_OR_RETURN(const bool same, Note(run_folder, name, id));
  return same ? absl::OkStatus() : UsageError(otherwise);
}

}  // namespace

absl::Status MarkTeacher(const std::string& run_folder, const std::string& teacher) {
  ASSIGN_OR_RETURN(const std::string id, IdOf(teacher));
  return Mark(run_folder, "teacher.sha256", id,
              Concat("distill.teacher ", teacher, " has other weights now than when ", run_folder,
                     " began; a run continues only as it was begun; name the checkpoint itself "
                     "(step-...) that it began with, or start a new run with another --out"));
}

absl::StatusOr<std::string> MarkInit(const std::string& run_folder, const std::string& init_from) {
  ASSIGN_OR_RETURN(const std::string id, IdOf(init_from));
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
  return Mark(run_folder, "data.sha256", Sha256Hex(all),
              Concat(names, ": has other lines now than when ", run_folder,
                     " began; a run continues only as it was begun; put the file back, or fork the run: "
                     "another --out and --set fork.from=",
                     run_folder));
}

absl::Status MarkTexts(const std::string& run_folder, const Loader& texts) {
  ASSIGN_OR_RETURN(const std::string id, IdOf(texts));
  return Mark(run_folder, "data.sha256", id,
              Concat(texts.file(0).path(), texts.num_parts() > 1 ? " or another part of the mixture" : "",
                     " has other tokens now than when ", run_folder,
                     " began; a run continues only as it was begun; put the file back, or start a new run "
                     "with another --out"));
}

}  // namespace moebius
