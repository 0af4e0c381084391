#include "parallel/comm/group.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "core/base/check.h"
#include "core/base/status.h"
#include "core/base/strings.h"
#include "parallel/comm/collectives.h"
#include "parallel/comm/reduce.h"

namespace moebius {

namespace {

using Plan = std::function<std::vector<MessagePhase>(const Members&)>;

void CheckContiguous(const TensorView& x) { CHECK(x.shape.rank() > 0 && x.contiguous()) << x; }

class Group final : public Communicator {
 public:
  Group(RankState* state, std::shared_ptr<const GroupInfo> info) : state_(state), info_(std::move(info)) {}

  int rank() const override { return info_->rank; }
  int size() const override { return info_->size(); }
  const std::string& name() const override { return info_->name; }
  const std::vector<int>& world_ranks() const override { return info_->world_ranks; }
  absl::Status status() const override { return state_->transport->status(); }

  void Send(Stream& stream, Purpose purpose, int to, int tag, TensorView x) override {
    Point(stream, Call::kSend, purpose, to, tag, x,
          [=](const Members& members) { return SendPhases(members, to, x); });
  }

  void Recv(Stream& stream, Purpose purpose, int from, int tag, TensorView x) override {
    Point(stream, Call::kRecv, purpose, from, tag, x,
          [=](const Members& members) { return RecvPhases(members, from, x); });
  }

  void AllReduce(Stream& stream, Purpose purpose, TensorView x, ReduceOp op) override {
    CheckContiguous(x);
    CHECK(CanReduce(x.dtype)) << x;
    const Call call = op == ReduceOp::kSum ? Call::kAllReduceSum : Call::kAllReduceMax;
    Collective(stream, ledger_.Collective(call, purpose, x.dtype, x.elements()),
               [=](const Members& members) { return AllReducePhases(members, x, op); });
  }

  void ReduceScatterV(Stream& stream, Purpose purpose, TensorView x, const std::vector<int64_t>& counts,
                      TensorView mine) override {
    CheckSlices(x, counts, mine);
    CHECK(CanReduce(x.dtype)) << x;
    Collective(stream, ledger_.Collective(Call::kReduceScatterV, purpose, x.dtype, x.elements(), -1, counts),
               [=](const Members& members) { return ReduceScatterPhases(members, x, counts, mine); });
  }

  void AllGatherV(Stream& stream, Purpose purpose, TensorView mine, const std::vector<int64_t>& counts,
                  TensorView all) override {
    CheckSlices(all, counts, mine);
    Collective(stream, ledger_.Collective(Call::kAllGatherV, purpose, all.dtype, all.elements(), -1, counts),
               [=](const Members& members) { return AllGatherPhases(members, mine, counts, all); });
  }

  void AllToAllV(Stream& stream, Purpose purpose, std::function<PeerPieces()> pieces) override {
    Collective(
        stream, ledger_.Collective(Call::kAllToAllV, purpose, DType::kU8, -1),
        [pieces = std::move(pieces)](const Members& members) { return AllToAllPhases(members, pieces()); });
  }

  void Broadcast(Stream& stream, Purpose purpose, int root, TensorView x) override {
    CheckContiguous(x);
    CheckRank(root);
    Collective(stream, ledger_.Collective(Call::kBroadcast, purpose, x.dtype, x.elements(), root),
               [=](const Members& members) { return BroadcastPhases(members, root, x); });
  }

  void Barrier(Stream& stream, Purpose purpose) override { Meet(stream, Call::kBarrier, purpose); }

  absl::StatusOr<std::unique_ptr<Communicator>> Split(Stream& stream, const std::string& name, int color,
                                                      int key) override;

  absl::Status Close(Stream& stream) override {
    Meet(stream, Call::kClose, {"close"});
    stream.Synchronize();
    closed_ = true;
    return status();
  }

 private:
  void CheckRank(int rank) const { CHECK(rank >= 0 && rank < size()) << rank << " in group " << name(); }
  void CheckSlices(TensorView whole, const std::vector<int64_t>& counts, TensorView mine) const {
    CheckContiguous(whole);
    CheckContiguous(mine);
    CHECK_EQ(counts.size(), static_cast<size_t>(size()));
    CHECK_EQ(std::accumulate(counts.begin(), counts.end(), int64_t{0}), whole.elements());
    CHECK_EQ(counts[rank()], mine.elements());
    CHECK_EQ(whole.dtype, mine.dtype);
  }

