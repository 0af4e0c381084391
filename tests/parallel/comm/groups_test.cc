// Groups, and calls that meet on several streams: whatever the order and the timing, the bits are the same.
#include <atomic>
#include <chrono>
#include <thread>

#include "core/base/strings.h"
#include "parallel/comm/communicator.h"
#include "tests/parallel/comm/reference.h"

namespace moebius {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;
class GroupsTest : public CommunicatorTest {};

TEST_P(GroupsTest, SplitMakesIndependentGroupsInTheOrderOfTheirKeys) {
  Run([](Rank& r) {
    // Odd and even ranks, the last rank in neither, the order turned round.
    const bool out = r.size() > 2 && r.rank() == r.size() - 1;
    auto group = r.all().Split(*r.stream, "parity", out ? -1 : r.rank() % 2, -r.rank());
    ASSERT_TRUE(group.ok()) << group.status();
    std::vector<int> members;
    for (int rank = r.size() - (r.size() > 2 ? 2 : 1); rank >= 0; --rank) {
      if (rank % 2 == r.rank() % 2) members.push_back(rank);
    }
    if (out) {
      EXPECT_EQ(*group, nullptr);
    } else {
      Communicator& g = **group;
      EXPECT_EQ(g.name(), Concat("parity[", r.rank() % 2, "]"));
      EXPECT_EQ(g.world_ranks(), members);
      ASSERT_EQ(g.size(), static_cast<int>(members.size()));
      EXPECT_EQ(g.world_ranks()[g.rank()], r.rank());

      std::vector<float> x = Values<float>(g.rank(), 5000);
      g.AllReduce(*r.stream, {"in the group"}, View(x), ReduceOp::kSum);
      std::vector<int64_t> world_rank = {r.rank()};
      g.Broadcast(*r.stream, {"who is first"}, 0, View(world_rank));
      r.stream->Synchronize();
      EXPECT_TRUE(SameBits(x, Reduced<float>(g.size(), 5000, ReduceOp::kSum)));
      EXPECT_EQ(world_rank[0], members[0]);

      // A group of a group, and two of them with one name are two groups all the same.
      auto alone = g.Split(*r.stream, "alone", g.rank(), 0);
      ASSERT_TRUE(alone.ok());
      EXPECT_EQ((*alone)->size(), 1);
      EXPECT_TRUE(g.Close(*r.stream).ok());
    }
    std::vector<int64_t> sum = {1};
    r.all().AllReduce(*r.stream, {"all"}, View(sum), ReduceOp::kSum);
    r.stream->Synchronize();
    EXPECT_EQ(sum[0], r.size());
  });
}

TEST_P(GroupsTest, GroupsMayBeCalledInAnyOrderOnTheirStreams) {
  Run([](Rank& r) {
    auto other = r.all().Split(*r.stream, "other", 0, 0).value();
    const auto second = r.backend->NewStream(StreamKind::kExchange);
    std::vector<float> a = Values<float>(r.rank(), 20000), b = Values<float>(r.rank(), 30000);
    const auto call_a = [&] { r.all().AllReduce(*r.stream, {"a"}, View(a), ReduceOp::kSum); };
    const auto call_b = [&] { other->AllReduce(*second, {"b"}, View(b), ReduceOp::kSum); };
    r.rank() % 2 == 0 ? (call_a(), call_b()) : (call_b(), call_a());
    r.stream->Synchronize();
    second->Synchronize();
    EXPECT_TRUE(SameBits(a, Reduced<float>(r.size(), 20000, ReduceOp::kSum)));
    EXPECT_TRUE(SameBits(b, Reduced<float>(r.size(), 30000, ReduceOp::kSum)));
  });
}

TEST_P(GroupsTest, StreamsMayGetToTheCallsOfOneGroupInOppositeOrder) {
  Run([](Rank& r) {
    const auto second = r.backend->NewStream(StreamKind::kExchange);
    std::vector<float> a = Values<float>(r.rank(), 20000), b = Values<float>(r.rank(), 30000);
    std::atomic<bool> b_is_done = false;
    // On odd ranks the first call waits for the second.
    if (r.rank() % 2 == 1) r.stream->EnqueuePolled([&] { return b_is_done.load(); });
    r.all().AllReduce(*r.stream, {"a"}, View(a), ReduceOp::kSum);
    if (r.rank() % 2 == 0) {
      // And on even ranks the second for a moment.
      second->Enqueue([] { std::this_thread::sleep_for(milliseconds(5)); });
    }
    r.all().AllReduce(*second, {"b"}, View(b), ReduceOp::kSum);
    second->Enqueue([&] { b_is_done = true; });
    r.stream->Synchronize();
    second->Synchronize();
    EXPECT_TRUE(SameBits(a, Reduced<float>(r.size(), 20000, ReduceOp::kSum)));
    EXPECT_TRUE(SameBits(b, Reduced<float>(r.size(), 30000, ReduceOp::kSum)));
  });
}

TEST_P(GroupsTest, ManyCallsOnManyStreamsGiveTheSameBitsWhateverTheTiming) {
  Run([](Rank& r) {
    constexpr int kStreams = 4, kCalls = 40;
    std::vector<std::unique_ptr<Stream>> streams;
    std::vector<std::unique_ptr<Communicator>> groups;
    for (int s = 0; s < kStreams; ++s) {
      streams.push_back(r.backend->NewStream(StreamKind::kExchange));
      groups.push_back(r.all().Split(*r.stream, Concat("stream ", s), 0, 0).value());
    }
    const auto count_of = [](int s, int i) { return int64_t{1} + (s * 977 + i * 331) % 6000; };
    std::vector<std::vector<float>> sums;
    std::vector<std::unique_ptr<Exchange>> exchanges;
    for (int i = 0; i < kCalls; ++i) {
      for (int s = 0; s < kStreams; ++s) {
        sums.push_back(Values<float>(r.rank(), count_of(s, i)));
        exchanges.push_back(std::make_unique<Exchange>(r));
      }
    }
    for (int i = 0; i < kCalls; ++i) {
      for (int k = 0; k < kStreams; ++k) {
        const int s = (k + r.rank()) % kStreams;  // each rank begins with another stream
        const uint64_t dice = (r.rank() * 7919 + i * 104729 + s * 31) * 0x9E3779B97F4A7C15u >> 40;
        if (dice % 8 == 0) {
          streams[s]->Enqueue([dice] { std::this_thread::sleep_for(microseconds(dice % 500)); });
        }
        groups[s]->AllReduce(*streams[s], {"sum", s, i}, View(sums[i * kStreams + s]), ReduceOp::kSum);
        groups[s]->AllToAllV(*streams[s], {"rows", s, i}, PiecesOf(exchanges[i * kStreams + s]->args));
      }
    }
    for (const auto& stream : streams) stream->Synchronize();
    for (int i = 0; i < kCalls; ++i) {
      for (int s = 0; s < kStreams; ++s) {
        EXPECT_TRUE(
            SameBits(sums[i * kStreams + s], Reduced<float>(r.size(), count_of(s, i), ReduceOp::kSum)))
            << s << " " << i;
        EXPECT_EQ(exchanges[i * kStreams + s]->receive, exchanges[i * kStreams + s]->wanted) << s << " " << i;
      }
    }
  });
}

TEST_P(GroupsTest, EventsOrderComputeAndExchange) {
  Run([](Rank& r) {
    const auto compute = r.backend->NewStream(StreamKind::kCompute);
    const auto ready = r.backend->NewEvent(), arrived = r.backend->NewEvent();
    std::vector<float> x(10000, 0);
    for (int step = 1; step <= 20; ++step) {
      compute->Enqueue([&] { std::fill(x.begin(), x.end(), static_cast<float>(step)); });
      compute->Record(*ready);
      r.stream->Wait(*ready);
      r.all().AllReduce(*r.stream, {"step", -1, step}, View(x), ReduceOp::kSum);
      r.stream->Record(*arrived);
      compute->Wait(*arrived);
      ASSERT_EQ(x[9999], static_cast<float>(step * r.size()));
    }
  });
}

// The sums of a reduction that depends on its order, of every rank.
std::vector<float> SumsOf(Rank& r) {
  std::vector<float> x = Values<float>(r.rank(), 12345);
  r.all().AllReduce(*r.stream, {"sum"}, View(x), ReduceOp::kSum);
  r.stream->Synchronize();
  return x;
}

TEST_P(GroupsTest, ProcessesGiveTheBitsOfThreads) {
  Run([&](Rank& r) {
    const std::vector<float> here = SumsOf(r);
    std::vector<float> of_threads;
    const absl::Status status = RunRanks(r.size(), {}, [&](World& world) {
      Rank thread(&world);
      const std::vector<float> sums = SumsOf(thread);
      if (world.rank() == r.rank()) of_threads = sums;
      thread.guard.Dismiss();
      return world.Close(*thread.stream);
    });
    EXPECT_TRUE(status.ok()) << status;
    EXPECT_TRUE(SameBits(here, of_threads));
  });
}

TEST_P(GroupsTest, CallsKeepTheirOrderWhereTheirNumbersComeRoundAgain) {
  Run(
      [](Rank& r) {
        std::vector<int64_t> none;
        for (int i = 0; i < 65530; ++i) r.all().Broadcast(*r.stream, {"nothing"}, 0, View(none));
        std::vector<int64_t> x = {0};
        for (int i = 0; i < 20; ++i) {
          r.stream->Enqueue([&] { x[0] += r.rank() + 1; });
          r.all().AllReduce(*r.stream, {"count"}, View(x), ReduceOp::kMax);
        }
        r.stream->Synchronize();
        EXPECT_EQ(x[0], 20 * r.size());
      },
      {.ledger = false});  // so that an empty broadcast is free
}

INSTANTIATE_TEST_SUITE_P(Ranks, GroupsTest, testing::ValuesIn(RankCounts()),
                         [](const auto& info) { return Concat(info.param, "_ranks"); });

}  // namespace
}  // namespace moebius
