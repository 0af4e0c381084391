// What the processes of a slot use, seen from the slot's first process.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <vector>

namespace moebius::sandbox {

// Every living or unreaped descendant of the calling process.
std::vector<pid_t> Descendants();

// Threads of all descendants together.
int CountTasks();

class Watch {
 public:
  struct Sample {
    int64_t cpu_us = 0;  // of all processes, the ended ones included
    int64_t memory_kb =
        0;  // private and shared memory, without files; an upper bound when below `exact_above_kb`
    int tasks = 0;
  };
  // Looking exactly costs, so it is done only where the cheap upper bound is above `exact_above_kb`.
  Sample Look(int64_t exact_above_kb);

 private:
  // Processor time of each process when last seen. A process whose parent ignores its end is in no other
  // account.
  std::map<pid_t, int64_t> seen_us_;
  int64_t ended_us_ = 0;
};

}  // namespace moebius::sandbox
