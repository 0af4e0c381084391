// What a rank makes of connections that end, on pairs of sockets in one process.
#include "parallel/comm/tcp_transport.h"

#include <sys/socket.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "core/backend/backend.h"
#include "core/base/status.h"
#include "gtest/gtest.h"

namespace moebius {
namespace {

constexpr int kRanks = 3;

class TcpTransportTest : public testing::Test {
 protected:
  TcpTransportTest() : stream_(backend_->NewStream(StreamKind::kExchange)) {
    for (std::vector<TcpLink>& links : links_) links.resize(kRanks);
    for (int a = 0; a < kRanks; ++a) {
      for (int b = a + 1; b < kRanks; ++b) {
        int pair[2];
        EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
        links_[a][b].socket = pair[0];
        links_[b][a].socket = pair[1];
      }
    }
    for (int rank = 0; rank < kRanks; ++rank) ranks_.push_back(NewTcpTransport(rank, links_[rank]));
  }
  ~TcpTransportTest() override {
    for (int rank = 0; rank < kRanks; ++rank) Leave(rank);
  }

  // As its process does that ends.
  void Leave(int rank) {
    for (TcpLink& link : links_[rank]) {
      if (link.socket >= 0) close(link.socket);
      link.socket = -1;
    }
  }
  static Message Of(int peer, std::string& bytes) {
    return {.peer = peer, .tag = {}, .pieces = {{bytes.data(), static_cast<int64_t>(bytes.size())}}};
  }
  // Until it is done; the transport's status then.
  absl::Status Finish(int rank, Transport::Request& request) {
    for (int i = 0; i < 1000; ++i) {
      if (ranks_[rank]->Test(request) == Advance::kDone) return ranks_[rank]->status();
    }
    return absl::InternalError("still open");
  }
  absl::Status Receive(int rank, int from, std::string& bytes) {
    return Finish(rank, *ranks_[rank]->PostReceive(Of(from, bytes), *stream_));
  }
  absl::Status Send(int rank, int to, std::string bytes) {
    return Finish(rank, *ranks_[rank]->PostSend(Of(to, bytes), *stream_));
  }

  std::unique_ptr<Backend> backend_ = MakeCpuBackend({.threads = 1});
  std::unique_ptr<Stream> stream_;
  std::vector<TcpLink> links_[kRanks];
  std::vector<std::unique_ptr<Transport>> ranks_;
};

TEST_F(TcpTransportTest, WhatARankHasSaidCountsAfterItHasLeft) {
  EXPECT_TRUE(Send(1, 0, "first").ok());
  EXPECT_TRUE(Send(1, 0, "last.").ok());
  EXPECT_TRUE(Send(2, 0, "other").ok());
  Leave(1);
  std::string bytes(5, ' ');
  EXPECT_TRUE(Receive(0, 2, bytes).ok()) << "of a rank that is there";
  EXPECT_TRUE(Send(0, 1, "nobody reads it").ok());
  EXPECT_TRUE(Receive(0, 1, bytes).ok());
  EXPECT_EQ(bytes, "first");
  EXPECT_TRUE(Receive(0, 1, bytes).ok());
  EXPECT_EQ(bytes, "last.");
}

TEST_F(TcpTransportTest, ARankThatIsWaitedForInVainIsLostToAll) {
  Leave(1);
  std::string bytes(5, ' ');
  const absl::Status status = Receive(0, 1, bytes);
  EXPECT_EQ(status, LostPeerError("rank 1 is lost: its connection to rank 0 ended"));
  EXPECT_EQ(Receive(2, 0, bytes), status) << "waits for rank 0, which has failed";
}

}  // namespace
}  // namespace moebius
