// The CPU backend's own threads. One pool a Backend, so one a rank; waiting threads sleep.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

namespace moebius {

class ThreadPool {
 public:
  explicit ThreadPool(int num_threads);  // the calling thread is one of them
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int num_threads() const;

  // Calls task(i, thread) once for every i in [0, num_tasks), thread in [0, num_threads): threads take the
  // next index when free, so a task must not depend on which thread runs it (use `thread` for scratch only).
  // Returns when all are done. Called from one thread at a time; a task must not call Run.
  void Run(int64_t num_tasks, const std::function<void(int64_t task, int thread)>& task);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace moebius
