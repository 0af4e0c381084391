#include "core/base/check.h"

#include <unistd.h>

#include <cstdlib>

#include "core/base/log.h"
#include "core/base/status.h"

namespace moebius {

CheckFailure::CheckFailure(const char* file, int line, const std::string& what) {
  stream_ << file << ":" << line << ": CHECK failed: " << what << " ";
}

CheckFailure::~CheckFailure() {
  LogLine("fatal: " + stream_.str());
  // _exit: destructors of a process in an unknown state must not run (they could touch checkpoints).
  _exit(kExitInternal);
}

}  // namespace moebius
