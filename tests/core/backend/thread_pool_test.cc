#include "core/backend/cpu/thread_pool.h"

#include <atomic>
#include <numeric>
#include <vector>

#include "gtest/gtest.h"

namespace moebius {
namespace {

class ThreadPoolTest : public testing::TestWithParam<int> {};

TEST_P(ThreadPoolTest, RunsEveryTaskOnce) {
  ThreadPool pool(GetParam());
  EXPECT_EQ(pool.num_threads(), GetParam());
  for (const int64_t tasks : {0, 1, 2, 3, 17, 1000}) {
    std::vector<std::atomic<int>> calls(tasks);
    pool.Run(tasks, [&](int64_t i, int thread) {
      EXPECT_GE(thread, 0);
      EXPECT_LT(thread, GetParam());
      calls[i].fetch_add(1);
    });
    for (int64_t i = 0; i < tasks; ++i) EXPECT_EQ(calls[i].load(), 1) << i << " of " << tasks;
  }
}

TEST_P(ThreadPoolTest, ResultsAreVisibleWhenRunReturnsHoweverManyRunsFollowEachOther) {
  ThreadPool pool(GetParam());
  std::vector<int64_t> value(8);  // plain memory: ThreadSanitizer sees a missing order
  for (int round = 1; round <= 5000; ++round) {
    pool.Run(8, [&](int64_t i, int) { value[i] += i; });
    ASSERT_EQ(std::accumulate(value.begin(), value.end(), int64_t{0}), 28 * round);
  }
}

TEST_P(ThreadPoolTest, NoTwoTasksShareAThreadNumberAtOnce) {
  ThreadPool pool(GetParam());
  std::vector<std::atomic<int>> busy(GetParam());
  pool.Run(200, [&](int64_t, int thread) {
    EXPECT_EQ(busy[thread].fetch_add(1), 0);
    for (int i = 0; i < 1000; ++i) std::atomic_signal_fence(std::memory_order_seq_cst);
    busy[thread].fetch_sub(1);
  });
}

INSTANTIATE_TEST_SUITE_P(Threads, ThreadPoolTest, testing::Values(1, 2, 3, 8));

}  // namespace
}  // namespace moebius
