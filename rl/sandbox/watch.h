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
    // That first threads were ready to run while others had the processors; of all processes likewise. 0
    // where the kernel keeps no account of it.
    int64_t waited_us = 0;
  };
  // Looking exactly costs, so it is done only where the cheap upper bound is above `exact_above_kb`.
  Sample Look(int64_t exact_above_kb);

 private:
  struct Times {
    int64_t cpu_us = 0, waited_us = 0;
  };
  // Of each process when last seen. A process whose parent ignores its end is in no other account.
  std::map<pid_t, Times> seen_;
  Times ended_;
};

}  // namespace moebius::sandbox
