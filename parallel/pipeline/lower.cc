#include "parallel/pipeline/lower.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "core/base/status.h"
#include "core/base/strings.h"
#include "parallel/pipeline/validate.h"

namespace moebius {
namespace {

struct Message {
  Action send;
  Action recv;
  int from = 0;
  int sent_after = 0;     // position of the producer on rank `from`
  int posted_before = 0;  // position on the receiving rank
};

// Where F and where I (or B) of each (stage, microbatch) stand on their rank.
class Positions {
 public:
  explicit Positions(const Schedule& schedule)
      : microbatches_(schedule.microbatches),
        forward_(static_cast<size_t>(schedule.stages) * schedule.microbatches),
        backward_(forward_.size()) {
    for (const std::vector<Action>& list : schedule.actions) {
      for (size_t i = 0; i < list.size(); ++i) {
        for (const Compute& part : PartsOf(list[i])) {
          const int position = static_cast<int>(i);
          if (HasForward(part.kind)) forward_[Index(part.stage, part.microbatch)] = position;
          if (HasBackwardInput(part.kind)) backward_[Index(part.stage, part.microbatch)] = position;
        }
      }
    }
  }
  int Forward(int stage, int microbatch) const { return forward_[Index(stage, microbatch)]; }
  int Backward(int stage, int microbatch) const { return backward_[Index(stage, microbatch)]; }

 private:
  size_t Index(int stage, int microbatch) const {
    return static_cast<size_t>(stage) * microbatches_ + microbatch;
  }
  int microbatches_;
  std::vector<int> forward_, backward_;
};

// What rank `from` sends, in its order, by receiving rank.
std::vector<std::vector<Message>> MessagesOf(const Schedule& schedule, const Positions& positions, int from,
                                             int receive_ahead) {
  std::vector<std::vector<Message>> to(schedule.ranks);
  const std::vector<Action>& list = schedule.actions[from];
  for (size_t i = 0; i < list.size(); ++i) {
    for (const auto& [kind, stage, m] : PartsOf(list[i])) {
      const bool forward = HasForward(kind);
      const int next = forward ? stage + 1 : stage - 1;
      if (!(forward || HasBackwardInput(kind)) || next < 0 || next == schedule.stages) continue;
      const int peer = schedule.Holder(next, m);
      if (peer == from) continue;
      const int consumer = forward ? positions.Forward(next, m) : positions.Backward(next, m);
      to[peer].push_back({.send = {.kind = forward ? ActionKind::kSendForward : ActionKind::kSendBackward,
                                   .stage = stage,
                                   .microbatch = m,
                                   .peer = peer},
                          .recv = {.kind = forward ? ActionKind::kRecvForward : ActionKind::kRecvBackward,
                                   .stage = next,
                                   .microbatch = m,
                                   .peer = from},
                          .from = from,
                          .sent_after = static_cast<int>(i),
                          .posted_before = std::max(0, consumer - receive_ahead)});
    }
  }
  // A message must be posted no later than those sent after it.
  for (std::vector<Message>& messages : to) {
    for (size_t i = messages.size(); i-- > 1;) {
      messages[i - 1].posted_before = std::min(messages[i - 1].posted_before, messages[i].posted_before);
    }
  }
  return to;
}

// Which reductions a rank may post after each of its weight gradients.
class Reductions {
 public:
  Reductions(const Schedule& schedule, int rank, bool shared_embedding)
      : schedule_(schedule), rank_(rank), tied_(shared_embedding && schedule.stages > 1) {
    for (int stage : schedule.StagesOf(rank))
      waiting_.push_back({stage, Share(stage), schedule.HoldersOf(stage)});
    const std::vector<int> copies = schedule.TiedHolders();
    tied_ = tied_ && std::find(copies.begin(), copies.end(), rank) != copies.end();
  }

  void WeightDone(int stage, std::vector<Action>& list) {
    for (Waiting& waiting : waiting_) waiting.left -= waiting.stage == stage;
    Post(list);
  }

