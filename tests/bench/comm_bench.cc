// Latency and bandwidth between two ranks, as threads or, under mpirun, as processes: comm_bench, or
// mpirun -np 2 comm_bench. Each figure is the median of the rounds, with the ledger and without.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <functional>
#include <memory>
#include <vector>

#include "parallel/comm/world.h"
#include "tests/parallel/comm/all_to_all.h"

namespace moebius {
namespace {

constexpr int64_t kMegabytes16 = int64_t{16} << 20;

struct Figures {
  double round_trip_us, barrier_us, sum_8_us, all_reduce_s, all_to_all_s;
};

double MedianSeconds(int rounds, const std::function<void()>& work) {
  std::vector<double> seconds;
  for (int i = 0; i < rounds; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    work();
    seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
  }
  std::nth_element(seconds.begin(), seconds.begin() + rounds / 2, seconds.end());
  return seconds[rounds / 2];
}

Figures Measure(World& world) {
  const auto backend = MakeCpuBackend({.threads = 1});
  const auto stream = backend->NewStream(StreamKind::kExchange);
  Communicator& all = world.all();
  Figures figures{};

  int64_t word = 0;
  const TensorView message(&word, DType::kI64, {1});
  const int peer = 1 - world.rank();
  figures.round_trip_us = 1e6 / 100 * MedianSeconds(30, [&] {
                            for (int i = 0; i < 100; ++i) {
                              if (world.rank() == 0) all.Send(*stream, {"ping"}, peer, 0, message);
                              all.Recv(*stream, {world.rank() == 0 ? "pong" : "ping"}, peer, 0, message);
                              if (world.rank() == 1) all.Send(*stream, {"pong"}, peer, 0, message);
                            }
                            stream->Synchronize();
                          });
  figures.barrier_us = 1e6 / 100 * MedianSeconds(30, [&] {
                         for (int i = 0; i < 100; ++i) all.Barrier(*stream, {"barrier"});
                         stream->Synchronize();
                       });
  figures.sum_8_us = 1e6 / 100 * MedianSeconds(30, [&] {
                       for (int i = 0; i < 100; ++i) all.AllReduce(*stream, {"sum"}, message, ReduceOp::kSum);
                       stream->Synchronize();
                     });

  std::vector<float> x(kMegabytes16 / 4, 1.0f), y(kMegabytes16 / 4);
  const TensorView view(x.data(), DType::kF32, {kMegabytes16 / 4});
  figures.all_reduce_s = MedianSeconds(15, [&] {
    all.AllReduce(*stream, {"gradients"}, view, ReduceOp::kMax);
    stream->Synchronize();
  });
  const std::vector<int64_t> halves = {kMegabytes16 / 2, kMegabytes16 / 2}, offsets = {0, kMegabytes16 / 2};
  figures.all_to_all_s = MedianSeconds(15, [&] {
    all.AllToAllV(*stream, {"rows"}, PiecesOf({x.data(), halves, offsets, y.data(), halves, offsets}));
    stream->Synchronize();
  });
  if (!world.Close(*stream).ok()) std::printf("failed: %s\n", world.status().ToString().c_str());
  return figures;
}

void Report(const char* ranks, bool ledger, const Figures& f) {
  constexpr double kGigabytes = kMegabytes16 / 1e9;
  std::printf("%s, ledger %s\n", ranks, ledger ? "on" : "off");
  std::printf("  ping-pong of 8 bytes, one way  %8.1f us\n", f.round_trip_us / 2);
  std::printf("  barrier                        %8.1f us\n", f.barrier_us);
  std::printf("  all-reduce of 8 bytes          %8.1f us\n", f.sum_8_us);
  std::printf("  all-reduce of 16 MiB           %8.2f ms %6.2f GB/s\n", 1e3 * f.all_reduce_s,
              kGigabytes / f.all_reduce_s);
  std::printf("  all-to-all-v of 16 MiB a rank  %8.2f ms %6.2f GB/s\n", 1e3 * f.all_to_all_s,
              kGigabytes / f.all_to_all_s);
}

int Main() {
  if (!ProcessJob::Launched()) {
    for (const bool ledger : {true, false}) {
      const absl::Status status = RunRanks(2, {.ledger = ledger}, [&](World& world) {
        const Figures figures = Measure(world);
        if (world.rank() == 0) Report("2 threads", ledger, figures);
        return world.status();
      });
      if (!status.ok()) return 1;
    }
    return 0;
  }
  const std::unique_ptr<ProcessJob> process = ProcessJob::Start().value();
  if (process->size() != 2) {
    std::printf("needs 2 ranks\n");
    process->Exit(64);
  }
  for (const bool ledger : {true, false}) {
    const std::unique_ptr<World> world = NewJobWorld(*process, {.ledger = ledger});
    const Figures figures = Measure(*world);
    if (world->rank() == 0) Report("2 processes", ledger, figures);
  }
  process->Finalize();
  return 0;
}

}  // namespace
}  // namespace moebius

int main() { return moebius::Main(); }
