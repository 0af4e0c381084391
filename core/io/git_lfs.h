// What git leaves in the place of a large file that it has not fetched: a few lines that name it.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "core/base/status.h"
#include "core/base/strings.h"

namespace moebius {

// `begin`: the first bytes of a file, 24 at least where it has them.
inline bool IsGitLfsPointer(std::string_view begin) { return begin.starts_with("version https://git-lfs"); }

inline absl::Status GitLfsPointerError(const std::string& path) {
  return DamagedError(
      Concat(path, ": is a Git LFS pointer, not the file itself; run git lfs pull in its folder"));
}

}  // namespace moebius
