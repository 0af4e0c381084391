#include "parallel/pipeline/run_times.h"

#include <algorithm>
#include <map>
#include <string>
#include <utility>

#include "core/base/check.h"
#include "core/base/status.h"
#include "core/base/strings.h"

namespace moebius {
namespace {

constexpr double kUnknown = -1;  // all times are >= 0
constexpr int kNobody = -1;

// What a blocked action waits for: an action that has not been reached. rank kNobody: nobody will do it.
struct Wait {
  int rank = kNobody;
  int position = 0;
};

// A link's messages, or the reductions of a group, in the order each side posts them.
struct Post {
  Action action;
  int position = 0;
  double time = 0;
};

struct Link {
  std::vector<Post> sent, received;
  size_t matched = 0;
  double free_at = 0;
};

struct Group {
  std::vector<int> ranks;
  std::vector<std::vector<Post>> posts;  // by member
  size_t matched = 0;
  double free_at = 0;
};

class Machine {
 public:
  // `lowered_here`: the caller wrote compute actions only, so errors count these alone.
  Machine(const Schedule& schedule, const PipelineCosts& costs, bool lowered_here)
      : schedule_(schedule), costs_(costs), lowered_here_(lowered_here), ranks_(schedule.ranks) {
    const size_t size = static_cast<size_t>(schedule.stages) * schedule.microbatches;
    activation_at_.assign(size, kUnknown);
    gradient_at_.assign(size, kUnknown);
    links_.resize(static_cast<size_t>(ranks_) * ranks_);
    cursor_.assign(ranks_, 0);
    clock_.assign(ranks_, 0);
    times_.resize(ranks_);
    for (int rank = 0; rank < ranks_; ++rank) times_[rank].resize(schedule.actions[rank].size());
  }

  absl::Status Run() {
    // Every action's time depends on the lists alone, so the order in which ranks are visited does not
    // matter.
    for (bool moved = true; moved;) {
      moved = false;
      for (int rank = 0; rank < ranks_; ++rank) {
        while (cursor_[rank] < static_cast<int>(schedule_.actions[rank].size()) && !Blocked(rank)) {
          RETURN_IF_ERROR(Step(rank));
          ++cursor_[rank];
          moved = true;
        }
      }
    }
    for (int rank = 0; rank < ranks_; ++rank) {
      if (cursor_[rank] < static_cast<int>(schedule_.actions[rank].size())) return Deadlock(rank);
    }
    return CheckUnmatched();
  }

  std::vector<std::vector<Interval>> TakeTimes() { return std::move(times_); }

 private:
  size_t Index(int stage, int m) const { return static_cast<size_t>(stage) * schedule_.microbatches + m; }
  const Action& At(int rank) const { return schedule_.actions[rank][cursor_[rank]]; }
  Link& LinkOf(int from, int to) { return links_[static_cast<size_t>(from) * ranks_ + to]; }

  // When what a part needs from other stages is there: kUnknown while it is not. What it needs of its own
  // stage (F before I before W) stands earlier in the same list, so is done when the rank gets here.
  double Ready(const Compute& part) const {
    const size_t index = Index(part.stage, part.microbatch);
    if (HasForward(part.kind)) return part.stage == 0 ? 0 : activation_at_[index];
    const bool needs_gradient = HasBackwardInput(part.kind) && part.stage + 1 < schedule_.stages;
    return needs_gradient ? gradient_at_[index] : 0;
  }

  bool Blocked(int rank) const {
    const Action& action = At(rank);
    if (action.kind == ActionKind::kOptimize) return ReductionsEnd(rank) == kUnknown;
    for (const Compute& part : PartsOf(action)) {
      if (Ready(part) == kUnknown) return true;
    }
    return false;
  }

  // When all reductions that the rank has posted are done.
  double ReductionsEnd(int rank) const {
    double end = 0;
    for (const auto& [ranks, group] : groups_) {
      const auto member = std::find(ranks.begin(), ranks.end(), rank);
      if (member == ranks.end()) continue;
      if (group.posts[member - ranks.begin()].size() > group.matched) return kUnknown;
      end = std::max(end, group.free_at);
    }
    return end;
  }