  // Stages without a microbatch of this rank are never "done" by one: they are posted at the end.
  void Post(std::vector<Action>& list) {
    for (size_t i = 0; i < waiting_.size();) {
      const bool first_of_group =
          std::none_of(waiting_.begin(), waiting_.begin() + i, [&](const Waiting& other) {
            return other.holders.size() > 1 && other.holders == waiting_[i].holders;
          });
      if (waiting_[i].left > 0 || !first_of_group) {
        ++i;
        continue;
      }
      list.push_back({.kind = ActionKind::kReduceGrad, .stage = waiting_[i].stage});
      waiting_.erase(waiting_.begin() + i);
      i = 0;
    }
    // Replicas of a rank post in one order, whatever they finish first: the table last.
    const bool replicas = schedule_.directions() > 1;
    const bool table_in_use = std::any_of(waiting_.begin(), waiting_.end(), [&](const Waiting& waiting) {
      return replicas || waiting.stage == 0 || waiting.stage == schedule_.stages - 1;
    });
    if (tied_ && !table_in_use) {
      list.push_back({.kind = ActionKind::kReduceTied});
      tied_ = false;
    }
  }

 private:
  struct Waiting {
    int stage;
    int left;  // weight gradients
    std::vector<int> holders;
  };
  int Share(int stage) const {
    int count = 0;
    for (int m = 0; m < schedule_.microbatches; ++m) count += schedule_.Holder(stage, m) == rank_;
    return count;
  }

  const Schedule& schedule_;
  int rank_;
  bool tied_;
  std::vector<Waiting> waiting_;
};

}  // namespace

absl::StatusOr<Schedule> Lower(const Schedule& compute, const LowerOptions& options) {
  RETURN_IF_ERROR(ValidateActions(compute));
  if (!compute.ComputeOnly()) {
    return UsageError(Concat("schedule ", Printable(compute.name),
                             " has communication already; it can be run as it is, or lowered without it"));
  }
  if (options.receive_ahead < 0) {
    return UsageError(Concat("receive_ahead is ", options.receive_ahead, "; choose 0 or more"));
  }
  const Positions positions(compute);
  std::vector<std::vector<Message>> sent(compute.ranks), received(compute.ranks);  // by rank
  for (int from = 0; from < compute.ranks; ++from) {
    std::vector<std::vector<Message>> to = MessagesOf(compute, positions, from, options.receive_ahead);
    for (int rank = 0; rank < compute.ranks; ++rank) {
      sent[from].insert(sent[from].end(), to[rank].begin(), to[rank].end());
      received[rank].insert(received[rank].end(), to[rank].begin(), to[rank].end());
    }
  }
  Schedule lowered = compute;
  for (int rank = 0; rank < compute.ranks; ++rank) {
    // Stable: what one rank sends to another stays in order.
    std::stable_sort(sent[rank].begin(), sent[rank].end(),
                     [](const Message& a, const Message& b) { return a.sent_after < b.sent_after; });
    std::stable_sort(received[rank].begin(), received[rank].end(),
                     [](const Message& a, const Message& b) { return a.posted_before < b.posted_before; });
    auto next_send = sent[rank].begin();
    auto next_recv = received[rank].begin();
    Reductions reductions(compute, rank, options.shared_embedding);
    std::vector<Action> list;
    list.reserve(compute.actions[rank].size() + sent[rank].size() + received[rank].size() + 8);
    for (size_t i = 0; i < compute.actions[rank].size(); ++i) {
      const int position = static_cast<int>(i);
      for (; next_recv != received[rank].end() && next_recv->posted_before == position; ++next_recv) {
        list.push_back(next_recv->recv);
      }
      list.push_back(compute.actions[rank][i]);
      for (; next_send != sent[rank].end() && next_send->sent_after == position; ++next_send) {
        list.push_back(next_send->send);
      }
      for (const Compute& part : PartsOf(compute.actions[rank][i])) {
        if (HasBackwardWeight(part.kind)) reductions.WeightDone(part.stage, list);
      }
    }
    reductions.Post(list);
    list.push_back({.kind = ActionKind::kOptimize});
    if (options.update_bias) list.push_back({.kind = ActionKind::kUpdateBias});
    lowered.actions[rank] = std::move(list);
  }
  return lowered;
}

}  // namespace moebius
