// Worlds: how ranks come and go, and that a failing one leaves nobody hanging.
#include "parallel/comm/world.h"

#include <time.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <set>
#include <stdexcept>
#include <thread>

#include "core/base/log.h"
#include "core/base/status.h"
#include "core/base/strings.h"
#include "gtest/gtest.h"
#include "parallel/comm/agree.h"
#include "parallel/comm/mpi_process.h"
#include "tests/parallel/comm/ranks.h"

namespace moebius {
namespace {

using std::chrono::milliseconds;

TEST(RunRanksTest, GivesEachThreadItsRank) {
  std::atomic<int> seen = 0;
  EXPECT_TRUE(RunRanks(5, {}, [&](World& world) {
                EXPECT_EQ(world.size(), 5);
                EXPECT_EQ(LogRank(), world.rank());
                EXPECT_EQ(world.all().rank(), world.rank());
                seen |= 1 << world.rank();
                return absl::OkStatus();
              }).ok());
  EXPECT_EQ(seen, 31);
}

TEST(RunRanksTest, NumbersNodesAsDeclared) {
  EXPECT_TRUE(RunRanks(5, {.ranks_per_node = 2}, [&](World& world) {
                EXPECT_EQ(world.node_of_rank(), (std::vector<int>{0, 0, 1, 1, 2}));
                EXPECT_EQ(world.node(), world.rank() / 2);
                EXPECT_EQ(world.machine_rank(), world.rank()) << "all are on this machine";
                return absl::OkStatus();
              }).ok());
  EXPECT_TRUE(RunRanks(3, {}, [&](World& world) {
                EXPECT_EQ(world.node(), 0);
                EXPECT_EQ(world.machine_rank(), world.rank());
                return absl::OkStatus();
              }).ok());
}

TEST(RunRanksTest, ReturnsTheErrorOfTheRankThatFailsAndTheOthersDoNotHang) {
  const absl::Status status = RunRanks(4, {}, [&](World& world) -> absl::Status {
    Rank r(&world);
    if (world.rank() == 2) {
      // Others wait for this rank, and this rank for a message that will not come.
      std::vector<float> x(10000);
      r.all().Recv(*r.stream, {"never sent"}, 0, 0, {x.data(), DType::kF32, {10000}});
      return absl::DataLossError("damaged shard");
    }
    r.all().Barrier(*r.stream, {"step"});
    r.stream->Synchronize();
    EXPECT_FALSE(world.status().ok());
    return world.status();
  });
  EXPECT_EQ(status, absl::DataLossError("damaged shard"));
}

TEST(RunRanksTest, ThrowsTheExceptionOfTheRankThatFailsAgain) {
  EXPECT_THROW((void)RunRanks(3, {},
                              [&](World& world) -> absl::Status {
                                Rank r(&world);
                                if (world.rank() == 1) throw std::runtime_error("no");
                                r.all().Barrier(*r.stream, {"step"});
                                r.stream->Synchronize();
                                return world.status();
                              }),
               std::runtime_error);
}

TEST(MpiProcessTest, IsLaunchedWhenALauncherSaysSo) {
  if (Job()) {
    EXPECT_TRUE(MpiProcess::Launched());
    return;
  }
  EXPECT_FALSE(MpiProcess::Launched());
  for (const char* name : {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMIX_RANK", "SLURM_STEP_NUM_TASKS"}) {
    setenv(name, "2", 1);
    EXPECT_TRUE(MpiProcess::Launched()) << name;
    unsetenv(name);
  }
  setenv("SLURM_NTASKS", "2", 1);  // a batch script has it too, and runs alone
  EXPECT_FALSE(MpiProcess::Launched());
  unsetenv("SLURM_NTASKS");
}

class WorldTest : public testing::TestWithParam<int> {};

TEST_P(WorldTest, HasOneNodeOnOneHost) {
  EXPECT_TRUE(OnRanks(GetParam(), {}, [](Rank& r) {
                EXPECT_EQ(r.world.node_of_rank(), std::vector<int>(r.size(), 0));
                EXPECT_EQ(r.world.machine_rank(), r.rank());
              }).ok());
}

TEST_P(WorldTest, AnAbortOfOneRankEndsAllCallsOfAllWithinASecond) {
  if (GetParam() == 1) return;
  const absl::Status status = OnRanks(GetParam(), {}, [](Rank& r) {
    const auto second = r.backend->NewStream(StreamKind::kExchange);
    std::vector<float> x(100000), y(100000), z(100000);
    r.all().Barrier(*r.stream, {"begin"});
    r.stream->Synchronize();
    const auto begin = std::chrono::steady_clock::now();
    if (r.rank() == r.size() - 1) {
      std::this_thread::sleep_for(milliseconds(50));
      r.world.Abort(absl::UnavailableError("disk full on the last rank"));
    } else {
      // Calls that cannot end: of the same size for all, a large send, and more behind them.
      r.all().AllReduce(*r.stream, {"sum"}, {x.data(), DType::kF32, {100000}}, ReduceOp::kSum);
      r.all().Send(*second, {"large"}, r.size() - 1, 0, {y.data(), DType::kF32, {100000}});
      r.all().Recv(*second, {"large"}, r.size() - 1, 1, {z.data(), DType::kF32, {100000}});
      r.all().Barrier(*r.stream, {"behind"});
    }
    r.stream->Synchronize();
    second->Synchronize();
    if (r.rank() == r.size() - 1) {
      // A call on a failed world ends at once.
      r.all().AllReduce(*r.stream, {"later"}, {x.data(), DType::kF32, {100000}}, ReduceOp::kSum);
      r.stream->Synchronize();
    }
    EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(20));  // it ends at all
    EXPECT_EQ(r.world.status().code(), absl::StatusCode::kUnavailable);
    EXPECT_TRUE(Has(std::string(r.world.status().message()), "disk full on the last rank"));
    EXPECT_FALSE(r.all().Split(*r.stream, "later", 0, 0).ok());
    if (Job()) std::this_thread::sleep_for(milliseconds(300));  // what MPI was not done with stays alive
  });
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
}

TEST_P(WorldTest, OpenOperationsNameWhatIsWaitedForAndForWhom) {
  if (GetParam() == 1) return;
  const absl::Status status = OnRanks(GetParam(), {}, [](Rank& r) {
    const auto second = r.backend->NewStream(StreamKind::kExchange);
    auto group = r.all().Split(*r.stream, "expert", 0, 0).value();
    EXPECT_EQ(r.world.OpenOperations(), "");
    EXPECT_EQ(r.world.OldestOpenSeconds(), 0);
    std::vector<float> x(10), y(10);
    const TensorView view(x.data(), DType::kF32, {10});
    if (r.rank() == 0) {
      group->AllReduce(*r.stream, {"gradients", 3, 4}, view, ReduceOp::kSum);
      std::this_thread::sleep_for(milliseconds(100));
      r.all().Recv(*second, {"activations"}, 1, 5, {y.data(), DType::kF32, {10}});
      std::this_thread::sleep_for(milliseconds(100));
      const std::string text = r.world.OpenOperations();
      EXPECT_TRUE(Has(text,
                      "AllReduce(sum) of 10 F32 for 'gradients' (layer 3, index 4) in "
                      "group 'expert[0]', open for 0."));
      std::vector<std::string> others;
      for (int rank = 1; rank < r.size(); ++rank) others.push_back(std::to_string(rank));
      EXPECT_TRUE(Has(text, Concat("s, waits for rank", r.size() > 2 ? "s " : " ", Join(others), "\n")));
      EXPECT_TRUE(Has(text, "\nRecv of 10 F32 with tag 5 for 'activations' in group 'world', open for"));
      EXPECT_GE(r.world.OldestOpenSeconds(), 0.1);
    } else {
      std::this_thread::sleep_for(milliseconds(400));
      if (r.rank() == 1) r.all().Send(*second, {"activations"}, 0, 5, view);
      second->Synchronize();
      group->AllReduce(*r.stream, {"gradients", 3, 4}, view, ReduceOp::kSum);
    }
    r.stream->Synchronize();
    second->Synchronize();
    EXPECT_EQ(r.world.OpenOperations(), "");
  });
  EXPECT_TRUE(status.ok()) << status;
}

double ProcessSeconds() {
  timespec t;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

TEST_P(WorldTest, WaitingForAPeerCostsLittleOfACore) {
  if (GetParam() == 1) return;
  const absl::Status status = OnRanks(GetParam(), {}, [](Rank& r) {
    r.all().Barrier(*r.stream, {"begin"});
    r.stream->Synchronize();
    const double before = ProcessSeconds();
    if (r.rank() == 0) std::this_thread::sleep_for(milliseconds(1000));
    r.all().Barrier(*r.stream, {"end"});
    r.stream->Synchronize();
    // The bar is 0.05 of a core a rank; twice that here, where sanitizers and busy machines run too.
    const double share = (ProcessSeconds() - before) / (Job() ? 1 : r.size() - 1);
    if (r.rank() == 1) std::printf("waiting costs %.1f %% of a core\n", 100 * share);
    EXPECT_LT(share, 0.10);
  });
  EXPECT_TRUE(status.ok()) << status;
}

// On every rank of three, of whom rank 2 has another kind of device, or no channels.
absl::Status AgreeWith(const std::string& device_of_2, bool channels_of_2) {
  std::mutex mutex;
  std::set<std::string> said;
  const absl::Status status = RunRanks(3, {}, [&](World& world) {
    const bool odd = world.rank() == 2;
    const std::unique_ptr<PretendedLink> link = NewPretendedLink(odd ? channels_of_2 : true);
    const std::unique_ptr<Backend> backend = MakeCpuBackend({.threads = 1, .link = link.get()});
    const std::unique_ptr<Stream> stream = backend->NewStream(StreamKind::kExchange);
    const absl::Status mine = AgreeOnDevices(world.all(), *stream, odd ? device_of_2 : "cuda (A)");
    {
      std::lock_guard lock(mutex);
      said.insert(std::string(mine.message()));
    }
    RETURN_IF_ERROR(world.Close(*stream));
    return mine;
  });
  EXPECT_EQ(said.size(), 1) << "all ranks find out the same";
  return status;
}

TEST(AgreeOnDevicesTest, RanksWithDifferentGpusOrWaysToSendAreRefusedAndNamed) {
  EXPECT_TRUE(AgreeWith("cuda (A)", true).ok());
  const absl::Status mixed = AgreeWith("cuda (B)", true);
  EXPECT_EQ(mixed.code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(Has(std::string(mixed.message()), "rank 0 computes on cuda (A), rank 2 on cuda (B)"));
  const absl::Status ways = AgreeWith("cuda (A)", false);
  EXPECT_EQ(ways.code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(
      Has(std::string(ways.message()), "rank 0 sends its GPU's memory over files, rank 2 over the host"));
}

// Each rank tells what it knows; the others may know less, and leave first.
TEST(AgreeTest, TheRankThatSpeaksIsHeardWhoeverLeavesFirst) {
  const absl::Status status = RunRanks(3, {}, [](World& world) {
    const std::unique_ptr<Backend> backend = MakeCpuBackend({.threads = 1});
    const std::unique_ptr<Stream> stream = backend->NewStream(StreamKind::kExchange);
    const absl::Status agreed =
        Agree(world.all(), *stream, UsageError(Concat("as rank ", world.rank(), " sees it")));
    if (world.rank() == 0) std::this_thread::sleep_for(std::chrono::milliseconds(50));
    return agreed;
  });
  EXPECT_EQ(status.message(), "as rank 0 sees it");
}

TEST(AgreeOnDevicesTest, RanksOfHostMemoryNeedNotAgree) {
  EXPECT_TRUE(RunRanks(3, {}, [](World& world) {
                const std::unique_ptr<Backend> backend = MakeCpuBackend({.threads = 1});
                const std::unique_ptr<Stream> stream = backend->NewStream(StreamKind::kExchange);
                RETURN_IF_ERROR(AgreeOnDevices(world.all(), *stream, Concat("cpu ", world.rank())));
                return world.Close(*stream);
              }).ok());
}

TEST(MpiProcessTest, MessagesOverTheLimitTravelInParts) {
  auto* const mpi = dynamic_cast<MpiProcess*>(Job());
  if (mpi == nullptr) return;  // threads have no limit
  World world(mpi->NewTransport(1000), std::vector<int>(mpi->size(), 0), mpi->rank(), {});
  Rank r(&world);
  for (const int64_t count : {999, 1000, 1001, 2000, 12345}) {
    std::vector<uint8_t> send(count), receive(count);
    for (int64_t i = 0; i < count; ++i) send[i] = static_cast<uint8_t>(r.rank() + i * 7);
    const int next = (r.rank() + 1) % r.size(), previous = (r.rank() + r.size() - 1) % r.size();
    r.all().AllToAllV(*r.stream, {"parts"}, [&] {
      PeerPieces pieces;
      pieces.send.resize(r.size());
      pieces.receive.resize(r.size());
      pieces.send[next] = {{send.data(), 300}, {send.data() + 300, count - 300}};
      pieces.receive[previous] = {{receive.data(), 900}, {receive.data() + 900, count - 900}};
      return pieces;
    });
    r.stream->Synchronize();
    ASSERT_TRUE(world.status().ok()) << world.status();
    for (int64_t i = 0; i < count; ++i) ASSERT_EQ(receive[i], static_cast<uint8_t>(previous + i * 7)) << i;
  }
  r.guard.Dismiss();
  EXPECT_TRUE(world.Close(*r.stream).ok());
}

INSTANTIATE_TEST_SUITE_P(Ranks, WorldTest, testing::ValuesIn(RankCounts()),
                         [](const auto& info) { return Concat(info.param, "_ranks"); });

}  // namespace
}  // namespace moebius
