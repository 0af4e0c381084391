#include "parallel/pipeline/validate.h"

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/base/status.h"
#include "core/base/strings.h"
#include "parallel/pipeline/generate.h"
#include "parallel/pipeline/simulate.h"

namespace moebius {
namespace {

constexpr int kNone = -1;

absl::Status CheckSizes(const Schedule& schedule) {
  const auto bad = [&](std::string_view what, int64_t value, int64_t max) {
    return UsageError(
        Concat("schedule ", Printable(schedule.name), ": ", what, " is ", value, ", not 1 to ", max));
  };
  const int64_t work = int64_t{schedule.stages} * schedule.microbatches;
  if (schedule.ranks < 1 || schedule.ranks > kMaxPipelineRanks)
    return bad("ranks", schedule.ranks, kMaxPipelineRanks);
  if (schedule.stages < 1 || schedule.stages > kMaxStages) return bad("stages", schedule.stages, kMaxStages);
  if (schedule.microbatches < 1 || schedule.microbatches > kMaxMicrobatches) {
    return bad("microbatches", schedule.microbatches, kMaxMicrobatches);
  }
  if (work > kMaxStageMicrobatches) return bad("stages times microbatches", work, kMaxStageMicrobatches);
  if (schedule.directions() < 1 || schedule.directions() > 2)
    return bad("directions", schedule.directions(), 2);
  for (const std::vector<int>& direction : schedule.holders) {
    if (direction.size() != static_cast<size_t>(schedule.stages)) {
      return UsageError(Concat("schedule ", Printable(schedule.name), ": ", direction.size(), " holders for ",
                               schedule.stages, " stages"));
    }
    for (int rank : direction) {
      if (rank < 0 || rank >= schedule.ranks) {
        return UsageError(Concat("schedule ", Printable(schedule.name), ": holder ", rank,
                                 " is not a rank of ", schedule.ranks));
      }
    }
  }
  if (schedule.actions.size() != static_cast<size_t>(schedule.ranks)) {
    return UsageError(Concat("schedule ", Printable(schedule.name), ": ", schedule.actions.size(),
                             " lists of actions for ", schedule.ranks, " ranks"));
  }
  for (int rank = 0; rank < schedule.ranks; ++rank) {
    if (!schedule.StagesOf(rank).empty()) continue;
    return UsageError(
        Concat("schedule ", Printable(schedule.name), ": rank ", rank,
               " holds no stage and would only wait; leave it out or give it one in `holders`"));
  }
  // Replicas are whole ranks (mesh.cc).
  for (int s = 0; s < schedule.stages; ++s) {
    const std::vector<int> ranks = schedule.HoldersOf(s);
    if (schedule.StagesOf(ranks.front()) == schedule.StagesOf(ranks.back())) continue;
    return UsageError(
        Concat("schedule ", Printable(schedule.name), ": ranks ", ranks.front(), " and ", ranks.back(),
               " both hold stage ", s, ", but not the same stages; ranks that ",
               "share a stage must share all; let the second line of holders mirror the first"));
  }
  return absl::OkStatus();
}

// One pass over all ranks that fills in where everything stands, then a look at what is missing.
class ActionCheck {
 public:
  explicit ActionCheck(const Schedule& schedule)
      : schedule_(schedule), communicates_(!schedule.ComputeOnly()) {
    const size_t size = static_cast<size_t>(schedule.stages) * schedule.microbatches;
    for (std::vector<int>* table : {&forward_, &input_, &weight_}) table->assign(size, kNone);
    if (!communicates_) return;
    for (std::vector<int>& table : message_) table.assign(size, kNone);
  }

  absl::Status Run() {
    for (int rank = 0; rank < schedule_.ranks; ++rank) {
      reduced_.assign(schedule_.stages, kNone);
      tied_ = optimized_ = bias_ = kNone;
      for (size_t i = 0; i < schedule_.actions[rank].size(); ++i) {
        RETURN_IF_ERROR(Visit(rank, static_cast<int>(i)));
      }
      if (communicates_) RETURN_IF_ERROR(CheckEnd(rank));
    }
    RETURN_IF_ERROR(CheckMissing());
    return communicates_ ? CheckMessages() : absl::OkStatus();
  }

 private:
  size_t Index(int stage, int m) const { return static_cast<size_t>(stage) * schedule_.microbatches + m; }

  absl::Status Bad(int rank, int position, const std::string& why) const {
    return UsageError(Concat("schedule ", Printable(schedule_.name), ": rank ", rank, ", action ", position,
                             " (", ToText(schedule_.actions[rank][position]), "): ", why));
  }
  absl::Status Lacks(int rank, const std::string& what) const {
    return UsageError(Concat("schedule ", Printable(schedule_.name), ": rank ", rank, " lacks ", what));
  }

