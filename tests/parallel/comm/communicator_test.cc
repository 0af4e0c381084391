// Every call of the communicator against a plain reference, on 1 to 8 ranks of either kind.
#include "parallel/comm/communicator.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstring>
#include <numeric>
#include <thread>

#include "core/base/strings.h"
#include "gtest/gtest.h"
#include "tests/parallel/comm/ranks.h"

namespace moebius {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;

// What rank `rank` holds at place i: numbers whose float sum depends on the order of adding.
double ValueAt(int rank, int64_t i) {
  const uint64_t bits = (static_cast<uint64_t>(rank) * 1000003 + i + 1) * 0x9E3779B97F4A7C15u;
  const double unit = static_cast<double>(bits >> 11) * 0x1p-53 - 0.5;
  return unit * std::ldexp(1.0, static_cast<int>(bits % 17) - 8);
}
template <typename T>
T Cast(double value) {
  if constexpr (std::is_same_v<T, BF16>) {
    return BF16::FromFloat(static_cast<float>(value));
  } else if constexpr (std::is_same_v<T, int64_t>) {
    return static_cast<int64_t>(value * 1e6);
  } else {
    return static_cast<T>(value);
  }
}
template <typename T>
std::vector<T> Values(int rank, int64_t count) {
  std::vector<T> values(count);
  for (int64_t i = 0; i < count; ++i) values[i] = Cast<T>(ValueAt(rank, i));
  return values;
}
template <typename T>
TensorView View(std::vector<T>& values) {
  return {values.data(), DTypeOf<T>::value, {static_cast<int64_t>(values.size())}};
}
template <typename T>
bool SameBits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

// The contributions of ranks 0..size-1 added, or their maximum, in that order.
template <typename T>
std::vector<T> Reduced(int size, int64_t count, ReduceOp op) {
  std::vector<T> result(count);
  for (int64_t i = 0; i < count; ++i) {
    if constexpr (std::is_same_v<T, BF16>) {
      float sum = Cast<BF16>(ValueAt(0, i)).ToFloat();
      for (int rank = 1; rank < size; ++rank) {
        const float next = Cast<BF16>(ValueAt(rank, i)).ToFloat();
        sum = op == ReduceOp::kSum ? sum + next : std::max(sum, next);
      }
      result[i] = BF16::FromFloat(sum);
    } else {
      T sum = Cast<T>(ValueAt(0, i));
      for (int rank = 1; rank < size; ++rank) {
        const T next = Cast<T>(ValueAt(rank, i));
        sum = op == ReduceOp::kSum ? sum + next : std::max(sum, next);
      }
      result[i] = sum;
    }
  }
  return result;
}

// Uneven, with zeros: elements of each rank.
std::vector<int64_t> UnevenCounts(int size) {
  std::vector<int64_t> counts;
  for (int rank = 0; rank < size; ++rank) counts.push_back(rank % 3 == 1 ? 0 : 700 * rank + 13);
  return counts;
}
int64_t Sum(const std::vector<int64_t>& counts) {
  return std::accumulate(counts.begin(), counts.end(), int64_t{0});
}

class CommunicatorTest : public testing::TestWithParam<int> {
 protected:
  void Run(const std::function<void(Rank&)>& body, const WorldOptions& options = {}) {
    const absl::Status status = OnRanks(GetParam(), options, body);
    EXPECT_TRUE(status.ok()) << status;
  }
};

TEST_P(CommunicatorTest, MessagesOfAnySizeGoRoundTheRing) {
  Run([](Rank& r) {
    const auto sends = r.backend->NewStream(StreamKind::kExchange);
    const int next = (r.rank() + 1) % r.size(), previous = (r.rank() + r.size() - 1) % r.size();
    for (const int64_t count : {0, 1, 1000, 300000}) {
      std::vector<float> mine = Values<float>(r.rank(), count), theirs(count, -1);
      r.all().Send(*sends, {"ring", 1, 2}, next, 7, View(mine));
      r.all().Recv(*r.stream, {"ring", 1, 2}, previous, 7, View(theirs));
      r.stream->Synchronize();
      sends->Synchronize();
      EXPECT_TRUE(SameBits(theirs, Values<float>(previous, count))) << count;
    }
  });
}

TEST_P(CommunicatorTest, MessagesOfOneTagArriveInOrderAndTagsDoNotMix) {
  Run([](Rank& r) {
    if (r.size() == 1) return;
    constexpr int kMessages = 50;
    std::vector<std::vector<int64_t>> buffers;
    for (int i = 0; i < 2 * kMessages; ++i) buffers.push_back({r.rank() == 0 ? i : -1});
    const auto second = r.backend->NewStream(StreamKind::kExchange);
    for (int i = 0; i < kMessages; ++i) {
      if (r.rank() == 0) {
        r.all().Send(*r.stream, {"odd"}, 1, 1, View(buffers[2 * i + 1]));
        r.all().Send(*second, {"even"}, 1, 2, View(buffers[2 * i]));
      } else if (r.rank() == 1) {
        r.all().Recv(*second, {"even"}, 0, 2, View(buffers[2 * i]));
        r.all().Recv(*r.stream, {"odd"}, 0, 1, View(buffers[2 * i + 1]));
      }
    }
    r.stream->Synchronize();
    second->Synchronize();
    for (int i = 0; i < 2 * kMessages && r.rank() < 2; ++i) EXPECT_EQ(buffers[i][0], i);
  });
}

template <typename T>
void TestAllReduce(Rank& r) {
  for (const int64_t count : {0, 1, 5, 1000, 10007}) {
    for (const ReduceOp op : {ReduceOp::kSum, ReduceOp::kMax}) {
      std::vector<T> x = Values<T>(r.rank(), count);
      r.all().AllReduce(*r.stream, {"sum", -1, static_cast<int>(count)}, View(x), op);
      r.stream->Synchronize();
      EXPECT_TRUE(SameBits(x, Reduced<T>(r.size(), count, op)))
          << DTypeOf<T>::value << " " << count << " op " << static_cast<int>(op);
    }
  }
}

TEST_P(CommunicatorTest, AllReduceAddsInRankOrderBitForBit) {
  Run([](Rank& r) {
    TestAllReduce<float>(r);
    TestAllReduce<double>(r);
    TestAllReduce<int64_t>(r);
    TestAllReduce<BF16>(r);
  });
}

TEST_P(CommunicatorTest, TheMaximumOfANaNIsANaNWhicheverRankHasIt) {
  Run([](Rank& r) {
    std::vector<float> x(r.size(), 1.0f);
    x[r.rank()] = NAN;
    r.all().AllReduce(*r.stream, {"max"}, View(x), ReduceOp::kMax);
    r.stream->Synchronize();
    for (const float value : x) EXPECT_TRUE(std::isnan(value));
  });
}

TEST_P(CommunicatorTest, ReduceScatterGivesEachRankItsSliceOfTheSum) {
  Run([](Rank& r) {
    const std::vector<int64_t> counts = UnevenCounts(r.size());
    const int64_t begin = Sum({counts.begin(), counts.begin() + r.rank()}), mine = counts[r.rank()];
    const std::vector<float> sums = Reduced<float>(r.size(), Sum(counts), ReduceOp::kSum);
    const std::vector<float> wanted(sums.begin() + begin, sums.begin() + begin + mine);

    const std::vector<float> before = Values<float>(r.rank(), Sum(counts));
    std::vector<float> x = before, out(mine, -1);
    r.all().ReduceScatterV(*r.stream, {"gradients"}, View(x), counts, View(out));
    r.stream->Synchronize();
    EXPECT_TRUE(SameBits(out, wanted));
    EXPECT_TRUE(SameBits(x, before)) << "the input changed";

    r.all().ReduceScatterV(*r.stream, {"in place"}, View(x), counts, View(x).Rows(begin, mine));
    r.stream->Synchronize();
    std::vector<float> expected = before;
    std::copy(wanted.begin(), wanted.end(), expected.begin() + begin);
    EXPECT_TRUE(SameBits(x, expected));
  });
}

TEST_P(CommunicatorTest, AllGatherJoinsUnevenSlices) {
  Run([](Rank& r) {
    const std::vector<int64_t> counts = UnevenCounts(r.size());
    std::vector<BF16> wanted;
    for (int rank = 0; rank < r.size(); ++rank) {
      const std::vector<BF16> slice = Values<BF16>(rank, counts[rank]);
      wanted.insert(wanted.end(), slice.begin(), slice.end());
    }
    std::vector<BF16> mine = Values<BF16>(r.rank(), counts[r.rank()]), all(Sum(counts));
    r.all().AllGatherV(*r.stream, {"weights"}, View(mine), counts, View(all));
    r.stream->Synchronize();
    EXPECT_TRUE(SameBits(all, wanted));

    const int64_t begin = Sum({counts.begin(), counts.begin() + r.rank()});
    std::vector<BF16> in_place(Sum(counts));
    std::copy(mine.begin(), mine.end(), in_place.begin() + begin);
    r.all().AllGatherV(*r.stream, {"in place"}, View(in_place).Rows(begin, counts[r.rank()]), counts,
                       View(in_place));
    r.stream->Synchronize();
    EXPECT_TRUE(SameBits(in_place, wanted));
  });
}

// Rank i sends j (5 * i + 3 * j) % 7 * 400 + (0 or 1) bytes: some of them none.
int64_t BytesFromTo(int from, int to) {
  const int64_t blocks = (5 * from + 3 * to) % 7;
  return blocks == 0 ? 0 : blocks * 400 + from % 2;
}
char ByteAt(int from, int to, int64_t i) { return static_cast<char>(from * 31 + to * 7 + i % 101); }

struct Exchange {
  explicit Exchange(const Rank& r) {
    for (int peer = 0; peer < r.size(); ++peer) {
      args.send_offsets.push_back(static_cast<int64_t>(send.size()));
      args.receive_offsets.push_back(static_cast<int64_t>(wanted.size()));
      args.send_bytes.push_back(BytesFromTo(r.rank(), peer));
      args.receive_bytes.push_back(BytesFromTo(peer, r.rank()));
      for (int64_t i = 0; i < args.send_bytes[peer]; ++i) send.push_back(ByteAt(r.rank(), peer, i));
      for (int64_t i = 0; i < args.receive_bytes[peer]; ++i) wanted.push_back(ByteAt(peer, r.rank(), i));
    }
    receive.resize(wanted.size(), 'x');
    args.send = send.data();
    args.receive = receive.data();
  }
  // Every buffer as pieces of `length` bytes, an empty one between.
  static std::vector<MemoryPiece> Cut(char* data, int64_t bytes, int64_t length) {
    std::vector<MemoryPiece> pieces;
    for (int64_t begin = 0; begin < bytes; begin += length) {
      pieces.push_back({data + begin, std::min(length, bytes - begin)});
      pieces.push_back({data + begin, 0});
    }
    return pieces;
  }
  PeerPieces Pieces(int64_t send_length, int64_t receive_length) {
    PeerPieces pieces;
    for (size_t peer = 0; peer < args.send_bytes.size(); ++peer) {
      pieces.send.push_back(Cut(send.data() + args.send_offsets[peer], args.send_bytes[peer], send_length));
      pieces.receive.push_back(
          Cut(receive.data() + args.receive_offsets[peer], args.receive_bytes[peer], receive_length));
    }
    return pieces;
  }

