// The transport between processes: MPI, with a device's memory staged through the host's. MPI is called under
// one lock: by the exchange thread while ranks communicate, by others only to start, to end and to fail.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "parallel/comm/transport.h"

namespace moebius {

class MpiProcess {
 public:
  // Whether mpirun or srun started this process as one of several tasks, by its environment alone: a program
  // that runs by itself never starts MPI (50 ms and a dozen threads and files).
  static bool Launched();

  // MPI_Init. Once a process; the same thread finalizes.
  static absl::StatusOr<std::unique_ptr<MpiProcess>> Start();
  ~MpiProcess();
  MpiProcess(const MpiProcess&) = delete;
  MpiProcess& operator=(const MpiProcess&) = delete;

  int rank() const;
  int size() const;
  // [size]: ranks with one number share memory, as MPI sees it. Collective.
  std::vector<int> NodeOfRank();
  // Of all ranks; collective. Longer messages are sent in parts.
  std::unique_ptr<Transport> NewTransport(int64_t max_message_bytes = int64_t{1} << 30);
  // MPI_Finalize; collective. Not after a failure that may have left messages half-way: use Exit.
  void Finalize();
  // Ends all processes of the job with this code; from any thread, even one beside a hung one.
  [[noreturn]] void Exit(int code);

 private:
  MpiProcess();
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace moebius
