// The last steps in a slot between fork and exec: everything that binds the program itself.
#pragma once

#include <linux/filter.h>

#include <string>
#include <vector>

#include "rl/sandbox/slot.h"

namespace moebius::sandbox {

struct ProgramStart {
  const SlotContext& context;
  const SlotRequest& request;
  const SlotCgroup& cgroup;
  const std::vector<sock_filter>& filter;
  uid_t uid;           // inside the slot; also the group
  bool change_uid;     // false: the process already has it
  std::string folder;  // "" or, without namespaces, what /prog and /box lie under
  int socket;          // end of a stream pair, see below
};

// A new process that gives up privileges, sends the descriptor of the refused calls through `start.socket`
// and executes request.argv; on failure it sends the reason as text and exits. -1 with errno. The caller, of
// one thread, waits until the program runs: copying its memory only to throw it away costs more than the
// walls.
pid_t StartProgram(const ProgramStart& start);

// The descriptor that StartProgram sent, or -1 with the text instead ("" when the process ended without
// either).
int ReceiveListener(int socket, std::string* text);

}  // namespace moebius::sandbox
