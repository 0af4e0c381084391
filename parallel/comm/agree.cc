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
  constexpr char kWith = '+', kWithout = '-';
  DeviceLink* const link = stream.link();
  const std::string mine = link == nullptr ? "" : Concat(link->has_channels() ? kWith : kWithout, device);
  ASSIGN_OR_RETURN(const std::vector<std::string> all, GatherText(group, stream, mine));
  for (int r = 1; r < group.size(); ++r) {
    if (all[r] == all[0]) continue;
    const auto name = [](const std::string& text) { return text.empty() ? "the host" : text.substr(1); };
    absl::Status status =
        name(all[0]) != name(all[r])
            ? UnavailableError(Concat("rank 0 computes on ", name(all[0]), ", rank ", r, " on ", name(all[r]),
                                      "; the ranks of a run need GPUs of one kind; choose hosts that have "
                                      "them, or those of one kind by CUDA_VISIBLE_DEVICES"))
            : UnavailableError(Concat("rank ", all[r][0] == kWith ? r : 0,
                                      " sends its GPU's memory over NCCL, "
                                      "rank ",
                                      all[r][0] == kWith ? 0 : r,
                                      " would send it through the host; "
                                      "install libnccl.so.2 on every host and set MOEBIUS_NCCL alike, or set "
                                      "MOEBIUS_NCCL=0 for all ranks"));
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
