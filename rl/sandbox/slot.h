// One isolated process tree: what is asked of it, what it reports, and how it is started. The slot's first
// process (slot_init.h) builds the walls, starts the program and watches it; nothing in a slot knows an
// expected output.
#pragma once

#include <linux/filter.h>
#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "core/io/file.h"
#include "rl/sandbox/cgroup.h"
#include "rl/sandbox/layers.h"
#include "rl/sandbox/limits.h"

namespace moebius::sandbox {

// A file the program finds as /prog/NAME, read-only.
struct SlotFile {
  std::string name;
  bool executable = false;
  FileDescriptor content;  // read from its beginning
};

struct SlotRequest {
  std::vector<std::string> argv;  // argv[0] is the path inside the slot; "" runs the canaries of canaries.h
  std::vector<SlotFile> files;
  Limits limits;
  // Ends of the caller's pipes. control is a SOCK_SEQPACKET pair: it carries the reports, and when the caller
  // closes its end the slot is killed.
  FileDescriptor control, input, output, error;
  FileDescriptor channel;   // optional: descriptor 3 of the program
  FileDescriptor artifact;  // optional: gets /box/artifact when the program has ended well
  std::string artifact_name = "artifact";
};

// Sent on `control`: one kInit from the slot's first process when the program has ended, then one kGone from
// the runner when nothing of the slot is left. kGone without kInit: the slot could not be built.
struct SlotReport {
  enum Kind : uint32_t { kInit = 0x696E6974, kGone = 0x676F6E65 };
  Kind kind = kInit;
  int32_t wait_status = 0;  // of the program
  int64_t cpu_us = 0, wall_us = 0, memory_kb = 0;
  bool mem = false, cpu = false, wall = false, procs = false, disk = false;
  bool asked_memory = false, denied = false;
  bool left_behind = false;  // kGone: a control group could not be removed
  char error[200] = {};      // kInit: why the slot could not be built, "" when it could
};

// What is the same for all slots of a runner.
struct SlotContext {
  Layers layers;
  Cgroups cgroups;
  int landlock_version = 0;
  uid_t first_uid = 0;   // root only: slot N runs as first_uid + 2 N (init) and + 1 (program)
  std::string ld_cache;  // content of /etc/ld.so.cache
};

// What a slot, and who waits for one, says when nothing comes from the runner any more.
inline constexpr char kRunnerGone[] = "the sandbox's runner is gone";
// Ids outside that root gives to slots: far above those that systems give out.
inline constexpr uid_t kFirstSlotId = 1000000000, kIdsOfARunner = 512, kMostRunners = 1000000;
inline constexpr uid_t kLastSlotId = kFirstSlotId + kMostRunners * kIdsOfARunner;
// Ids inside the slot.
inline constexpr uid_t kProgramUid = 1000;

// The first process of a new slot as a child of the caller, which must have one thread. `go` is written to
// when its ids are mapped. -1 with errno. In the child it does not return.
pid_t StartSlot(const SlotContext& context, const SlotRequest& request, const SlotCgroup& cgroup,
                const std::vector<sock_filter>& filter, int slot);

}  // namespace moebius::sandbox
