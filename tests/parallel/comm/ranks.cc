#include "tests/parallel/comm/ranks.h"

#include <cstdlib>

#include "core/backend/gpu.h"
#include "core/base/check.h"
#include "core/base/log.h"

namespace moebius {

namespace {

ProcessJob* job = nullptr;

#ifdef MOEBIUS_TEST_GPU
constexpr bool kTestsGpu = true;
#else
constexpr bool kTestsGpu = false;
#endif

std::unique_ptr<PretendedLink> Pretended() {
  const char* device = std::getenv("MOEBIUS_TEST_DEVICE");
  if (kTestsGpu || device == nullptr) return nullptr;
  return NewPretendedLink(std::string(device) == "channels");
}

std::unique_ptr<Backend> NewBackend(const World& world, DeviceLink* link) {
  if (!kTestsGpu) return MakeCpuBackend({.threads = 1, .link = link});
  absl::StatusOr<std::unique_ptr<Backend>> gpu = MakeGpuBackend({.rank = world.machine_rank()});
  CHECK(gpu.ok()) << gpu.status().message();
  return *std::move(gpu);
}

absl::Status RunOne(World& world, const std::function<void(Rank&)>& body) {
  Rank rank(&world);
  body(rank);
  rank.guard.Dismiss();
  rank.stream->Synchronize();
  return world.Close(*rank.stream);
}

}  // namespace

Rank::Rank(World* world_in)
    : world(*world_in),
      pretended(Pretended()),
      backend(NewBackend(*world_in, pretended.get())),
      gpu(kTestsGpu ? NewGpuTestDevice(*backend) : nullptr),
      device_all(gpu         ? OnDevice(world.all(), *gpu)
                 : pretended ? OnDevice(world.all(), *pretended)
                             : nullptr),
      stream(backend->NewStream(StreamKind::kExchange)),
      guard(world_in) {}

testing::AssertionResult Has(const std::string& text, const std::string& part) {
  if (text.find(part) != std::string::npos) return testing::AssertionSuccess();
  return testing::AssertionFailure() << "no '" << part << "' in '" << text << "'";
}

ProcessJob* Job() { return job; }

std::vector<int> RankCounts() {
  if (job) return {job->size()};
  return {1, 2, 3, 4, 5, 6, 7, 8};
}

std::vector<int> SeveralRanks() {
  std::vector<int> counts;
  for (const int count : RankCounts()) {
    if (count > 1) counts.push_back(count);
  }
  return counts;
}

absl::Status OnRanks(int size, const WorldOptions& options, const std::function<void(Rank&)>& body) {
  if (!job) return RunRanks(size, options, [&](World& world) { return RunOne(world, body); });
  const std::unique_ptr<World> world = NewJobWorld(*job, options);
  return RunOne(*world, body);
}

}  // namespace moebius

int main(int argc, char** argv) {
  std::unique_ptr<moebius::ProcessJob> process;
  if (moebius::ProcessJob::Launched()) {
    process = moebius::ProcessJob::Start().value();
    moebius::job = process.get();
    moebius::SetLogRank(process->rank());
  }
  ::testing::InitGoogleTest(&argc, argv);
  if (process && process->rank() > 0) {
    // One report is enough; what fails elsewhere still shows, by its message on stderr and by its exit code.
    auto& listeners = ::testing::UnitTest::GetInstance()->listeners();
    delete listeners.Release(listeners.default_result_printer());
    class Failures final : public ::testing::EmptyTestEventListener {
      void OnTestPartResult(const ::testing::TestPartResult& result) override {
        if (result.failed()) {
          moebius::LogLine(std::string(result.file_name() ? result.file_name() : "?") + ":" +
                           std::to_string(result.line_number()) + ": " + result.message());
        }
      }
    };
    listeners.Append(new Failures());
  }
  const int result = RUN_ALL_TESTS();
  if (process) process->Finalize();
  return result;
}
