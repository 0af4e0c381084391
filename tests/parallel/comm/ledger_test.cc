// Ranks that disagree about a call get an error that names both calls, and nobody hangs.
#include "parallel/comm/ledger.h"

#include <chrono>
#include <string>
#include <thread>

#include "core/base/strings.h"
#include "gtest/gtest.h"
#include "tests/parallel/comm/all_to_all.h"
#include "tests/parallel/comm/ranks.h"

namespace moebius {
namespace {

TEST(LedgerTest, DescribesACallWithItsPurpose) {
  Ledger ledger;
  EXPECT_EQ(Describe(ledger.Collective(Call::kAllReduceSum, {"gradient bucket", 3, 4}, DType::kF32, 100)),
            "AllReduce(sum) of 100 F32 for 'gradient bucket' (layer 3, index 4)");
  EXPECT_EQ(Describe(ledger.Collective(Call::kAllToAllV, {"rows", -1, 4}, DType::kU8, -1)),
            "AllToAllV of U8 for 'rows' (index 4)");
  EXPECT_EQ(Describe(ledger.Collective(Call::kBarrier, {"step", 5}, DType::kU8, 0)),
            "Barrier for 'step' (layer 5)");
  EXPECT_EQ(Describe(Ledger::Point(Call::kSend, {"activations"}, DType::kBF16, 8, 9)),
            "Send of 8 BF16 with tag 9 for 'activations'");
}

TEST(LedgerTest, AnythingThatDiffersInACallDiffersInItsHashAndInAllLaterOnes) {
  const auto entry = [](Call call, Purpose purpose, DType dtype, int64_t count, int where,
                        const std::vector<int64_t>& counts) {
    return Ledger().Collective(call, purpose, dtype, count, where, counts);
  };
  const LedgerEntry base = entry(Call::kBroadcast, {"x", 1, 2}, DType::kF32, 6, 0, {1, 5});
  EXPECT_TRUE(Agrees(base, 0, entry(Call::kBroadcast, {"x", 1, 2}, DType::kF32, 6, 0, {1, 5})));
  for (const LedgerEntry& other : {
           entry(Call::kAllGatherV, {"x", 1, 2}, DType::kF32, 6, 0, {1, 5}),
           entry(Call::kBroadcast, {"y", 1, 2}, DType::kF32, 6, 0, {1, 5}),
           entry(Call::kBroadcast, {"x", 2, 2}, DType::kF32, 6, 0, {1, 5}),
           entry(Call::kBroadcast, {"x", 1, 1}, DType::kF32, 6, 0, {1, 5}),
           entry(Call::kBroadcast, {"x", 1, 2}, DType::kI32, 6, 0, {1, 5}),
           entry(Call::kBroadcast, {"x", 1, 2}, DType::kF32, 7, 0, {1, 5}),
           entry(Call::kBroadcast, {"x", 1, 2}, DType::kF32, 6, 1, {1, 5}),
           entry(Call::kBroadcast, {"x", 1, 2}, DType::kF32, 6, 0, {5, 1}),
       }) {
    EXPECT_FALSE(Agrees(base, 0, other)) << Describe(other);
  }
  Ledger one, two;
  one.Collective(Call::kBarrier, {"a"}, DType::kU8, 0);
  two.Collective(Call::kBarrier, {"b"}, DType::kU8, 0);
  EXPECT_FALSE(Agrees(one.Collective(Call::kBarrier, {"c"}, DType::kU8, 0), 0,
                      two.Collective(Call::kBarrier, {"c"}, DType::kU8, 0)));
}

class DisagreementTest : public testing::TestWithParam<int> {
 protected:
  // All ranks do what they agree on, then `body`; the world fails on each of them, soon.
  std::string Failure(const std::function<void(Rank&)>& body, const WorldOptions& options = {}) {
    const auto begin = std::chrono::steady_clock::now();
    const absl::Status status = OnRanks(GetParam(), options, [&](Rank& r) {
      r.all().Barrier(*r.stream, {"begin"});
      body(r);
      r.stream->Synchronize();
    });
    EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(20));  // it ends at all
    EXPECT_EQ(status.code(), absl::StatusCode::kInternal) << status;
    return std::string(status.message());
  }
};

TEST_P(DisagreementTest, OnWhichCallItIsNamesBoth) {
  const std::string failure = Failure([&](Rank& r) {
    std::vector<float> mine(100), all(100 * r.size());
    const TensorView view(all.data(), DType::kF32, {100 * r.size()});
    if (r.rank() == r.size() - 1) {
      r.all().AllGatherV(*r.stream, {"weights", 7}, {mine.data(), DType::kF32, {100}},
                         std::vector<int64_t>(r.size(), 100), view);
    } else {
      r.all().AllReduce(*r.stream, {"gradients", -1, 3}, view, ReduceOp::kSum);
    }
    r.stream->Synchronize();  // what it uses dies here
  });
  EXPECT_TRUE(Has(failure, "ranks disagree on a call of group 'world', its number 1: rank "));
  EXPECT_TRUE(Has(failure, Concat("AllGatherV of ", 100 * GetParam(), " F32 for 'weights' (layer 7)")));
  EXPECT_TRUE(Has(failure, Concat("AllReduce(sum) of ", 100 * GetParam(), " F32 for 'gradients' (index 3)")));
  EXPECT_TRUE(Has(failure, Concat("rank ", GetParam() - 1, " calls AllGatherV")));
}

// An all-reduce of `count` on all ranks but the last, of `last_count` there.
template <typename T>
std::function<void(Rank&)> UnequalSums(int64_t count, int64_t last_count, DType last_dtype) {
  return [=](Rank& r) {
    const bool last = r.rank() == r.size() - 1;
    std::vector<double> x(10000);
    r.all().AllReduce(*r.stream, {"gradients"},
                      {x.data(), last ? last_dtype : DTypeOf<T>::value, {last ? last_count : count}},
                      ReduceOp::kSum);
    r.stream->Synchronize();
  };
}

TEST_P(DisagreementTest, OnTheSizeNamesBoth) {
  for (const auto& [count, last_count] :
       {std::pair{10, 11}, {10000, 9999}, {9999, 10000}, {10000, 3}, {3, 0}}) {
    const std::string failure = Failure(UnequalSums<float>(count, last_count, DType::kF32));
    EXPECT_TRUE(Has(failure, Concat("AllReduce(sum) of ", count, " F32")));
    EXPECT_TRUE(Has(failure, Concat("AllReduce(sum) of ", last_count, " F32")));
  }
}

TEST_P(DisagreementTest, OnTheDTypeNamesBothThoughTheBytesAreThoseExpected) {
  for (const int64_t count : {10, 10000}) {
    const std::string failure = Failure(UnequalSums<double>(count, count, DType::kI64));
    EXPECT_TRUE(Has(failure, Concat("of ", count, " F64")));
    EXPECT_TRUE(Has(failure, Concat("of ", count, " I64")));
  }
}

TEST_P(DisagreementTest, OnThePurposeNamesBoth) {
  const std::string failure = Failure([](Rank& r) {
    r.all().Barrier(*r.stream, {"step", -1, r.rank() == 0 ? 6 : 5});
  });
  EXPECT_TRUE(Has(failure, "Barrier for 'step' (index 5)"));
  EXPECT_TRUE(Has(failure, "Barrier for 'step' (index 6)"));
}

TEST_P(DisagreementTest, OnTheCountsOfEachRankIsFound) {
  const std::string failure = Failure([](Rank& r) {
    std::vector<int64_t> counts(r.size(), 4);
    if (r.rank() == 0) std::swap(counts[0] += 2, counts[1] -= 2);  // the sum stays
    std::vector<float> all(4 * r.size());
    r.all().AllGatherV(*r.stream, {"weights"}, {all.data(), DType::kF32, {counts[r.rank()]}}, counts,
                       {all.data(), DType::kF32, {4 * r.size()}});
    r.stream->Synchronize();
  });
  EXPECT_TRUE(Has(failure, "bytes where rank") || Has(failure, "differ in the counts of each rank"))
      << failure;
}

TEST_P(DisagreementTest, OnWhatOneSendsTheOtherIsFound) {
  const std::string failure = Failure([](Rank& r) {
    std::vector<char> send(100 * r.size()), receive(100 * r.size());
    AllToAllVArgs args{.send = send.data(),
                       .send_bytes = {},
                       .send_offsets = {},
                       .receive = receive.data(),
                       .receive_bytes = {},
                       .receive_offsets = {}};
    for (int peer = 0; peer < r.size(); ++peer) {
      args.send_bytes.push_back(r.rank() == 1 && peer == 0 ? 96 : 100);
      args.receive_bytes.push_back(100);
      args.send_offsets.push_back(100 * peer);
      args.receive_offsets.push_back(100 * peer);
    }
    r.all().AllToAllV(*r.stream, {"dispatch rows", 2, 0}, PiecesOf(args));
    r.stream->Synchronize();
  });
  EXPECT_TRUE(Has(failure, "rank 1 sends 96 bytes where rank 0 expects 100"));
  EXPECT_TRUE(Has(failure, "AllToAllV of U8 for 'dispatch rows' (layer 2, index 0)"));
}

TEST_P(DisagreementTest, AnExtraCallOfOneRankIsFoundAtTheNextCallOfTheOthers) {
  const std::string failure = Failure([](Rank& r) {
    if (r.rank() == 0) r.all().Barrier(*r.stream, {"extra"});
    r.all().Barrier(*r.stream, {"next"});
  });
  EXPECT_TRUE(Has(failure, "Barrier for 'extra'"));
  EXPECT_TRUE(Has(failure, "Barrier for 'next'"));
}

TEST_P(DisagreementTest, AnExtraLastCallOfOneRankIsFoundWhenTheGroupCloses) {
  const std::string failure = Failure([](Rank& r) {
    std::vector<double> x = {1};
    if (r.rank() == 0) {
      r.all().AllReduce(*r.stream, {"extra"}, {x.data(), DType::kF64, {1}}, ReduceOp::kMax);
      r.stream->Synchronize();
    }
  });
  EXPECT_TRUE(Has(failure, "AllReduce(max) of 1 F64 for 'extra'"));
  EXPECT_TRUE(Has(failure, "Close for 'close'"));
}

TEST_P(DisagreementTest, OfSendAndRecvNamesBoth) {
  for (const auto& [sent, received] : {std::pair{80, 100}, {100, 80}, {5000, 100}}) {
    const std::string failure = Failure([&, sent = sent, received = received](Rank& r) {
      std::vector<float> x(5000);
      if (r.rank() == 0) r.all().Send(*r.stream, {"activations", 4}, 1, 3, {x.data(), DType::kF32, {sent}});
      if (r.rank() == 1)
        r.all().Recv(*r.stream, {"activations", 4}, 0, 3, {x.data(), DType::kF32, {received}});
      r.stream->Synchronize();
    });
    EXPECT_TRUE(Has(
        failure, Concat("rank 1 calls Recv of ", received,
                        " F32 with tag 3 for 'activations' (layer 4), rank 0 calls Send of ", sent, " F32")));
  }
}

TEST_P(DisagreementTest, OnASizeIsAnErrorWithoutTheLedgerToo) {
  const std::string failure = Failure(UnequalSums<float>(10000, 9998, DType::kF32), {.ledger = false});
  EXPECT_TRUE(Has(failure, "has another size on each end"));
}

INSTANTIATE_TEST_SUITE_P(Ranks, DisagreementTest, testing::ValuesIn(SeveralRanks()),
                         [](const auto& info) { return Concat(info.param, "_ranks"); });

}  // namespace
}  // namespace moebius
