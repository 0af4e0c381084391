#include "core/base/status.h"

#include <cerrno>
#include <cstring>

#include "core/base/strings.h"

namespace moebius {
namespace {

using absl::StatusCode;

absl::string_view View(std::string_view text) { return {text.data(), text.size()}; }

}  // namespace

absl::Status UsageError(std::string_view m) { return absl::Status(StatusCode::kInvalidArgument, View(m)); }
absl::Status DamagedError(std::string_view m) { return absl::Status(StatusCode::kDataLoss, View(m)); }
absl::Status MissingError(std::string_view m) { return absl::Status(StatusCode::kNotFound, View(m)); }
absl::Status UnavailableError(std::string_view m) { return absl::Status(StatusCode::kUnavailable, View(m)); }
absl::Status ComparisonError(std::string_view m) {
  return absl::Status(StatusCode::kFailedPrecondition, View(m));
}
absl::Status CannotWriteError(std::string_view m) {
  return absl::Status(StatusCode::kPermissionDenied, View(m));
}
absl::Status StoppedError(std::string_view m) { return absl::Status(StatusCode::kCancelled, View(m)); }
absl::Status BadNumbersError(std::string_view m) { return absl::Status(StatusCode::kOutOfRange, View(m)); }
absl::Status LostPeerError(std::string_view m) {
  return absl::Status(StatusCode::kDeadlineExceeded, View(m));
}

int ExitCode(const absl::Status& status) {
  switch (status.code()) {
    case StatusCode::kOk:
      return 0;
    case StatusCode::kInvalidArgument:
      return kExitUsage;
    case StatusCode::kDataLoss:
      return kExitDamaged;
    case StatusCode::kNotFound:
      return kExitMissing;
    case StatusCode::kUnavailable:
      return kExitUnavailable;
    case StatusCode::kFailedPrecondition:
      return kExitComparison;
    case StatusCode::kPermissionDenied:
      return kExitCannotWrite;
    case StatusCode::kCancelled:
      return kExitStopped;
    case StatusCode::kOutOfRange:
      return kExitBadNumbers;
    case StatusCode::kDeadlineExceeded:
      return kExitHang;
    default:
      return kExitInternal;
  }
}

absl::Status Annotate(const absl::Status& status, std::string_view context) {
  if (status.ok()) return status;
  return absl::Status(status.code(), Concat(context, ": ", status.message()));
}

absl::Status ErrnoError(int error_number, std::string_view what, bool writing) {
  const std::string message = Concat(what, ": ", std::strerror(error_number));
  if (writing) return CannotWriteError(message);
  switch (error_number) {
    case ENOENT:
    case ENOTDIR:
      return MissingError(message);
    case EACCES:
    case EPERM:
      return MissingError(message + "; this user may not read it; ask for read permission");
    case EROFS:
    case ENOSPC:
    case EDQUOT:
      return CannotWriteError(message);
    default:
      return DamagedError(message);
  }
}

}  // namespace moebius
