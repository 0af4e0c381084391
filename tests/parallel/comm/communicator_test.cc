// Every call of the communicator against a plain reference, on 1 to 8 ranks of either kind.
#include "parallel/comm/communicator.h"

#include <chrono>
#include <numeric>
#include <thread>

#include "core/base/strings.h"
#include "tests/parallel/comm/reference.h"

namespace moebius {
namespace {

// Uneven, with zeros: elements of each rank.
std::vector<int64_t> UnevenCounts(int size) {
  std::vector<int64_t> counts;
  for (int rank = 0; rank < size; ++rank) counts.push_back(rank % 3 == 1 ? 0 : 700 * rank + 13);
  return counts;
}
int64_t Sum(const std::vector<int64_t>& counts) {
  return std::accumulate(counts.begin(), counts.end(), int64_t{0});
}

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

TEST_P(CommunicatorTest, AllToAllExchangesUnevenAndEmptyParts) {
  Run([](Rank& r) {
    Exchange exchange(r);
    r.all().AllToAllV(*r.stream, {"rows"}, PiecesOf(exchange.args));
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
          std::this_thread::sleep_for(std::chrono::milliseconds(10 * r.rank()));
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

INSTANTIATE_TEST_SUITE_P(Ranks, CommunicatorTest, testing::ValuesIn(RankCounts()),
                         [](const auto& info) { return Concat(info.param, "_ranks"); });

}  // namespace
}  // namespace moebius
