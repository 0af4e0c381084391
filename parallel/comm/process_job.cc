#include "parallel/comm/process_job.h"

#include "core/base/status.h"
#include "parallel/comm/mpi_process.h"
#include "parallel/comm/tcp_process.h"

namespace moebius {

bool ProcessJob::Launched() { return TcpProcess::Launched() || MpiProcess::Launched(); }

absl::StatusOr<std::unique_ptr<ProcessJob>> ProcessJob::Start() {
  if (!TcpProcess::Launched()) {
    ASSIGN_OR_RETURN(std::unique_ptr<MpiProcess> process, MpiProcess::Start());
    return process;
  }
  ASSIGN_OR_RETURN(std::unique_ptr<TcpProcess> process, TcpProcess::Start());
  return process;
}

}  // namespace moebius