  absl::Status Step(int rank) {
    const Action& action = At(rank);
    Interval& time = times_[rank][cursor_[rank]];
    time = {clock_[rank], clock_[rank]};
    switch (action.kind) {
      case ActionKind::kSendForward:
      case ActionKind::kSendBackward:
        LinkOf(rank, action.peer).sent.push_back({action, cursor_[rank], clock_[rank]});
        return Match(rank, action.peer);
      case ActionKind::kRecvForward:
      case ActionKind::kRecvBackward:
        LinkOf(action.peer, rank).received.push_back({action, cursor_[rank], clock_[rank]});
        return Match(action.peer, rank);
      case ActionKind::kReduceGrad:
        return PostReduction(rank, schedule_.HoldersOf(action.stage));
      case ActionKind::kReduceTied:
        return PostReduction(rank, schedule_.TiedHolders());
      case ActionKind::kOptimize:
        time.start = std::max(clock_[rank], ReductionsEnd(rank));
        time.end = clock_[rank] = time.start + costs_.optimize;
        return absl::OkStatus();
      case ActionKind::kUpdateBias:
        time.end = clock_[rank] = time.start + costs_.update_bias;
        return absl::OkStatus();
      default:
        break;
    }
    for (const Compute& part : PartsOf(action)) time.start = std::max(time.start, Ready(part));
    time.end = clock_[rank] = time.start + ComputeTime(action, costs_);
    for (const Compute& part : PartsOf(action)) Finish(part, rank, time.end);
    return absl::OkStatus();
  }

  // Hands the result of a part to a neighbour stage on the same rank; SEND and RECV do so between ranks.
  void Finish(const Compute& part, int rank, double end) {
    const auto& [kind, stage, m] = part;
    if (HasForward(kind)) {
      const bool local = stage + 1 < schedule_.stages && schedule_.Holder(stage + 1, m) == rank;
      if (local) activation_at_[Index(stage + 1, m)] = end;
    }
    if (HasBackwardInput(kind)) {
      const bool local = stage > 0 && schedule_.Holder(stage - 1, m) == rank;
      if (local) gradient_at_[Index(stage - 1, m)] = end;
    }
  }

  // Pairs the next message of a link once both sides have posted it.
  absl::Status Match(int from, int to) {
    Link& link = LinkOf(from, to);
    while (link.matched < std::min(link.sent.size(), link.received.size())) {
      const Post& send = link.sent[link.matched];
      const Post& recv = link.received[link.matched++];
      const bool forward = send.action.kind == ActionKind::kSendForward;
      const bool same_kind = forward == (recv.action.kind == ActionKind::kRecvForward);
      const int consumer = send.action.stage + (forward ? 1 : -1);
      if (!same_kind || recv.action.stage != consumer || recv.action.microbatch != send.action.microbatch) {
        return UsageError(Concat("schedule ", Printable(schedule_.name), ": messages from rank ", from,
                                 " to rank ", to, " are out of order: message ", link.matched - 1,
                                 " is sent as ", ToText(send.action), " (action ", send.position, " of rank ",
                                 from, ") and received as ", ToText(recv.action), " (action ", recv.position,
                                 " of rank ", to, "); post RECVs in the order of the SENDs"));
      }
      const double start = std::max({send.time, recv.time, link.free_at});
      link.free_at = start + costs_.transfer_time;
      const double end = link.free_at + costs_.transfer_latency;
      (forward ? activation_at_ : gradient_at_)[Index(consumer, recv.action.microbatch)] = end;
      times_[from][send.position] = times_[to][recv.position] = {start, end};
    }
    return absl::OkStatus();
  }

  absl::Status PostReduction(int rank, const std::vector<int>& ranks) {
    Group& group = groups_[ranks];
    group.posts.resize(ranks.size());
    const size_t member = std::find(ranks.begin(), ranks.end(), rank) - ranks.begin();
    group.posts[member].push_back({At(rank), cursor_[rank], clock_[rank]});
    const auto next_is_posted = [&] {
      return std::all_of(group.posts.begin(), group.posts.end(),
                         [&](const std::vector<Post>& posts) { return posts.size() > group.matched; });
    };
    while (next_is_posted()) {
      const Post& first = group.posts[0][group.matched];
      double start = group.free_at;
      for (size_t i = 0; i < ranks.size(); ++i) {
        const Post& post = group.posts[i][group.matched];
        start = std::max(start, post.time);
        if (post.action == first.action) continue;
        return UsageError(Concat("schedule ", Printable(schedule_.name),
                                 ": reductions are out of order: rank ", ranks[0], " posts ",
                                 ToText(first.action), " (action ", first.position, ") where rank ", ranks[i],
                                 " posts ", ToText(post.action), " (action ", post.position, ")"));
      }
      const bool tied = first.action.kind == ActionKind::kReduceTied;
      group.free_at = start + (tied ? costs_.reduce_tied : costs_.Stage(first.action.stage).reduce_grad);
      for (size_t i = 0; i < ranks.size(); ++i) {
        times_[ranks[i]][group.posts[i][group.matched].position] = {start, group.free_at};
      }
      ++group.matched;
    }
    return absl::OkStatus();
  }

  // A reduction that only some of its ranks posted blocks their OPTIMIZE, so only messages can be left; and
  // ValidateActions has paired those.
  absl::Status CheckUnmatched() const {
    for (const Link& link : links_) CHECK_EQ(link.sent.size(), link.received.size());
    return absl::OkStatus();
  }

