#include "launch/train/teacher_mark.h"

#include "core/base/status.h"
#include "core/base/strings.h"
#include "core/io/atomic_file.h"
#include "core/io/file.h"
#include "core/io/hash.h"

namespace moebius {
namespace {

absl::StatusOr<std::string> IdOf(const std::string& teacher) {
  const std::string manifest = JoinPath(teacher, "manifest.json");
  if (FileExists(manifest)) {
    ASSIGN_OR_RETURN(const std::string text, ReadFile(manifest));
    return Sha256Hex(text);
  }
  ASSIGN_OR_RETURN(std::string all, ReadFile(JoinPath(teacher, "config.json")));
  ASSIGN_OR_RETURN(const std::vector<std::string> names, ListDir(teacher));
  for (const std::string& name : names) {
    if (!name.ends_with(".safetensors")) continue;
    ASSIGN_OR_RETURN(const int64_t bytes, FileSize(JoinPath(teacher, name)));
    all += Concat("\n", name, " ", bytes);
  }
  return Sha256Hex(all);
}

}  // namespace

absl::Status MarkTeacher(const std::string& run_folder, const std::string& teacher) {
  const std::string path = JoinPath(run_folder, "teacher.sha256");
  ASSIGN_OR_RETURN(const std::string id, IdOf(teacher));
  if (!FileExists(path) || !FolderExists(JoinPath(run_folder, "checkpoints/latest"))) {
    return WriteFileAtomically(path, id + "\n").status();
  }
  ASSIGN_OR_RETURN(const std::string began, ReadFile(path));
  if (began == id + "\n") return absl::OkStatus();
  return UsageError(Concat("distill.teacher ", teacher, " has other weights now than when ", run_folder,
                           " began; a run continues only as it was begun; name the checkpoint itself "
                           "(step-...) that it began with, or start a new run with another --out"));
}

}  // namespace moebius
