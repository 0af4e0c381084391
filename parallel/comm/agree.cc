#include "parallel/comm/agree.h"

#include <algorithm>

#include "absl/strings/cord.h"
#include "core/backend/device_link.h"
#include "core/base/status.h"
#include "core/base/strings.h"

namespace moebius {
namespace {

constexpr char kSpeaker[] = "moebius/speaker";

}  // namespace

absl::StatusOr<std::vector<std::string>> GatherText(Communicator& group, Stream& stream,
                                                    const std::string& text) {
  const int n = group.size(), me = group.rank();
  if (n == 1) return std::vector<std::string>{text};
  std::vector<int64_t> lengths(n);
  lengths[me] = static_cast<int64_t>(text.size());
  group.AllReduce(stream, {.what = "text lengths"}, TensorView(lengths.data(), DType::kI64, {n}),
                  ReduceOp::kSum);
  stream.Synchronize();
  RETURN_IF_ERROR(group.status());
  int64_t total = 0, first = 0;
  for (int r = 0; r < n; ++r) {
    if (r == me) first = total;
    total += lengths[r];
  }
  std::string joined(total, '\0');
  std::copy(text.begin(), text.end(), joined.begin() + first);
  const auto view = [&](int64_t at, int64_t count) {
    return TensorView(joined.data() + at, DType::kU8, {count});
  };
  group.AllGatherV(stream, {.what = "texts"}, view(first, lengths[me]), lengths, view(0, total));
  stream.Synchronize();
  RETURN_IF_ERROR(group.status());
  std::vector<std::string> out;
  int64_t at = 0;
  for (const int64_t length : lengths) {
    out.push_back(joined.substr(at, length));
    at += length;
  }
  return out;
}

absl::Status Agree(Communicator& group, Stream& stream, const absl::Status& mine) {
  if (group.size() == 1) return mine;
  const std::string text =
      mine.ok() ? "" : Concat(static_cast<int>(mine.code()), " ", std::string(mine.message()));
  ASSIGN_OR_RETURN(const std::vector<std::string> texts, GatherText(group, stream, text));
  for (int r = 0; r < group.size(); ++r) {
    if (texts[r].empty()) continue;
    const size_t space = texts[r].find(' ');
    const auto code = static_cast<absl::StatusCode>(std::stoi(texts[r].substr(0, space)));
    absl::Status status =
        mine.ok() ? absl::Status(code, Concat("rank ", r, ": ", texts[r].substr(space + 1))) : mine;
    status.SetPayload(kSpeaker, absl::Cord(std::to_string(r)));
    return status;
  }
  return absl::OkStatus();
}

absl::Status AgreeOnDevices(Communicator& group, Stream& stream, const std::string& device) {
  if (group.size() == 1) return absl::OkStatus();
  DeviceLink* const link = stream.link();
  // Device, and how its memory is sent to other processes.
  const std::string mine = link == nullptr
                               ? "the host"
                               : Concat(device, "\n", link->has_channels() ? link->channels() : "the host");
  ASSIGN_OR_RETURN(const std::vector<std::string> all, GatherText(group, stream, mine));
  const auto name = [&](int r) { return all[r].substr(0, all[r].find('\n')); };
  const auto way = [&](int r) { return all[r].substr(all[r].find('\n') + 1); };
  for (int r = 1; r < group.size(); ++r) {
    if (all[r] == all[0]) continue;
    absl::Status status =
        name(0) != name(r)
            ? UnavailableError(Concat("rank 0 computes on ", name(0), ", rank ", r, " on ", name(r),
                                      "; the ranks of a run need GPUs of one kind; choose hosts that have "
                                      "them, or those of one kind by CUDA_VISIBLE_DEVICES"))
            : UnavailableError(Concat("rank 0 sends its GPU's memory over ", way(0), ", rank ", r, " over ",
                                      way(r),
                                      "; install one version of libnccl.so.2 on every host and set "
                                      "MOEBIUS_NCCL alike, or set MOEBIUS_NCCL=0 for all ranks"));
    status.SetPayload(kSpeaker, absl::Cord("0"));
    return status;
  }
  return absl::OkStatus();
}

bool IsAgreed(const absl::Status& status) { return status.GetPayload(kSpeaker).has_value(); }

bool IsSpeaker(const Communicator& group, const absl::Status& status) {
  const auto speaker = status.GetPayload(kSpeaker);
  return !speaker || *speaker == std::to_string(group.rank());
}

}  // namespace moebius
