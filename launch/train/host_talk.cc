#include "launch/train/host_talk.h"

#include "core/backend/device.h"
#include "parallel/comm/agree.h"

namespace moebius {

HostTalk::HostTalk(World& world)
    : world_(world),
      backend_(MakeCpuBackend({.threads = 1})),
      stream_(backend_->NewStream(StreamKind::kExchange)) {}

absl::Status HostTalk::Agree(const absl::Status& mine) {
  return moebius::Agree(world_.all(), *stream_, mine);
}

absl::StatusOr<std::vector<std::string>> HostTalk::Gather(const std::string& text) {
  return GatherText(world_.all(), *stream_, text);
}

}  // namespace moebius
