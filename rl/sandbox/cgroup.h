// Control groups for memory and processes, version 1 or 2, where this process may make them. A slot's groups
// live as long as the slot; what a killed runner left is swept at the next start.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/io/file.h"
#include "rl/sandbox/limits.h"

namespace moebius::sandbox {

struct CgroupUse {
  bool killed_for_memory = false;
  bool refused_processes = false;
  int64_t peak_memory_kb = 0;
};

class SlotCgroup {
 public:
  SlotCgroup() = default;
  SlotCgroup(SlotCgroup&&) = default;
  SlotCgroup& operator=(SlotCgroup&&) = default;

  bool limits_memory() const { return !memory_.empty(); }

  // Open for writing "0", which moves the writer into the group.
  const std::vector<FileDescriptor>& entrances() const { return entrances_; }

  CgroupUse Use() const;

  // Kills what is left inside and removes the folders. False when one stays.
  bool Remove();

 private:
  friend class Cgroups;
  int version_ = 0;
  std::string memory_, pids_;  // folders; the same one in version 2
  std::vector<FileDescriptor> entrances_;
};

class Cgroups {
 public:
  // Looks for parents under which groups with a memory and a process limit can be made, by making one.
  static Cgroups Find();

  bool usable() const { return version_ != 0; }
  int version() const { return version_; }

  // An empty group without limits when not usable or when the kernel refuses.
  SlotCgroup Make(const std::string& name, const Limits& limits) const;

  // Removes groups whose runner is gone.
  void SweepStale() const;

 private:
  int version_ = 0;
  std::string memory_parent_, pids_parent_;
};

// "moebius-PID-N": the group of slot N of the runner with this process id.
std::string CgroupName(int runner_pid, int slot);

}  // namespace moebius::sandbox
