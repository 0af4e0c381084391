// A cluster on paper: what `moebius plan --cluster FILE` reads.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace moebius {

namespace proto {
class Cluster;
}

// Errors as ReadTextproto's; UsageError for figures out of range and for those that are missing.
absl::StatusOr<std::shared_ptr<proto::Cluster>> LoadCluster(const std::string& path);

}  // namespace moebius
