// Small things that all ranks of a group have to know of each other, on the host. Collective, and wait for
// the stream: for starts, checkpoints and ends, not for steps.
#pragma once

#include <string>
#include <vector>

#include "parallel/comm/communicator.h"

namespace moebius {

// Every rank's text, by rank.
absl::StatusOr<std::vector<std::string>> GatherText(Communicator& group, Stream& stream,
                                                    const std::string& text);

// OK when all ranks are; else a rank's own error, or, on the others, that of the first rank that has one.
// That rank is the one to tell the user.
bool IsSpeaker(const Communicator& group, const absl::Status& status);  // true for what no Agree has returned
bool IsAgreed(const absl::Status& status);  // an Agree has returned it, and so all ranks leave with an error
absl::Status Agree(Communicator& group, Stream& stream, const absl::Status& mine);

// Whether these ranks can exchange their devices' memory; before the first of it. kUnavailable, which all
// return, where ranks compute on devices of different kinds (`device`: Backend::Name), or only some have
// channels (DeviceLink::has_channels): the two ends of a message would wait for each other on different ways.
// OK where they exchange host memory alone.
absl::Status AgreeOnDevices(Communicator& group, Stream& stream, const std::string& device);

}  // namespace moebius
