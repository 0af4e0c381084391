// The first process of a slot: builds the walls, starts the program, watches its limits, answers its refused
// calls, and when the program has ended kills and reaps everything and reports.
#pragma once

#include <linux/filter.h>

#include <vector>

#include "rl/sandbox/slot.h"

namespace moebius::sandbox {

// Does not return. `ids_ready` gives one byte when the user ids are mapped.
[[noreturn]] void RunSlotInit(const SlotContext& context, const SlotRequest& request,
                              const SlotCgroup& cgroup, const std::vector<sock_filter>& filter, int slot,
                              int ids_ready);

// User id of the program outside the slot and, without a user namespace, inside.
uid_t OuterUid(const SlotContext& context, int slot);

}  // namespace moebius::sandbox