  std::vector<char> send, receive, wanted;
  AllToAllVArgs args;
};

TEST_P(CommunicatorTest, AllToAllExchangesUnevenAndEmptyParts) {
  Run([](Rank& r) {
    Exchange exchange(r);
    r.all().AllToAllV(*r.stream, {"rows"}, exchange.args);
    r.stream->Synchronize();
    EXPECT_EQ(exchange.receive, exchange.wanted);
  });
}

TEST_P(CommunicatorTest, AllToAllTakesPiecesThatAreCutDifferentlyOnTheTwoEnds) {
  Run([](Rank& r) {
    Exchange exchange(r);
    r.all().AllToAllV(*r.stream, {"pieces"}, [&] { return exchange.Pieces(37, 101); });
    r.stream->Synchronize();
    EXPECT_EQ(exchange.receive, exchange.wanted);
  });
}

TEST_P(CommunicatorTest, AllToAllCanUseCountsThatCameOnTheSameStream) {
  Run([](Rank& r) {
    std::vector<int64_t> counts(r.size()), mine = {100 + r.rank()};
    const std::vector<int64_t> ones(r.size(), 1);
    r.all().AllGatherV(*r.stream, {"counts"}, View(mine), ones, View(counts));
    std::vector<char> send(100 + r.rank(), static_cast<char>('a' + r.rank())), receive;
    r.all().AllToAllV(*r.stream, {"rows"}, [&] {
      PeerPieces pieces;
      receive.resize(Sum(counts));
      char* next = receive.data();
      for (const int64_t count : counts) {
        pieces.send.push_back({{send.data(), static_cast<int64_t>(send.size())}});
        pieces.receive.push_back({{next, count}});
        next += count;
      }
      return pieces;
    });
    r.stream->Synchronize();
    std::string wanted;
    for (int rank = 0; rank < r.size(); ++rank)
      wanted += std::string(100 + rank, static_cast<char>('a' + rank));
    EXPECT_EQ(std::string(receive.begin(), receive.end()), wanted);
  });
}

TEST_P(CommunicatorTest, BroadcastGivesEverybodyTheRootsValues) {
  Run([](Rank& r) {
    for (int root = 0; root < r.size(); ++root) {
      for (const int64_t count : {0, 3, 50000}) {
        std::vector<double> x = Values<double>(r.rank(), count);
        r.all().Broadcast(*r.stream, {"weights"}, root, View(x));
        r.stream->Synchronize();
        EXPECT_TRUE(SameBits(x, Values<double>(root, count))) << root << " " << count;
      }
    }
  });
}

// Seconds on the clock that all processes of a host share.
double Now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

TEST_P(CommunicatorTest, NobodyLeavesABarrierBeforeTheLastHasCome) {
  for (const bool ledger : {true, false}) {
    Run(
        [](Rank& r) {
          std::this_thread::sleep_for(milliseconds(10 * r.rank()));
          std::vector<double> last_came = {Now()};
          r.all().Barrier(*r.stream, {"step"});
          r.stream->Synchronize();
          const double left = Now();
          r.all().AllReduce(*r.stream, {"last"}, View(last_came), ReduceOp::kMax);
          r.stream->Synchronize();
          EXPECT_GE(left, last_came[0]);
        },
        {.ledger = ledger});
  }
}

TEST_P(CommunicatorTest, SplitMakesIndependentGroupsInTheOrderOfTheirKeys) {
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

TEST_P(CommunicatorTest, GroupsMayBeCalledInAnyOrderOnTheirStreams) {
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

TEST_P(CommunicatorTest, StreamsMayGetToTheCallsOfOneGroupInOppositeOrder) {
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

TEST_P(CommunicatorTest, ManyCallsOnManyStreamsGiveTheSameBitsWhateverTheTiming) {
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
        groups[s]->AllToAllV(*streams[s], {"rows", s, i}, exchanges[i * kStreams + s]->args);
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

TEST_P(CommunicatorTest, EventsOrderComputeAndExchange) {
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

TEST_P(CommunicatorTest, ProcessesGiveTheBitsOfThreads) {
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

TEST_P(CommunicatorTest, CallsKeepTheirOrderWhereTheirNumbersComeRoundAgain) {
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

INSTANTIATE_TEST_SUITE_P(Ranks, CommunicatorTest, testing::ValuesIn(RankCounts()),
                         [](const auto& info) { return Concat(info.param, "_ranks"); });

}  // namespace
}  // namespace moebius
