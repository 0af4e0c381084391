// The transport between processes: MPI. It is called under one lock: by the exchange thread while ranks
// communicate, by others only to start, to end and to fail.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "parallel/comm/process_job.h"

namespace moebius {

class MpiProcess final : public ProcessJob {
 public:
  // Whether mpirun or srun started this process as one of several tasks, by its environment alone: a program
  // that runs by itself never starts MPI (50 ms and a dozen threads and files).
  static bool Launched();

  // MPI_Init. Once a process; the same thread finalizes.
  static absl::StatusOr<std::unique_ptr<MpiProcess>> Start();
  ~MpiProcess() override;
  MpiProcess(const MpiProcess&) = delete;
  MpiProcess& operator=(const MpiProcess&) = delete;

  int rank() const override;
  int size() const override;
  std::vector<int> NodeOfRank() override;  // who shares memory, as MPI sees it
  std::unique_ptr<Transport> NewTransport() override { return NewTransport(int64_t{1} << 30); }
  std::unique_ptr<Transport> NewTransport(int64_t max_message_bytes);  // longer ones are sent in parts
  void Finalize() override;                                            // MPI_Finalize
  [[noreturn]] void Exit(int code) override;                           // MPI_Abort

 private:
  MpiProcess();
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace moebius
