#include "core/backend/cpu/thread_pool.h"

#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#include "core/base/check.h"
#include "core/base/log.h"

namespace moebius {

namespace {

// How long a thread looks for work (or for the end of the others' work) before it sleeps. Decoding makes
// about a hundred short calls a token, microseconds apart; waking a sleeping thread costs as much as such a
// call.
constexpr std::chrono::microseconds kSpin{20};

inline void Relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

// Returns when `done()` holds or the spin time is over.
template <typename Done>
void SpinUntil(const Done& done, bool may_spin) {
  if (!may_spin) return;
  const auto end = std::chrono::steady_clock::now() + kSpin;
  do {
    for (int i = 0; i < 32; ++i) {
      if (done()) return;
      Relax();
    }
  } while (std::chrono::steady_clock::now() < end);
}

}  // namespace

// A run is announced by `work` = (epoch, tasks left to claim) in one word, so that a thread that wakes late
// cannot claim a task of a later run with an earlier run's idea of it. The other fields of a run are written
// before `work` and stay until every claimed task is done.
struct ThreadPool::State {
  std::vector<std::thread> threads;
  bool may_spin = false;

  const std::function<void(int64_t, int)>* task = nullptr;
  int64_t num_tasks = 0;

  alignas(64) std::atomic<uint64_t> work{0};
  alignas(64) std::atomic<uint32_t> epoch{0};  // what sleeping workers wait on: one for every run
  std::atomic<bool> stop{false};
  alignas(64) std::atomic<uint32_t> unfinished{0};

  // Runs tasks of the run `epoch_now` until none is left to claim.
  void Work(uint32_t epoch_now, int thread) {
    uint64_t word = work.load(std::memory_order_acquire);
    for (;;) {
      const uint32_t left = static_cast<uint32_t>(word);
      if (static_cast<uint32_t>(word >> 32) != epoch_now || left == 0) return;
      if (!work.compare_exchange_weak(word, word - 1, std::memory_order_acq_rel, std::memory_order_acquire)) {
        continue;
      }
      (*task)(num_tasks - left, thread);
      if (unfinished.fetch_sub(1, std::memory_order_acq_rel) == 1) unfinished.notify_one();
      word = work.load(std::memory_order_acquire);
    }
  }

  void WorkerLoop(int thread) {
    uint32_t seen = 0;
    for (;;) {
      SpinUntil([&] { return epoch.load(std::memory_order_relaxed) != seen; }, may_spin);
      epoch.wait(seen, std::memory_order_acquire);
      seen = epoch.load(std::memory_order_acquire);
      if (stop.load(std::memory_order_acquire)) return;
      Work(seen, thread);
    }
  }
};

ThreadPool::ThreadPool(int num_threads) : state_(std::make_unique<State>()) {
  CHECK_GE(num_threads, 1);
  const unsigned cores = std::thread::hardware_concurrency();
  state_->may_spin = static_cast<unsigned>(num_threads) <= cores;
  state_->threads.reserve(num_threads - 1);
  const int rank = LogRank();
  for (int i = 1; i < num_threads; ++i) {
    state_->threads.emplace_back([state = state_.get(), i, rank] {
      SetLogRank(rank);
      state->WorkerLoop(i);
    });
  }
}

ThreadPool::~ThreadPool() {
  state_->stop.store(true, std::memory_order_release);
  state_->epoch.fetch_add(1, std::memory_order_release);
  state_->epoch.notify_all();
  for (std::thread& thread : state_->threads) thread.join();
}

int ThreadPool::num_threads() const { return static_cast<int>(state_->threads.size()) + 1; }

void ThreadPool::Run(int64_t num_tasks, const std::function<void(int64_t task, int thread)>& task) {
  CHECK_LT(num_tasks, int64_t{1} << 32);
  if (num_tasks <= 1 || state_->threads.empty()) {
    for (int64_t i = 0; i < num_tasks; ++i) task(i, 0);
    return;
  }
  State& state = *state_;
  state.task = &task;
  state.num_tasks = num_tasks;
  state.unfinished.store(static_cast<uint32_t>(num_tasks), std::memory_order_relaxed);
  const uint32_t epoch = state.epoch.load(std::memory_order_relaxed) + 1;
  state.work.store(uint64_t{epoch} << 32 | static_cast<uint64_t>(num_tasks), std::memory_order_release);
  state.epoch.store(epoch, std::memory_order_release);
  state.epoch.notify_all();

  state.Work(epoch, 0);
  SpinUntil([&] { return state.unfinished.load(std::memory_order_acquire) == 0; }, state.may_spin);
  for (uint32_t left; (left = state.unfinished.load(std::memory_order_acquire)) != 0;) {
    state.unfinished.wait(left, std::memory_order_acquire);
  }
}

}  // namespace moebius
