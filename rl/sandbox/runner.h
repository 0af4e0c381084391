// The runner: a process of its own, forked before the program has threads, MPI or a GPU, that starts slots on
// request. It sees programs and their inputs, never an expected output. It ends when its Runner is destroyed
// or its parent dies, and everything in its slots with it.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <semaphore>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "core/io/file.h"
#include "rl/sandbox/slot.h"

namespace moebius::sandbox {

struct RunnerOptions {
  int slots = 4;                     // most at a time, 1 to 256; more wait for their turn
  std::vector<std::string> without;  // layers to do without (layers.h), to try the fall-backs
};

class Runner {
 public:
  // Forks. To be called by a process with one thread. UnavailableError when the machine cannot start a
  // runner.
  static absl::StatusOr<std::unique_ptr<Runner>> Start(const RunnerOptions& options);
  ~Runner();

  // Waits until one of the slots is free and keeps it while it lives.
  class Turn {
   public:
    explicit Turn(Runner& runner) : runner_(runner) { runner_.free_->acquire(); }
    ~Turn() { runner_.free_->release(); }
    Turn(const Turn&) = delete;
    Turn& operator=(const Turn&) = delete;

   private:
    Runner& runner_;
  };

  // Asks for a slot, in a turn; any thread. Reports come on the other end of request.control; when the runner
  // is gone, its end.
  absl::Status Request(const SlotRequest& request);
  // UnavailableError once the runner is known to be gone: nothing can be judged any more, and a process with
  // threads cannot start another one.
  absl::Status status() const;
  // To be asked when a slot ended as if it were: waits a moment for its end.
  void LookWhetherGone();

  const Layers& layers() const { return layers_; }
  int cgroup_version() const { return cgroup_version_; }  // 0: none that can be used
  int landlock_version() const { return landlock_version_; }
  int slots() const { return slots_; }
  pid_t pid() const { return pid_; }

 private:
  Runner() = default;
  std::mutex mutex_;
  std::atomic<bool> gone_ = false;
  std::optional<std::counting_semaphore<256>> free_;
  FileDescriptor socket_;
  pid_t pid_ = -1;
  Layers layers_;
  int cgroup_version_ = 0, landlock_version_ = 0, slots_ = 0;
};

}  // namespace moebius::sandbox
