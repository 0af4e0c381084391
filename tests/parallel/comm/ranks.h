// One test body for both kinds of ranks: threads when the test runs by itself, processes when mpirun starts
// it.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/backend/backend.h"
#include "gtest/gtest.h"
#include "parallel/comm/world.h"
#include "tests/parallel/comm/device_ranks.h"

namespace moebius {

// What a rank's body gets: its world, with a backend and a first exchange stream. The environment's
// MOEBIUS_TEST_DEVICE = pretend or channels (and a build for GPUs) has communication go through a device's
// memory; channels: straight from device to device.
struct Rank {
  explicit Rank(World* world);

  Communicator& all() { return device_all ? *device_all : world.all(); }
  int rank() const { return world.rank(); }
  int size() const { return world.size(); }

  World& world;
  std::unique_ptr<PretendedLink> pretended;
  std::unique_ptr<Backend> backend;
  std::unique_ptr<TestDevice> gpu;
  std::unique_ptr<Communicator> device_all;
  std::unique_ptr<Stream> stream;
  WorldGuard guard;
};

// Whether `text` has `part` in it; says both when not.
testing::AssertionResult Has(const std::string& text, const std::string& part);

// The job that this test is part of, or null.
ProcessJob* Job();

// The sizes to test: 1 to 8 threads, or the job's.
std::vector<int> RankCounts();
// Those above one.
std::vector<int> SeveralRanks();

// Runs `body` on each rank, or on this process's one, and closes the world. The world's status, whatever the
// transport.
absl::Status OnRanks(int size, const WorldOptions& options, const std::function<void(Rank&)>& body);

}  // namespace moebius
