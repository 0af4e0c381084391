// The transport between processes where there is no MPI: TCP, every rank connected with every other. For what
// goes ahead of NCCL's messages, and for host memory at the speed of sockets.
//
// Whoever starts the processes sets MOEBIUS_WORLD_SIZE, MOEBIUS_RANK (0 .. size - 1) and MOEBIUS_MASTER, the
// "host:port" of rank 0, which listens there.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "parallel/comm/process_job.h"
#include "parallel/comm/tcp_transport.h"

namespace moebius {

class TcpProcess final : public ProcessJob {
 public:
  static bool Launched();
  // Connects all; waits a minute for the others.
  static absl::StatusOr<std::unique_ptr<TcpProcess>> Start();
  ~TcpProcess() override;

  int rank() const override { return rank_; }
  int size() const override { return static_cast<int>(links_.size()); }
  std::vector<int> NodeOfRank() override { return node_of_rank_; }
  std::unique_ptr<Transport> NewTransport() override;
  void Finalize() override {}
  [[noreturn]] void Exit(int code) override;

 private:
  TcpProcess() = default;
  absl::Status Connect(const std::string& master);

  int rank_ = 0;
  std::vector<TcpLink> links_;  // by rank
  std::vector<int> node_of_rank_;
};

}  // namespace moebius
