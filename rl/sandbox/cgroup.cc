#include "rl/sandbox/cgroup.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <sstream>

#include "core/base/strings.h"

namespace moebius::sandbox {
namespace {

std::string Read(const std::string& path) {
  absl::StatusOr<std::string> text = ReadFile(path, 1 << 20);
  return text.ok() ? *text : "";
}

bool Write(const std::string& path, const std::string& text) {
  const FileDescriptor file(open(path.c_str(), O_WRONLY | O_CLOEXEC));
  return file.get() >= 0 && write(file.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size());
}

// The number after "NAME " in lines of names and numbers.
int64_t Field(const std::string& text, const std::string& name) {
  std::istringstream lines(text);
  std::string key;
  int64_t value;
  while (lines >> key >> value)
    if (key == name) return value;
  return 0;
}

// Where the hierarchy with `controller` (version 1) or the unified one ("") is mounted, and this process's
// place in it.
std::string OwnFolder(const std::string& controller) {
  std::string mount;
  std::istringstream mounts(Read("/proc/self/mountinfo"));
  for (std::string line; std::getline(mounts, line);) {
    const size_t dash = line.find(" - ");
    if (dash == std::string::npos) continue;
    std::istringstream left(line.substr(0, dash)), right(line.substr(dash + 3));
    std::string id, parent, device, root, point, type, source, options;
    left >> id >> parent >> device >> root >> point;
    right >> type >> source >> options;
    const bool wanted =
        controller.empty()
            ? type == "cgroup2"
            : type == "cgroup" && ("," + options + ",").find("," + controller + ",") != std::string::npos;
    if (wanted) mount = point;
  }
  if (mount.empty()) return "";
  std::istringstream places(Read("/proc/self/cgroup"));
  for (std::string line; std::getline(places, line);) {
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string names = line.substr(first + 1, second - first - 1);
    const bool wanted = controller.empty()
                            ? names.empty()
                            : ("," + names + ",").find("," + controller + ",") != std::string::npos;
    if (!wanted) continue;
    // In a container the place may be named from the host's root: then the mount itself is it.
    const std::string folder = mount + line.substr(second + 1);
    return FolderExists(folder) ? folder : mount;
  }
  return mount;
}

void SweepFolder(const std::string& parent) {
  const absl::StatusOr<std::vector<std::string>> names = ListDir(parent);
  if (!names.ok()) return;
  for (const std::string& name : *names) {
    int pid, slot;
    if (std::sscanf(name.c_str(), "moebius-%d-%d", &pid, &slot) != 2) continue;
    if (kill(pid, 0) == 0 || errno == EPERM) continue;
    Write(parent + "/" + name + "/cgroup.kill", "1");
    rmdir((parent + "/" + name).c_str());
  }
}

}  // namespace

std::string CgroupName(int runner_pid, int slot) { return Concat("moebius-", runner_pid, "-", slot); }

Cgroups Cgroups::Find() {
  const auto works = [](const Cgroups& groups) {
    SlotCgroup probe = groups.Make(CgroupName(getpid(), 9999), Limits());
    const bool made = probe.limits_memory();
    return probe.Remove() && made;
  };
  Cgroups groups;
  groups.version_ = 1;
  groups.memory_parent_ = OwnFolder("memory");
  groups.pids_parent_ = OwnFolder("pids");
  if (!groups.memory_parent_.empty() && !groups.pids_parent_.empty() && works(groups)) return groups;
  groups.version_ = 2;
  groups.memory_parent_ = groups.pids_parent_ = OwnFolder("");
  if (!groups.memory_parent_.empty()) {
    Write(groups.memory_parent_ + "/cgroup.subtree_control", "+memory +pids");
    if (works(groups)) return groups;
  }
  return Cgroups();
}

SlotCgroup Cgroups::Make(const std::string& name, const Limits& limits) const {
  SlotCgroup group;
  if (version_ == 0) return group;
  const std::string memory = memory_parent_ + "/" + name, pids = pids_parent_ + "/" + name;
  const std::string bytes = Concat(limits.memory_mb * kMiB);
  const std::string processes = Concat(limits.processes);
  group.version_ = version_;
  group.memory_ = memory;
  group.pids_ = pids;
  bool made = mkdir(memory.c_str(), 0755) == 0 && (version_ == 2 || mkdir(pids.c_str(), 0755) == 0);
  if (version_ == 1) {
    made = made && Write(memory + "/memory.limit_in_bytes", bytes);
    Write(memory + "/memory.memsw.limit_in_bytes", bytes);  // absent without swap accounting
    Write(memory + "/memory.swappiness", "0");
  } else {
    made = made && Write(memory + "/memory.max", bytes);
    Write(memory + "/memory.swap.max", "0");
  }
  made = made && Write(pids + "/pids.max", processes);
  for (const std::string& folder : {memory, pids}) {
    if (version_ == 2 && !group.entrances_.empty()) break;
    FileDescriptor entrance(open((folder + "/cgroup.procs").c_str(), O_WRONLY | O_CLOEXEC));
    made = made && entrance.get() >= 0;
    group.entrances_.push_back(std::move(entrance));
  }
  if (made) return group;
  group.Remove();
  return SlotCgroup();
}

void Cgroups::SweepStale() const {
  if (version_ == 0) return;
  SweepFolder(memory_parent_);
  if (version_ == 1) SweepFolder(pids_parent_);
}

CgroupUse SlotCgroup::Use() const {
  CgroupUse use;
  if (memory_.empty()) return use;
  const std::string kills = version_ == 1 ? "/memory.oom_control" : "/memory.events";
  const std::string peak = version_ == 1 ? "/memory.max_usage_in_bytes" : "/memory.peak";
  use.killed_for_memory = Field(Read(memory_ + kills), "oom_kill") > 0;
  use.peak_memory_kb = std::strtoll(Read(memory_ + peak).c_str(), nullptr, 10) / 1024;
  use.refused_processes = Field(Read(pids_ + "/pids.events"), "max") > 0;
  return use;
}

bool SlotCgroup::Remove() {
  entrances_.clear();
  bool removed = true;
  for (std::string* folder : {&memory_, &pids_}) {
    // The last process may still be on its way out; mostly it takes less than a millisecond.
    for (int wait_us = 50; !folder->empty() && rmdir(folder->c_str()) != 0 && errno != ENOENT;
         wait_us += wait_us / 2) {
      if (wait_us > 500000) {
        removed = false;
        break;
      }
      if (version_ == 2) Write(*folder + "/cgroup.kill", "1");
      usleep(wait_us);
    }
    folder->clear();
  }
  return removed;
}

}  // namespace moebius::sandbox