  Wait Find(int rank, const auto& matches) const {
    for (size_t i = cursor_[rank]; i < schedule_.actions[rank].size(); ++i) {
      if (matches(schedule_.actions[rank][i])) return {rank, static_cast<int>(i)};
    }
    return {};
  }

  // The action that the blocked rank waits for: a SEND, or what computes the tensor when it is local or when
  // the caller wrote no SENDs. (Not a RECV: those stand before their consumers and in the order of the
  // SENDs.)
  Wait WaitsFor(int rank) const {
    if (At(rank).kind == ActionKind::kOptimize) return WaitsForReduction(rank);
    for (const Compute& part : PartsOf(At(rank))) {
      if (Ready(part) != kUnknown) continue;
      const bool forward = HasForward(part.kind);
      const int source = forward ? part.stage - 1 : part.stage + 1;
      const int peer = schedule_.Holder(source, part.microbatch);
      const Action send = {.kind = forward ? ActionKind::kSendForward : ActionKind::kSendBackward,
                           .stage = source,
                           .microbatch = part.microbatch,
                           .peer = rank};
      if (peer != rank && !lowered_here_) {
        return Find(peer, [&](const Action& action) { return action == send; });
      }
      return Find(peer, [&](const Action& action) {
        const ComputeParts parts = PartsOf(action);
        return std::any_of(parts.begin(), parts.end(), [&](const Compute& other) {
          const bool computes = forward ? HasForward(other.kind) : HasBackwardInput(other.kind);
          return computes && other.stage == source && other.microbatch == part.microbatch;
        });
      });
    }
    return {};
  }

  Wait WaitsForReduction(int rank) const {
    for (const auto& [ranks, group] : groups_) {
      const auto member = std::find(ranks.begin(), ranks.end(), rank);
      if (member == ranks.end() || group.posts[member - ranks.begin()].size() <= group.matched) continue;
      const Action& posted = group.posts[member - ranks.begin()][group.matched].action;
      for (size_t i = 0; i < ranks.size(); ++i) {
        if (group.posts[i].size() > group.matched) continue;
        const Wait wait = Find(ranks[i], [&](const Action& action) { return action == posted; });
        return wait.rank == kNobody ? Wait{kNobody, ranks[i]} : wait;
      }
    }
    return {};
  }

  // The position of an action in the list that the caller wrote.
  ptrdiff_t Written(int rank, int position) const {
    if (!lowered_here_) return position;
    const auto begin = schedule_.actions[rank].begin();
    return std::count_if(begin, begin + position,
                         [](const Action& action) { return IsCompute(action.kind); });
  }

  // Follows who waits for whom from a blocked rank until a rank comes up again: that is the cycle.
  absl::Status Deadlock(int rank) const {
    std::vector<int> path;
    std::vector<Wait> waits;
    while (std::find(path.begin(), path.end(), rank) == path.end()) {
      path.push_back(rank);
      waits.push_back(WaitsFor(rank));
      if (waits.back().rank == kNobody) break;
      rank = waits.back().rank;
    }
    const bool cycle = waits.back().rank != kNobody;
    const size_t first = cycle ? std::find(path.begin(), path.end(), rank) - path.begin() : path.size() - 1;
    std::vector<std::string> lines;
    for (size_t i = first; i < path.size(); ++i) {
      const Wait& wait = waits[i];
      std::string line = Concat("rank ", path[i], " stops at action ", Written(path[i], cursor_[path[i]]),
                                " (", ToText(At(path[i])), "), which waits for ");
      if (wait.rank == kNobody) {
        line += Concat("a reduction that rank ", wait.position, " never posts");
      } else {
        const std::string what = ToText(schedule_.actions[wait.rank][wait.position]);
        line += wait.rank == path[i]
                    ? Concat(what, ", later in its own list (action ", Written(wait.rank, wait.position), ")")
                    : Concat(what, ", action ", Written(wait.rank, wait.position), " of rank ", wait.rank);
      }
      lines.push_back(std::move(line));
    }
    return UsageError(Concat("schedule ", Printable(schedule_.name), " deadlocks: ", Join(lines, "; ")));
  }

  const Schedule& schedule_;
  const PipelineCosts& costs_;
  const bool lowered_here_;
  const int ranks_;
  // [stages, microbatches]: when the stage's input and its output's gradient are there.
  std::vector<double> activation_at_, gradient_at_;
  std::vector<Link> links_;  // [from, to]
  std::map<std::vector<int>, Group> groups_;
  std::vector<int> cursor_;
  std::vector<double> clock_;
  std::vector<std::vector<Interval>> times_;
};

}  // namespace

absl::StatusOr<std::vector<std::vector<Interval>>> RunTimes(const Schedule& schedule,
                                                            const PipelineCosts& costs,
                                                            ErrorPositions positions) {
  Machine machine(schedule, costs, positions == ErrorPositions::kCountCompute);
  RETURN_IF_ERROR(machine.Run());
  return machine.TakeTimes();
}

}  // namespace moebius