  absl::Status Visit(int rank, int position) {
    const Action& action = schedule_.actions[rank][position];
    if (optimized_ != kNone && action.kind != ActionKind::kUpdateBias) {
      return Bad(rank, position, "nothing but UPDATE_BIAS may follow OPTIMIZE");
    }
    switch (action.kind) {
      case ActionKind::kReduceGrad:
        if (action.stage < 0 || action.stage >= schedule_.stages)
          return Bad(rank, position, "there is no such stage");
        if (tied_ != kNone && schedule_.directions() > 1) {
          return Bad(rank, position,
                     Concat("it comes after REDUCE_TIED at ", tied_,
                            ", the last reduction where stages have replicas"));
        }
        return Once(reduced_[action.stage], rank, position);
      case ActionKind::kReduceTied:
        return Once(tied_, rank, position);
      case ActionKind::kOptimize:
        return Once(optimized_, rank, position);
      case ActionKind::kUpdateBias:
        return Once(bias_, rank, position);
      case ActionKind::kSendForward:
      case ActionKind::kRecvForward:
      case ActionKind::kSendBackward:
      case ActionKind::kRecvBackward:
        return VisitMessage(rank, position);
      default:
        break;
    }
    if (action.kind == ActionKind::kOverlap) {
      for (const Compute& part : action.overlap) {
        if (!IsCompute(part.kind) || part.kind == ActionKind::kOverlap) {
          return Bad(rank, position, "OVERLAP pairs two of F, I, W and B");
        }
      }
      const auto& [a, b] = action.overlap;
      if (a.microbatch == b.microbatch)
        return Bad(rank, position, "OVERLAP pairs two different microbatches");
    }
    for (const Compute& part : PartsOf(action)) RETURN_IF_ERROR(VisitCompute(part, rank, position));
    return absl::OkStatus();
  }

  absl::Status Once(int& seen, int rank, int position) {
    if (seen != kNone) return Bad(rank, position, Concat("again; the first is action ", seen));
    seen = position;
    return absl::OkStatus();
  }

  absl::Status CheckPlace(int stage, int m, int rank, int position) const {
    if (stage < 0 || stage >= schedule_.stages) {
      return Bad(rank, position,
                 Concat("there is no stage ", stage, "; stages are 0 to ", schedule_.stages - 1));
    }
    if (m < 0 || m >= schedule_.microbatches) {
      return Bad(rank, position,
                 Concat("there is no microbatch ", m, "; they are 0 to ", schedule_.microbatches - 1));
    }
    if (const int holder = schedule_.Holder(stage, m); holder != rank) {
      return Bad(rank, position, Concat("stage ", stage, " of microbatch ", m, " is held by rank ", holder));
    }
    return absl::OkStatus();
  }

  absl::Status VisitCompute(const Compute& part, int rank, int position) {
    RETURN_IF_ERROR(CheckPlace(part.stage, part.microbatch, rank, position));
    const size_t index = Index(part.stage, part.microbatch);
    if (HasForward(part.kind)) return Once(forward_[index], rank, position);
    if (HasBackwardInput(part.kind)) {
      if (forward_[index] == kNone) {
        return Bad(
            rank, position,
            ToText(Compute{ActionKind::kForward, part.stage, part.microbatch}) + " must come before it");
      }
      RETURN_IF_ERROR(Once(input_[index], rank, position));
    }
    if (HasBackwardWeight(part.kind)) {
      if (input_[index] == kNone) {
        return Bad(rank, position,
                   ToText(Compute{ActionKind::kBackwardInput, part.stage, part.microbatch}) +
                       " must come before it");
      }
      const int reader = part.stage + 1;
      if (reader < schedule_.stages && schedule_.Holder(reader, part.microbatch) == rank &&
          weight_[Index(reader, part.microbatch)] == kNone) {
        return Bad(rank, position,
                   Concat(ToText(Compute{ActionKind::kBackwardWeight, reader, part.microbatch}),
                          " must come before it: what that stage reads is freed here"));
      }
      RETURN_IF_ERROR(Once(weight_[index], rank, position));
      if (reduced_[part.stage] != kNone) {
        return Bad(rank, position,
                   Concat("it comes after REDUCE_GRAD", part.stage, " at ", reduced_[part.stage]));
      }
      const bool table = part.stage == 0 || part.stage == schedule_.stages - 1;
      if (table && tied_ != kNone)
        return Bad(rank, position, Concat("it comes after REDUCE_TIED at ", tied_));
    }
    return absl::OkStatus();
  }

  // The tables of messages are by the stage on this rank: a SEND's producer, a RECV's consumer.
  static int Table(ActionKind kind) {
    return static_cast<int>(kind) - static_cast<int>(ActionKind::kSendForward);
  }

