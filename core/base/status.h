// Errors from the outside world: absl::Status with "what; why; what to do", and the exit code that each
// canonical code stands for at the command line (contract: "Exit codes").
#pragma once

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace moebius {

inline constexpr int kExitUsage = 64;        // recipe or command line
inline constexpr int kExitDamaged = 65;      // data or checkpoint damaged
inline constexpr int kExitMissing = 66;      // input missing
inline constexpr int kExitUnavailable = 69;  // isolation or device missing
inline constexpr int kExitInternal = 70;     // a bug
inline constexpr int kExitComparison = 71;   // verify found a difference
inline constexpr int kExitCannotWrite = 73;
inline constexpr int kExitStopped = 75;     // stopped on request after saving: run the same command again
inline constexpr int kExitBadNumbers = 76;  // NaN, divergence
inline constexpr int kExitHang = 79;        // hang or lost peer

// The constructors name the exit code; `message` reads "what; why; what to do".
absl::Status UsageError(std::string_view message);        // 64
absl::Status DamagedError(std::string_view message);      // 65
absl::Status MissingError(std::string_view message);      // 66
absl::Status UnavailableError(std::string_view message);  // 69
absl::Status ComparisonError(std::string_view message);   // 71
absl::Status CannotWriteError(std::string_view message);  // 73
absl::Status StoppedError(std::string_view message);      // 75
absl::Status BadNumbersError(std::string_view message);   // 76
absl::Status LostPeerError(std::string_view message);     // 79

// 0 for OK, else the exit code of the contract; an unknown code is kExitInternal.
int ExitCode(const absl::Status& status);

// The same error with `context` and ": " before its message; OK stays OK.
absl::Status Annotate(const absl::Status& status, std::string_view context);

// "open /a/b: No such file or directory" as MissingError (ENOENT, ENOTDIR, EACCES, EPERM) or CannotWriteError
// (EROFS, ENOSPC, EDQUOT, and every value when `writing`), else DamagedError.
absl::Status ErrnoError(int error_number, std::string_view what, bool writing = false);

}  // namespace moebius

#define RETURN_IF_ERROR(expr)                                           \
  do {                                                                  \
    if (::absl::Status status_ = (expr); !status_.ok()) return status_; \
  } while (false)

#define MOEBIUS_CONCAT_(a, b) a##b
#define MOEBIUS_CONCAT(a, b) MOEBIUS_CONCAT_(a, b)
// ASSIGN_OR_RETURN(auto x, F()): x = *F(), or return F()'s status.
#define ASSIGN_OR_RETURN(lhs, expr) MOEBIUS_ASSIGN_OR_RETURN_(MOEBIUS_CONCAT(status_or_, __LINE__), lhs, expr)
#define MOEBIUS_ASSIGN_OR_RETURN_(tmp, lhs, expr) \
  auto tmp = (expr);                              \
  if (!tmp.ok()) return tmp.status();             \
  lhs = std::move(tmp).value()