  void Point(Stream& stream, Call call, Purpose purpose, int peer, int tag, TensorView x, Plan plan) {
    CheckContiguous(x);
    CheckRank(peer);
    CHECK(tag >= 0 && tag < Tag::kNumbers) << tag;
    Operation::Spec spec;
    spec.entry = Ledger::Point(call, purpose, x.dtype, x.elements(), tag);
    (call == Call::kSend ? spec.announce_to : spec.hear_from) = {info_->world_ranks[peer]};
    Enqueue(stream, std::move(spec), {info_->context, Tag::kPointLedger, tag}, Tag::kPoint, std::move(plan));
  }

  void Collective(Stream& stream, const LedgerEntry& entry, Plan plan) {
    Operation::Spec spec;
    spec.entry = entry;
    for (const int peer : Members{info_.get(), {}, nullptr, nullptr}.Others()) {
      spec.announce_to.push_back(info_->world_ranks[peer]);
    }
    spec.hear_from = spec.announce_to;
    // Numbers come round again; then the order of posting tells calls apart.
    const int number = static_cast<int>(entry.sequence % Tag::kNumbers);
    Enqueue(stream, std::move(spec), {info_->context, Tag::kCollectiveLedger, number}, Tag::kCollective,
            std::move(plan));
  }

  // A barrier; the ledger's entries, if they travel, are one already.
  void Meet(Stream& stream, Call call, Purpose purpose) {
    Collective(stream, ledger_.Collective(call, purpose, DType::kU8, 0),
               [ledger = state_->ledger](const Members& members) {
                 return ledger ? std::vector<MessagePhase>() : BarrierPhases(members);
               });
  }

  void Enqueue(Stream& stream, Operation::Spec spec, Tag ledger_tag, Tag::Kind data_kind, Plan plan) {
    CHECK(!closed_) << "group " << name() << " is closed";
    CHECK(stream.kind() == StreamKind::kExchange) << "communication needs an exchange stream";
    spec.group = info_;
    spec.ledger_tag = ledger_tag;
    Tag data_tag = ledger_tag;
    data_tag.kind = data_kind;
    const Members members{info_.get(), data_tag, &state_->scratch, stream.link()};
    spec.plan = [members, plan = std::move(plan)] { return plan(members); };
    // Shared because std::function wants what can be copied.
    auto operation = std::make_shared<Operation>(state_, std::move(spec));
    stream.EnqueuePolled([operation, &stream] { return operation->Poll(stream); });
  }

  RankState* state_;
  // Shared with the calls under way, see Operation::Spec.
  const std::shared_ptr<const GroupInfo> info_;
  Ledger ledger_;
  bool closed_ = false;
};

// Everybody learns everybody's choice, and agrees on a context that none of them has used.
absl::StatusOr<std::unique_ptr<Communicator>> Group::Split(Stream& stream, const std::string& name, int color,
                                                           int key) {
  const int64_t own[3] = {color, key, state_->next_context};
  std::vector<int64_t> all(3 * size());
  std::copy(own, own + 3, all.begin() + 3 * rank());
  const std::vector<int64_t> counts(size(), 3);
  const TensorView view(all.data(), DType::kI64, {3 * size()});
  Collective(stream, ledger_.Collective(Call::kSplit, {name.c_str()}, DType::kI64, view.elements()),
             [=](const Members& members) {
               return AllGatherPhases(members, view.Rows(3 * members.rank(), 3), counts, view);
             });
  stream.Synchronize();
  RETURN_IF_ERROR(status());

  auto info = std::make_shared<GroupInfo>();
  int64_t context = 0;
  std::vector<std::pair<int64_t, int>> members;  // key, rank here
  for (int peer = 0; peer < size(); ++peer) {
    context = std::max(context, all[3 * peer + 2]);
    if (all[3 * peer] == color) members.emplace_back(all[3 * peer + 1], peer);
  }
  // Groups of one Split share no rank, so they may share a context.
  if (context >= Tag::kMaxContexts) {
    return UsageError(Concat("more than ", Tag::kMaxContexts,
                             " groups of ranks have been made; do less in one process: fewer layouts, or "
                             "stages of a pipeline"));
  }
  state_->next_context = static_cast<int>(context) + 1;
  if (color < 0) return nullptr;
  std::sort(members.begin(), members.end());
  for (const auto& [unused_key, peer] : members) {
    if (peer == rank()) info->rank = static_cast<int>(info->world_ranks.size());
    info->world_ranks.push_back(info_->world_ranks[peer]);
  }
  info->name = Concat(name, "[", color, "]");
  info->context = static_cast<int>(context);
  return NewGroup(state_, std::move(info));
}

}  // namespace

std::unique_ptr<Communicator> NewGroup(RankState* state, std::shared_ptr<const GroupInfo> info) {
  return std::make_unique<Group>(state, std::move(info));
}

}  // namespace moebius
