#include "parallel/pipeline/schedule.h"

#include <algorithm>
#include <cstdint>

#include "core/base/check.h"

namespace moebius {

bool HasForward(ActionKind kind) { return kind == ActionKind::kForward; }

bool HasBackwardInput(ActionKind kind) {
  return kind == ActionKind::kBackwardInput || kind == ActionKind::kBackward;
}

bool HasBackwardWeight(ActionKind kind) {
  return kind == ActionKind::kBackwardWeight || kind == ActionKind::kBackward;
}

bool IsCompute(ActionKind kind) { return kind <= ActionKind::kOverlap; }

ComputeParts PartsOf(const Action& action) {
  if (action.kind == ActionKind::kOverlap) return {action.overlap, 2};
  if (!IsCompute(action.kind)) return {};
  return {{Compute{action.kind, action.stage, action.microbatch}}, 1};
}

Action ComputeAction(ActionKind kind, int stage, int microbatch) {
  return {.kind = kind, .stage = stage, .microbatch = microbatch};
}

Action OverlapAction(const Compute& a, const Compute& b) {
  return {.kind = ActionKind::kOverlap, .overlap = {a, b}};
}

int Schedule::Direction(int microbatch) const {
  return static_cast<int>(int64_t{microbatch} * directions() / microbatches);
}

std::vector<int> Schedule::HoldersOf(int stage) const {
  std::vector<int> ranks;
  for (const std::vector<int>& direction : holders) ranks.push_back(direction[stage]);
  std::sort(ranks.begin(), ranks.end());
  ranks.erase(std::unique(ranks.begin(), ranks.end()), ranks.end());
  return ranks;
}

std::vector<int> Schedule::StagesOf(int rank) const {
  std::vector<int> held;
  for (int stage = 0; stage < stages; ++stage) {
    const bool holds = std::any_of(holders.begin(), holders.end(), [&](const std::vector<int>& direction) {
      return direction[stage] == rank;
    });
    if (holds) held.push_back(stage);
  }
  return held;
}

std::vector<int> Schedule::TiedHolders() const {
  std::vector<int> ranks = HoldersOf(0);
  const std::vector<int> last = HoldersOf(stages - 1);
  ranks.insert(ranks.end(), last.begin(), last.end());
  std::sort(ranks.begin(), ranks.end());
  ranks.erase(std::unique(ranks.begin(), ranks.end()), ranks.end());
  return ranks;
}

bool Schedule::ComputeOnly() const {
  return std::all_of(actions.begin(), actions.end(), [](const std::vector<Action>& list) {
    return std::all_of(list.begin(), list.end(), [](const Action& action) { return IsCompute(action.kind); });
  });
}

const char* KindWord(ActionKind kind) {
  switch (kind) {
    case ActionKind::kForward:
      return "F";
    case ActionKind::kBackwardInput:
      return "I";
    case ActionKind::kBackwardWeight:
      return "W";
    case ActionKind::kBackward:
      return "B";
    case ActionKind::kOverlap:
      return "";
    case ActionKind::kSendForward:
      return "SEND_F";
    case ActionKind::kRecvForward:
      return "RECV_F";
    case ActionKind::kSendBackward:
      return "SEND_B";
    case ActionKind::kRecvBackward:
      return "RECV_B";
    case ActionKind::kReduceGrad:
      return "REDUCE_GRAD";
    case ActionKind::kReduceTied:
      return "REDUCE_TIED";
    case ActionKind::kOptimize:
      return "OPTIMIZE";
    case ActionKind::kUpdateBias:
      return "UPDATE_BIAS";
  }
  CHECK(false) << "action kind " << static_cast<int>(kind);
  return "";
}

std::string ToText(const Compute& part) {
  return KindWord(part.kind) + std::to_string(part.stage) + "." + std::to_string(part.microbatch);
}

std::string ToText(const Action& action) {
  switch (action.kind) {
    case ActionKind::kOverlap:
      return "(" + ToText(action.overlap[0]) + "|" + ToText(action.overlap[1]) + ")";
    case ActionKind::kReduceGrad:
      return KindWord(action.kind) + std::to_string(action.stage);
    case ActionKind::kReduceTied:
    case ActionKind::kOptimize:
    case ActionKind::kUpdateBias:
      return KindWord(action.kind);
    default:
      break;
  }
  std::string text = ToText(Compute{action.kind, action.stage, action.microbatch});
  const bool send = action.kind == ActionKind::kSendForward || action.kind == ActionKind::kSendBackward;
  const bool recv = action.kind == ActionKind::kRecvForward || action.kind == ActionKind::kRecvBackward;
  if (send || recv) text += (send ? ">" : "<") + std::to_string(action.peer);
  return text;
}

}  // namespace moebius
