#include "core/backend/profile.h"

namespace moebius {

void KernelProfile::Add(std::string_view name, double seconds, double flops, double bytes) {
  auto it = entries_.find(name);
  if (it == entries_.end()) it = entries_.emplace(name, Entry()).first;
  Entry& entry = it->second;
  ++entry.calls;
  entry.seconds += seconds;
  entry.flops += flops;
  entry.bytes += bytes;
}

}  // namespace moebius
