// What the ranks of a world tell each other before, and after, they have backends: on a host stream of its
// own.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/backend/backend.h"
#include "parallel/comm/world.h"

namespace moebius {

class HostTalk {
 public:
  explicit HostTalk(World& world);
  Stream& stream() { return *stream_; }

  // Collective, as parallel/comm/agree.h says.
  absl::Status Agree(const absl::Status& mine);
  absl::StatusOr<std::vector<std::string>> Gather(const std::string& text);

 private:
  World& world_;
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Stream> stream_;
};

}  // namespace moebius
