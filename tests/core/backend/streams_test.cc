// Streams, events and memory of a backend.
#include <atomic>
#include <chrono>
#include <memory>
#include <thread>
#include <vector>

#include "core/backend/backend.h"
#include "gtest/gtest.h"
#include "tests/core/backend/test_backend.h"

namespace moebius {
namespace {

using std::chrono::milliseconds;

TEST(StreamsTest, AComputeStreamRunsInlineInTheCallingThread) {
  const auto backend = MakeCpuBackend({.threads = 1});
  const auto stream = backend->NewStream(StreamKind::kCompute);
  std::thread::id ran;
  stream->Enqueue([&] { ran = std::this_thread::get_id(); });
  EXPECT_EQ(ran, std::this_thread::get_id());
}

TEST(StreamsTest, AnExchangeStreamRunsInOrderInAThreadOfItsOwn) {
  const auto backend = NewTestBackend();
  const auto stream = backend->NewStream(StreamKind::kExchange);
  std::vector<int> order;  // plain memory: Synchronize is what orders it
  std::thread::id ran;
  for (int i = 0; i < 100; ++i) {
    stream->Enqueue([&order, &ran, i] {
      order.push_back(i);
      ran = std::this_thread::get_id();
    });
  }
  stream->Synchronize();
  ASSERT_EQ(order.size(), 100u);
  for (int i = 0; i < 100; ++i) EXPECT_EQ(order[i], i);
  EXPECT_NE(ran, std::this_thread::get_id());
}

TEST(StreamsTest, ComputeWaitsForAnEventOfTheExchangeStream) {
  const auto backend = NewTestBackend();
  const auto compute = backend->NewStream(StreamKind::kCompute),
             exchange = backend->NewStream(StreamKind::kExchange);
  const auto event = backend->NewEvent();
  int value = 0;
  exchange->Enqueue([&] {
    std::this_thread::sleep_for(milliseconds(20));
    value = 7;
  });
  exchange->Record(*event);
  compute->Wait(*event);
  compute->Synchronize();
  EXPECT_EQ(value, 7);
}

TEST(StreamsTest, ARecordingMakesItsCallsAgain) {
  const auto backend = NewDeviceBackend();
  const auto stream = backend->NewStream(StreamKind::kCompute);
  const Tensor x(*backend, DType::kF32, {5}), y(*backend, DType::kF32, {5});
  backend->Fill(*stream, x, 2);
  backend->Fill(*stream, y, 1);
  const auto calls = [&] {
    backend->Accumulate(*stream, {.x = x, .y = y, .alpha = 3});
    backend->Accumulate(*stream, {.x = y, .y = x});
  };
  calls();  // x = 9, y = 7
  const auto recording = backend->NewRecording(*stream, calls);
  ASSERT_NE(recording, nullptr);
  for (int i = 0; i < 3; ++i) recording->Replay(*stream);
  std::vector<float> got(5);
  backend->CopyToHost(*stream, y, got.data());
  stream->Synchronize();
  EXPECT_EQ(got, std::vector<float>(5, 781));  // 34, 163, 781
}

TEST(StreamsTest, ExchangeWaitsForTheRecordThatWasTheLatestAtItsCall) {
  const auto backend = NewTestBackend();
  const auto first = backend->NewStream(StreamKind::kExchange),
             second = backend->NewStream(StreamKind::kExchange);
  const auto event = backend->NewEvent();
  std::atomic<bool> open = false;
  int value = 0;
  first->Enqueue([&] {
    while (!open) std::this_thread::sleep_for(milliseconds(1));
    value = 1;
  });
  first->Record(*event);
  int seen = -1;
  second->Wait(*event);
  second->Enqueue([&] { seen = value; });
  std::this_thread::sleep_for(milliseconds(5));
  open = true;
  second->Synchronize();
  EXPECT_EQ(seen, 1);
}

TEST(StreamsTest, ExchangeStreamsShareOneThread) {
  const auto backend = NewTestBackend();
  std::vector<std::thread::id> ran(2);
  for (std::thread::id& id : ran) {
    const auto stream = backend->NewStream(StreamKind::kExchange);
    stream->Enqueue([&] { id = std::this_thread::get_id(); });
    stream->Synchronize();
  }
  EXPECT_EQ(ran[0], ran[1]);
}

TEST(StreamsTest, PolledWorkKeepsItsPlaceAndHoldsUpNoOtherStream) {
  const auto backend = NewTestBackend();
  const auto first = backend->NewStream(StreamKind::kExchange),
             second = backend->NewStream(StreamKind::kExchange);
  std::atomic<bool> open = false;
  std::vector<int> order;
  first->EnqueuePolled([&] {
    if (open) order.push_back(1);
    return open.load();
  });
  first->Enqueue([&] { order.push_back(2); });
  int other = 0;
  second->Enqueue([&] { other = 7; });
  second->Synchronize();  // while the first one waits
  EXPECT_EQ(other, 7);
  second->Enqueue([&] { open = true; });
  first->Synchronize();
  EXPECT_EQ(order, (std::vector<int>{1, 2}));
}

TEST(StreamsTest, WaitingForAnEventHoldsUpNoOtherExchangeStream) {
  const auto backend = NewTestBackend();
  const auto first = backend->NewStream(StreamKind::kExchange),
             second = backend->NewStream(StreamKind::kExchange);
  const auto event = backend->NewEvent();
  std::atomic<bool> open = false;
  second->EnqueuePolled([&] { return open.load(); });
  second->Record(*event);
  int seen = 0;
  first->Wait(*event);  // in the queue before what it waits for goes on
  first->Enqueue([&] { seen = 1; });
  second->Enqueue([&] { seen = seen == 0 ? 2 : seen; });
  open = true;
  first->Synchronize();
  second->Synchronize();
  EXPECT_NE(seen, 0);
}

TEST(StreamsTest, AWakeEndsTheSleepOfPolledWork) {
  const auto backend = NewTestBackend();
  const auto stream = backend->NewStream(StreamKind::kExchange);
  std::atomic<bool> open = false;
  std::atomic<int> polls = 0;
  stream->EnqueuePolled([&] {
    ++polls;
    return open.load();
  });
  std::this_thread::sleep_for(milliseconds(50));  // by now it sleeps for a millisecond or so at a time
  const int before = polls;
  for (int i = 0; i < 100; ++i) {
    stream->Wake();
    std::this_thread::sleep_for(std::chrono::microseconds(100));
  }
  EXPECT_GT(polls - before, 50);  // without Wake about 10
  open = true;
  stream->Synchronize();
}

TEST(StreamsTest, AComputeStreamPollsUntilItIsDone) {
  const auto backend = NewTestBackend();
  const auto stream = backend->NewStream(StreamKind::kCompute);
  int polls = 0;
  stream->EnqueuePolled([&] { return ++polls == 10; });
  stream->Synchronize();
  EXPECT_EQ(polls, 10);
}

TEST(StreamsTest, WaitingForAnEventThatWasNeverRecordedDoesNotBlock) {
  const auto backend = NewTestBackend();
  const auto event = backend->NewEvent();
  for (const StreamKind kind : {StreamKind::kCompute, StreamKind::kExchange}) {
    const auto stream = backend->NewStream(kind);
    stream->Wait(*event);
    stream->Synchronize();
  }
}

TEST(StreamsTest, WhatWasQueuedIsDoneBeforeTheStreamDies) {
  const auto backend = NewTestBackend();
  int done = 0;
  {
    const auto stream = backend->NewStream(StreamKind::kExchange);
    for (int i = 0; i < 10; ++i) stream->Enqueue([&] { ++done; });
  }
  EXPECT_EQ(done, 10);
}

TEST(MemoryTest, IsAlignedWhateverItsSize) {
  const auto backend = NewTestBackend();
  for (const int64_t bytes : {int64_t{0}, int64_t{1}, int64_t{100}, int64_t{5} << 20}) {
    void* memory = backend->Allocate(bytes);
    ASSERT_NE(memory, nullptr);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(memory) % 64, 0u);
    std::fill_n(static_cast<char*>(memory), bytes, 'x');
    backend->Free(memory);
  }
}

TEST(CpuBackendTest, NamesItselfWithItsThreads) {
  const auto backend = MakeCpuBackend({.threads = 3});
  EXPECT_EQ(backend->num_threads(), 3);
  EXPECT_EQ(backend->Name(), "cpu (" + backend->InstructionSet() + ", 3 threads)");
  EXPECT_GE(MakeCpuBackend({})->num_threads(), 1);
}

}  // namespace
}  // namespace moebius
