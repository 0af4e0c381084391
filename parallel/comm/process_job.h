// The processes of a job, one rank each, seen from one of them: started by mpirun or srun (mpi_process.h), or
// by anything else that says who they are (tcp_process.h).
#pragma once

#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "parallel/comm/transport.h"

namespace moebius {

class ProcessJob {
 public:
  // Whether this process was started as one of several, by its environment alone.
  static bool Launched();
  // Joins the others; once a process.
  static absl::StatusOr<std::unique_ptr<ProcessJob>> Start();

  virtual ~ProcessJob() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  // [size]: ranks with one number share a machine. Collective.
  virtual std::vector<int> NodeOfRank() = 0;
  // Of all ranks, for host memory (staged.h); collective.
  virtual std::unique_ptr<Transport> NewTransport() = 0;
  // Collective; by the thread that started. Not after a failure that may have left messages half-way: use
  // Exit.
  virtual void Finalize() = 0;
  // Ends all processes of the job with this code; from any thread, even one beside a hung one.
  [[noreturn]] virtual void Exit(int code) = 0;
};

}  // namespace moebius