  // The rank at the other end of what crosses for (stage, microbatch), or kNone when nothing does.
  int Peer(ActionKind kind, int stage, int m) const {
    const bool up = kind == ActionKind::kSendForward || kind == ActionKind::kRecvBackward;
    const int other = up ? stage + 1 : stage - 1;
    if (other < 0 || other >= schedule_.stages) return kNone;
    const int peer = schedule_.Holder(other, m);
    return peer == schedule_.Holder(stage, m) ? kNone : peer;
  }

  absl::Status VisitMessage(int rank, int position) {
    const Action& action = schedule_.actions[rank][position];
    RETURN_IF_ERROR(CheckPlace(action.stage, action.microbatch, rank, position));
    const int peer = Peer(action.kind, action.stage, action.microbatch);
    if (peer == kNone) return Bad(rank, position, "there is no tensor to pass to another rank here");
    if (peer != action.peer) return Bad(rank, position, Concat("its peer is rank ", peer));
    const size_t index = Index(action.stage, action.microbatch);
    const bool forward = action.kind == ActionKind::kSendForward;
    if ((forward && forward_[index] == kNone) ||
        (action.kind == ActionKind::kSendBackward && input_[index] == kNone)) {
      return Bad(rank, position, "it comes before the action that produces the tensor");
    }
    // A W of its own; a B keeps its result until it is sent.
    const int weight = weight_[index];
    if (action.kind == ActionKind::kSendBackward && weight != kNone && weight != input_[index]) {
      return Bad(rank, position,
                 Concat("it comes after ", ToText(schedule_.actions[rank][weight]), " at ", weight,
                        ", which frees the tensor"));
    }
    return Once(message_[Table(action.kind)][index], rank, position);
  }

  absl::Status CheckEnd(int rank) const {
    if (optimized_ == kNone) return Lacks(rank, "OPTIMIZE");
    const std::vector<int> held = schedule_.StagesOf(rank);
    for (int stage = 0; stage < schedule_.stages; ++stage) {
      const bool holds = std::binary_search(held.begin(), held.end(), stage);
      if (holds && reduced_[stage] == kNone) return Lacks(rank, Concat("REDUCE_GRAD", stage));
      if (!holds && reduced_[stage] != kNone) {
        return Bad(rank, reduced_[stage], Concat("rank ", rank, " does not hold stage ", stage));
      }
    }
    const std::vector<int> copies = schedule_.TiedHolders();
    const bool copy = std::binary_search(copies.begin(), copies.end(), rank);
    if (!copy && tied_ != kNone)
      return Bad(rank, tied_, "the rank holds neither the first nor the last stage");
    // Rank by rank this is all that can be said; Simulate finds a copy that does not take part.
    return absl::OkStatus();
  }

  absl::Status CheckMissing() const {
    for (int m = 0; m < schedule_.microbatches; ++m) {
      for (int stage = 0; stage < schedule_.stages; ++stage) {
        const size_t index = Index(stage, m);
        const char* missing = forward_[index] == kNone  ? "F"
                              : input_[index] == kNone  ? "I"
                              : weight_[index] == kNone ? "W"
                                                        : nullptr;
        if (missing) return Lacks(schedule_.Holder(stage, m), Concat(missing, stage, ".", m));
      }
    }
    return absl::OkStatus();
  }

  absl::Status CheckMessages() const {
    for (int m = 0; m < schedule_.microbatches; ++m) {
      for (int stage = 0; stage < schedule_.stages; ++stage) {
        for (int table = 0; table < 4; ++table) {
          const auto kind = static_cast<ActionKind>(static_cast<int>(ActionKind::kSendForward) + table);
          const int peer = Peer(kind, stage, m);
          if (peer == kNone) continue;
          const int rank = schedule_.Holder(stage, m), position = message_[table][Index(stage, m)];
          if (position == kNone) {
            return Lacks(rank, ToText(Action{.kind = kind, .stage = stage, .microbatch = m, .peer = peer}));
          }
          const bool late = (kind == ActionKind::kRecvForward && position > forward_[Index(stage, m)]) ||
                            (kind == ActionKind::kRecvBackward && position > input_[Index(stage, m)]);
          if (late) return Bad(rank, position, "it comes after the action that needs the tensor");
        }
      }
    }
    return absl::OkStatus();
  }

  const Schedule& schedule_;
  const bool communicates_;
  // [stages, microbatches]: position on the holder's rank.
  std::vector<int> forward_, input_, weight_;
  std::vector<int> message_[4];
  // Of the rank being visited.
  std::vector<int> reduced_;
  int tied_ = kNone, optimized_ = kNone, bias_ = kNone;
};

}  // namespace

absl::Status ValidateActions(const Schedule& schedule) {
  RETURN_IF_ERROR(CheckSizes(schedule));
  return ActionCheck(schedule).Run();
}

absl::Status Validate(const Schedule& schedule) { return Simulate(schedule, {}).status(); }

}  // namespace moebius
