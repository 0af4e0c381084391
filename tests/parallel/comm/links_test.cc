// Counters and throttle of the link classes.
#include "parallel/comm/links.h"

#include <algorithm>
#include <chrono>
#include <memory>
#include <vector>

#include "core/base/strings.h"
#include "gtest/gtest.h"
#include "tests/parallel/comm/all_to_all.h"
#include "tests/parallel/comm/ranks.h"

namespace moebius {
namespace {

double Seconds(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

// Each rank sends j (j + 1) * unit bytes.
void Exchange(Rank& r, int64_t unit) {
  AllToAllVArgs args;
  int64_t sent = 0;
  for (int peer = 0; peer < r.size(); ++peer) {
    args.send_bytes.push_back((peer + 1) * unit);
    args.send_offsets.push_back(sent);
    args.receive_bytes.push_back((r.rank() + 1) * unit);
    args.receive_offsets.push_back(peer * (r.rank() + 1) * unit);
    sent += args.send_bytes.back();
  }
  std::vector<char> send(sent), receive(r.size() * (r.rank() + 1) * unit);
  args.send = send.data();
  args.receive = receive.data();
  r.all().AllToAllV(*r.stream, {"rows"}, PiecesOf(args));
  r.stream->Synchronize();
}

class LinksTest : public testing::TestWithParam<int> {};

TEST_P(LinksTest, CountWhatWasSentAndReceivedByLinkClass) {
  for (const int ranks_per_node : {0, 1, 2, 3}) {
    const absl::Status status = OnRanks(GetParam(), {.ranks_per_node = ranks_per_node}, [&](Rank& r) {
      Exchange(r, 10);
      TrafficCounters wanted;
      for (int peer = 0; peer < r.size(); ++peer) {
        const bool same = ranks_per_node == 0 || peer / ranks_per_node == r.rank() / ranks_per_node;
        TrafficCounters::Link& link = wanted.links[peer == r.rank() ? kLinkSelf
                                                   : same           ? kLinkWithinNode
                                                                    : kLinkBetweenNodes];
        link.sent_messages += 1;
        link.sent_bytes += (peer + 1) * 10;
        link.received_messages += 1;
        link.received_bytes += (r.rank() + 1) * 10;
        link.ledger_messages += peer != r.rank();
      }
      const TrafficCounters traffic = r.world.traffic();
      for (const LinkClass link : {kLinkSelf, kLinkWithinNode, kLinkBetweenNodes}) {
        EXPECT_EQ(traffic[link].sent_messages, wanted[link].sent_messages) << link;
        EXPECT_EQ(traffic[link].sent_bytes, wanted[link].sent_bytes) << link;
        EXPECT_EQ(traffic[link].received_messages, wanted[link].received_messages) << link;
        EXPECT_EQ(traffic[link].received_bytes, wanted[link].received_bytes) << link;
        EXPECT_EQ(traffic[link].ledger_messages, wanted[link].ledger_messages) << link;
        EXPECT_EQ(traffic[link].ledger_bytes, wanted[link].ledger_messages * 88) << link;
      }
    });
    EXPECT_TRUE(status.ok()) << status;
  }
}

TEST_P(LinksTest, AnAllReduceMovesTwiceItsShare) {
  const int64_t size = GetParam(), bytes = 4 * 840 * size;  // divisible: the formula is exact
  const absl::Status status = OnRanks(GetParam(), {}, [&](Rank& r) {
    std::vector<float> x(840 * size);
    r.all().AllReduce(*r.stream, {"sum"}, {x.data(), DType::kF32, {840 * size}}, ReduceOp::kSum);
    r.stream->Synchronize();
    const bool small = bytes <= 4096;
    EXPECT_EQ(r.world.traffic()[kLinkWithinNode].sent_bytes,
              small ? (size - 1) * bytes : 2 * (size - 1) * bytes / size);
  });
  EXPECT_TRUE(status.ok()) << status;
}

// The seconds that `message_count` messages of `bytes` take from rank 0 to rank 1.
double TimeOfMessages(int size, const WorldOptions& options, int message_count, int64_t bytes) {
  double seconds = 0;
  const absl::Status status = OnRanks(size, options, [&](Rank& r) {
    r.all().Barrier(*r.stream, {"begin"});
    r.stream->Synchronize();
    const auto begin = std::chrono::steady_clock::now();
    std::vector<char> data(bytes);
    const TensorView view(data.data(), DType::kU8, {bytes});
    // Each on a stream of its own: all are on their way at once.
    std::vector<std::unique_ptr<Stream>> streams;
    for (int i = 0; i < message_count; ++i) {
      streams.push_back(r.backend->NewStream(StreamKind::kExchange));
      if (r.rank() == 0) r.all().Send(*streams[i], {"message"}, 1, i, view);
      if (r.rank() == 1) r.all().Recv(*streams[i], {"message"}, 0, i, view);
    }
    for (const auto& stream : streams) stream->Synchronize();
    // Of the receiver, or of the sender where the ranks are processes and this is not the receiver's.
    if (r.rank() == 1 || (Job() && r.rank() == 0)) seconds = Seconds(begin);
    if (Job() && r.rank() > 1) seconds = -1;
  });
  EXPECT_TRUE(status.ok()) << status;
  return seconds;
}

TEST_P(LinksTest, AMessageTakesLatencyPlusBytesOverBandwidth) {
  WorldOptions options;
  options.links[kLinkWithinNode] = {.bytes_per_s = 10e6, .latency_s = 5e-3};
  const double seconds = TimeOfMessages(GetParam(), options, 1, 300000);
  if (seconds < 0) return;  // this process neither sent nor received
  // The sender is done when the link is free, the receiver a latency later. 88 bytes more are the ledger's.
  EXPECT_GE(seconds, 0.030 + (Job() && Job()->rank() == 0 ? 0 : 0.005));
  EXPECT_LE(seconds, 3);
}

TEST_P(LinksTest, MessagesOnOneWayGoOneAfterAnother) {
  WorldOptions options;
  options.links[kLinkWithinNode] = {.bytes_per_s = 10e6, .latency_s = 0};
  const double seconds = TimeOfMessages(GetParam(), options, 5, 100000);
  if (seconds < 0) return;
  EXPECT_GE(seconds, 0.050);
  EXPECT_LE(seconds, 5);
}

TEST_P(LinksTest, OnlyTheClassThatIsSlowIsSlow) {
  WorldOptions options;
  options.links[kLinkBetweenNodes] = {.bytes_per_s = 1e6, .latency_s = 0};
  EXPECT_LT(TimeOfMessages(GetParam(), options, 1, 1000000), 0.9) << "within the node";
  options.ranks_per_node = 1;
  const double seconds = TimeOfMessages(GetParam(), options, 1, 100000);
  if (seconds < 0) return;
  EXPECT_GE(seconds, 0.1) << "between nodes";
}

TEST_P(LinksTest, AnExchangeTakesTheTimeOfAllThatLeavesARankOnItsLinks) {
  WorldOptions options;
  options.links[kLinkWithinNode] = {.bytes_per_s = 10e6, .latency_s = 1e-3};
  const absl::Status status = OnRanks(GetParam(), options, [](Rank& r) {
    r.all().Barrier(*r.stream, {"begin"});
    r.stream->Synchronize();
    const auto begin = std::chrono::steady_clock::now();
    Exchange(r, 10000);
    int64_t sent = 0;
    for (int peer = 0; peer < r.size(); ++peer) sent += peer == r.rank() ? 0 : (peer + 1) * 10000;
    const int64_t received = (r.size() - 1) * (r.rank() + 1) * 10000;
    EXPECT_GE(Seconds(begin), static_cast<double>(std::max(sent, received)) / 10e6);
    EXPECT_LE(Seconds(begin), 10.0);
  });
  EXPECT_TRUE(status.ok()) << status;
}

INSTANTIATE_TEST_SUITE_P(Ranks, LinksTest, testing::ValuesIn(SeveralRanks()),
                         [](const auto& info) { return Concat(info.param, "_ranks"); });

}  // namespace
}  // namespace moebius
