#include "rl/sandbox/watch.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <set>
#include <string>

#include "core/io/file.h"

namespace moebius::sandbox {
namespace {

struct Process {
  pid_t pid = 0, parent = 0;
  int threads = 0;
  int64_t resident_kb = 0;
};

// A file of /proc, up to the size of `buffer`; what a process is called is part of it, so text is cut, not
// trusted.
std::string ReadProc(pid_t pid, const char* name) {
  char path[64], buffer[4096];
  std::snprintf(path, sizeof path, "/proc/%d/%s", pid, name);
  const FileDescriptor file(open(path, O_RDONLY | O_CLOEXEC));
  if (file.get() < 0) return "";
  const ssize_t length = read(file.get(), buffer, sizeof buffer);
  return length > 0 ? std::string(buffer, length) : "";
}

bool ReadStat(pid_t pid, Process* process) {
  const std::string text = ReadProc(pid, "stat");
  const size_t name_end = text.rfind(')');
  if (name_end == std::string::npos) return false;
  // Fields 3 (state) to 24 (resident pages) of proc(5), after the name.
  char state;
  int parent;
  long threads, resident;
  if (std::sscanf(text.c_str() + name_end + 1,
                  " %c %d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %ld %*d %*u %*u %ld",
                  &state, &parent, &threads, &resident) != 4)
    return false;
  static const int64_t kPageKb = sysconf(_SC_PAGESIZE) / 1024;
  *process = {pid, parent, static_cast<int>(std::max(threads, 1L)), resident * kPageKb};
  return true;
}

std::vector<Process> List() {
  std::vector<Process> all;
  DIR* folder = opendir("/proc");
  if (folder == nullptr) return all;
  while (const dirent* entry = readdir(folder)) {
    const pid_t pid = std::atoi(entry->d_name);
    Process process;
    if (pid > 0 && pid != getpid() && ReadStat(pid, &process)) all.push_back(process);
  }
  closedir(folder);
  if (getpid() == 1) return all;
  // Without a namespace of its own: only what descends from here. Parents come before children except after a
  // wrap of the numbers, so go on until nothing is added.
  std::set<pid_t> family = {getpid()};
  for (size_t before = 0; before != family.size();) {
    before = family.size();
    for (const Process& process : all)
      if (family.count(process.parent)) family.insert(process.pid);
  }
  std::vector<Process> ours;
  for (const Process& process : all)
    if (family.count(process.pid)) ours.push_back(process);
  return ours;
}

int64_t CpuUs(pid_t pid) {
  timespec time;
  // The kernel's number for "processor clock of process pid"; clock_getcpuclockid would ask /proc first.
  const clockid_t clock = static_cast<clockid_t>((~static_cast<unsigned>(pid) << 3) | 2);
  return clock_gettime(clock, &time) == 0 ? time.tv_sec * int64_t{1000000} + time.tv_nsec / 1000 : -1;
}

// The second number of /proc/PID/schedstat, in nanoseconds.
int64_t WaitedUs(pid_t pid) {
  long long waited = 0;
  return std::sscanf(ReadProc(pid, "schedstat").c_str(), "%*s %lld", &waited) == 1 ? waited / 1000 : 0;
}

// Its share of private and shared memory, without files of the system; -1 when it is gone or may not be
// looked into.
int64_t ExactKb(pid_t pid) {
  const std::string text = ReadProc(pid, "smaps_rollup");
  int64_t kb = 0;
  for (const char* name : {"Pss_Anon:", "Pss_Shmem:"}) {
    const size_t at = text.find(name);
    if (at == std::string::npos) return -1;
    kb += std::strtoll(text.c_str() + at + std::strlen(name), nullptr, 10);
  }
  return kb;
}

}  // namespace

std::vector<pid_t> Descendants() {
  std::vector<pid_t> pids;
  for (const Process& process : List()) pids.push_back(process.pid);
  return pids;
}

int CountTasks() {
  int tasks = 0;
  for (const Process& process : List()) tasks += process.threads;
  return tasks;
}

Watch::Sample Watch::Look(int64_t exact_above_kb) {
  Sample sample;
  std::map<pid_t, Times> now;
  const std::vector<Process> processes = List();
  for (const Process& process : processes) {
    sample.tasks += process.threads;
    sample.memory_kb += process.resident_kb;
    const auto before = seen_.find(process.pid);
    const Times last = before == seen_.end() ? Times() : before->second;
    now[process.pid] = {std::max(CpuUs(process.pid), last.cpu_us),
                        std::max(WaitedUs(process.pid), last.waited_us)};
    if (before != seen_.end()) seen_.erase(before);
  }
  const auto add = [](const std::map<pid_t, Times>& processes, Times sum) {
    for (const auto& [pid, times] : processes) {
      sum.cpu_us += times.cpu_us;
      sum.waited_us += times.waited_us;
    }
    return sum;
  };
  ended_ = add(seen_, ended_);
  seen_ = std::move(now);
  const Times living = add(seen_, {});
  sample.waited_us = ended_.waited_us + living.waited_us;

  // The kernel's account of ended children counts those that were waited for, at any depth.
  rusage children;
  getrusage(RUSAGE_CHILDREN, &children);
  const int64_t reaped_us = (children.ru_utime.tv_sec + children.ru_stime.tv_sec) * int64_t{1000000} +
                            children.ru_utime.tv_usec + children.ru_stime.tv_usec;
  sample.cpu_us = std::max(ended_.cpu_us, reaped_us) + living.cpu_us;

  if (sample.memory_kb > exact_above_kb) {
    int64_t exact = 0;
    for (const Process& process : processes) {
      const int64_t kb = ExactKb(process.pid);
      exact += kb >= 0 ? kb : process.resident_kb;
    }
    sample.memory_kb = exact;
  }
  return sample;
}

}  // namespace moebius::sandbox
