#include "parallel/pipeline/engine.h"

#include <algorithm>
#include <chrono>
#include <numeric>

#include "core/backend/ops.h"
#include "core/base/strings.h"

namespace moebius {
namespace {

double Now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// One stream a neighbour and direction: a receive that waits holds up no send.
std::string LinkName(const char* direction, int peer) { return Concat("pipeline ", direction, " ", peer); }

}  // namespace

Engine::Slot::Slot(Backend& backend, BlockPool& pool, int num_slots)
    : microbatch(backend, pool, num_slots),
      forward_received(backend.NewEvent()),
      backward_received(backend.NewEvent()),
      sends(std::make_shared<std::atomic<int>>(0)) {}

Engine::Engine(Mesh& mesh, const Context& context, const Stages& stages, GradientBuckets* buckets)
    : mesh_(mesh),
      context_(context),
      stages_(stages),
      buckets_(buckets),
      ready_(context.backend.NewEvent()),
      pool_(context.backend),
      live_(stages.count()),
      sending_(stages.count()),
      free_(stages.count()) {}

Engine::~Engine() = default;

Engine::Slot& Engine::Acquire(const Run& run, int stage, int microbatch) {
  const int model = stages_.index(stage);
  std::unique_ptr<Slot>& slot = live_[model][microbatch];
  if (slot != nullptr) return *slot;
  CollectSent();
  if (auto& free = free_[model]; !free.empty()) {
    slot = std::move(free.back());
    free.pop_back();
  } else {
    slot = std::make_unique<Slot>(context_.backend, pool_, stages_.model(model).num_slots());
  }
  slot->weights_done = false;
  run.load(microbatch, slot->microbatch);
  return *slot;
}

void Engine::Release(int model, int microbatch) {
  sending_[model].push_back(std::move(live_[model][microbatch]));
  CollectSent();
}

void Engine::CollectSent() {
  for (size_t model = 0; model < sending_.size(); ++model) {
    std::erase_if(sending_[model], [&](std::unique_ptr<Slot>& slot) {
      if (*slot->sends > 0) return false;
      slot->microbatch.saved.Reset();
      free_[model].push_back(std::move(slot));
      return true;
    });
  }
}

bool Engine::IsHere(const Run& run, int stage, int microbatch) const {
  return run.schedule.Holder(stage, microbatch) == mesh_.at().pipeline;
}

Phase Engine::Prepare(const Run& run, const Compute& part) {
  Slot& slot = Acquire(run, part.stage, part.microbatch);
  const Model& model = stages_.model(stages_.index(part.stage));
  Microbatch& mb = slot.microbatch;
  switch (part.kind) {
    case ActionKind::kForward:
      peak_live_ = std::max(peak_live_, ++live_count_);
      if (part.stage > 0) {
        if (IsHere(run, part.stage - 1, part.microbatch)) {
          mb.hidden = Acquire(run, part.stage - 1, part.microbatch).microbatch.hidden;
        } else {
          context_.stream.Wait(*slot.forward_received);
        }
      }
      return model.ForwardPhase(context_, run.objective, mb);
    case ActionKind::kBackwardInput:
    case ActionKind::kBackward:
      if (part.stage + 1 < run.schedule.stages && !IsHere(run, part.stage + 1, part.microbatch)) {
        context_.stream.Wait(*slot.backward_received);
      }
      return model.BackwardPhase(
          context_, run.objective, mb,
          part.kind == ActionKind::kBackward ? Model::Weights::kNow : Model::Weights::kLater);
    default:
      return model.WeightPhase(context_, run.objective, mb);
  }
}

void Engine::AddSums(Run& run, int stage, const Microbatch& mb) const {
  const int i = stages_.index(stage);
  if (stages_.model(i).options().stage.head) {
    const std::vector<float> losses = ToHost(context_.backend, context_.stream, mb.losses);
    const std::vector<float> entropies = ToHost(context_.backend, context_.stream, mb.entropies);
    run.sums.loss += std::accumulate(losses.begin(), losses.end(), 0.0);
    run.sums.entropy += std::accumulate(entropies.begin(), entropies.end(), 0.0);
    run.sums.divergence += SumLosses(context_.backend, context_.stream, mb.divergences);
    run.sums.agreement += SumLosses(context_.backend, context_.stream, mb.agreements);
    if (mb.observe != nullptr) mb.observe(losses, entropies);
    if (run.objective.mtp_scale != 0) {
      for (const Microbatch::Depth& depth : mb.depths) {
        run.sums.mtp_loss += SumLosses(context_.backend, context_.stream, depth.losses);
      }
    }
  }
  const int64_t experts = stages_.config().n_routed_experts;
  const std::vector<RoutingStatistics> routing = ReadRouting(context_.backend, context_.stream, mb);
  for (size_t layer = 0; layer < routing.size(); ++layer) {
    const RoutingStatistics& r = routing[layer];
    run.sums.routes_given += static_cast<double>(r.routes_given);
    run.sums.routes_changed += static_cast<double>(r.routes_changed);
    if (!mb.balances) continue;
    run.sums.balance += r.balance_loss_sum;
    run.sums.auxiliary += r.auxiliary_loss_sum;
    run.sums.z += r.z_sum;
    const int64_t first = (stages_.first_moe_layer(i) + static_cast<int64_t>(layer)) * experts;
    for (int64_t e = 0; e < experts; ++e) run.sums.counts[first + e] += r.counts[e];
  }
}

void Engine::Finish(Run& run, const Compute& part) {
  const int model = stages_.index(part.stage);
  Slot& slot = *live_[model][part.microbatch];
  if (part.kind == ActionKind::kForward) return AddSums(run, part.stage, slot.microbatch);
  const bool first = part.stage == 0;
  if (HasBackwardInput(part.kind) && !first && IsHere(run, part.stage - 1, part.microbatch)) {
    Microbatch& to = Acquire(run, part.stage - 1, part.microbatch).microbatch;
    const TensorView from = slot.microbatch.d_hidden;
    to.d_hidden = to.saved.gradients().New(from.dtype, from.shape);
    Cast(context_, from, to.d_hidden);
  }
  if (!HasBackwardWeight(part.kind)) return;
  const int next = part.stage + 1;
  CHECK(next == run.schedule.stages || !IsHere(run, next, part.microbatch) ||
        live_[stages_.index(next)][part.microbatch] == nullptr)
      << "stage " << part.stage << " is done before the one that reads its output";
  --live_count_;
  --run.weights_left[model];
  slot.weights_done = true;
  // A B whose result still has to be sent is released by the send.
  const bool sends_later =
      part.kind == ActionKind::kBackward && !first && !IsHere(run, part.stage - 1, part.microbatch);
  if (!sends_later) Release(model, part.microbatch);
}

void Engine::RunSteps(Run& run, const Compute& part, const Phase& phase, size_t& next, bool stop_at_wait) {
  const int model = stages_.index(part.stage);
  const bool last = HasBackwardWeight(part.kind) && run.weights_left[model] == 1;
  do {
    const PhaseStep& step = phase[next++];
    step.run();
    if (last && step.first_complete < step.last_complete && buckets_ != nullptr) {
      buckets_->Complete(model, step.first_complete, step.last_complete);
    }
  } while (next < phase.size() && !(stop_at_wait && phase[next].kind == SegmentKind::kWait));
}

void Engine::RunCompute(Run& run, const Action& action) {
  const ComputeParts parts = PartsOf(action);
  Phase phases[2];
  for (int i = 0; i < parts.size; ++i) phases[i] = Prepare(run, parts.parts[i]);
  // A picture of the step shows when a device computes, not when it is told to.
  if (spans_ != nullptr) context_.stream.Synchronize();
  const double start = Now();
  // Two phases take turns where one would wait for tokens that travel.
  size_t next[2] = {0, 0};
  for (int turn = 0; next[0] < phases[0].size() || next[1] < phases[1].size(); turn = 1 - turn) {
    if (next[turn] < phases[turn].size())
      RunSteps(run, parts.parts[turn], phases[turn], next[turn], parts.size == 2);
  }
  for (const Compute& part : parts) Finish(run, part);
  if (spans_ != nullptr) context_.stream.Synchronize();
  const double end = Now();
  busy_s_ += end - start;
  if (spans_ != nullptr) {
    spans_->push_back({.rank = mesh_.at().pipeline,
                       .lane = TimelineLane::kCompute,
                       .action = action,
                       .label = "",
                       .start = start,
                       .end = end});
  }
}

void Engine::Send(const Action& action) {
  const int model = stages_.index(action.stage);
  CHECK(live_[model][action.microbatch] != nullptr) << ToText(action) << " after what it sends was freed";
  Slot& slot = *live_[model][action.microbatch];
  const bool forward = action.kind == ActionKind::kSendForward;
  Stream& stream = mesh_.stream(LinkName("to", action.peer));
  context_.stream.Record(*ready_);
  stream.Wait(*ready_);
  ++*slot.sends;
  mesh_.pipeline().Send(
      stream,
      {.what = forward ? "activations" : "gradients", .layer = action.stage, .index = action.microbatch},
      action.peer, 0, forward ? slot.microbatch.hidden : slot.microbatch.d_hidden);
  stream.Enqueue([sends = slot.sends] { --*sends; });
  if (slot.weights_done) Release(model, action.microbatch);
}

void Engine::Receive(const Run& run, const Action& action) {
  Slot& slot = Acquire(run, action.stage, action.microbatch);
  Microbatch& mb = slot.microbatch;
  const bool forward = action.kind == ActionKind::kRecvForward;
  const Model& model = stages_.model(stages_.index(action.stage));
  Arena& arena = forward ? mb.saved.activations() : mb.saved.gradients();
  const TensorView to = arena.New(model.options().storage.act, {mb.tokens(), stages_.config().hidden_size});
  (forward ? mb.hidden : mb.d_hidden) = to;
  Stream& stream = mesh_.stream(LinkName("from", action.peer));
  context_.stream.Record(*ready_);  // kernels may still read what was there
  stream.Wait(*ready_);
  mesh_.pipeline().Recv(stream,
                        {.what = forward ? "activations" : "gradients",
                         .layer = action.stage + (forward ? -1 : 1),
                         .index = action.microbatch},
                        action.peer, 0, to);
  stream.Record(forward ? *slot.forward_received : *slot.backward_received);
}

absl::Status Engine::RunStep(const Schedule& schedule, const Objective& objective, const Loader& load,
                             StepSums& sums) {
  const int me = mesh_.at().pipeline;
  Run run{schedule, objective, load, sums, std::vector<int>(stages_.count(), 0)};
  for (const Action& action : schedule.actions[me]) {
    for (const Compute& part : PartsOf(action)) {
      if (HasBackwardWeight(part.kind)) ++run.weights_left[stages_.index(part.stage)];
    }
  }
  for (auto& slots : live_) slots.resize(schedule.microbatches);
  sums.counts.assign(stages_.num_moe_layers() * stages_.config().n_routed_experts, 0);
  live_count_ = peak_live_ = 0;
  busy_s_ = 0;
  for (const Action& action : schedule.actions[me]) {
    SetAt(ToText(action));
    switch (action.kind) {
      case ActionKind::kSendForward:
      case ActionKind::kSendBackward:
        Send(action);
        break;
      case ActionKind::kRecvForward:
      case ActionKind::kRecvBackward:
        Receive(run, action);
        break;
      case ActionKind::kReduceGrad:
        buckets_->Finish(stages_.index(action.stage));
        break;
      case ActionKind::kReduceTied:
        buckets_->FinishTied();
        break;
      case ActionKind::kOptimize:
        buckets_->Wait();
        break;
      case ActionKind::kUpdateBias:
        break;
      default:
        RunCompute(run, action);
    }
    RETURN_IF_ERROR(mesh_.all().status());
  }
  SetAt("");
  return absl::OkStatus();
}

absl::Status Engine::RunForward(const Schedule& schedule, const Objective& objective, const Loader& load,
                                std::vector<float>& losses) {
  StepSums sums;
  Run run{schedule, objective, load, sums, {}};
  losses.clear();
  for (auto& slots : live_) slots.resize(std::max(1, schedule.microbatches));
  for (int stage = 0; stage < schedule.stages; ++stage) {
    if (!IsHere(run, stage, 0)) continue;
    if (stage > 0 && !IsHere(run, stage - 1, 0)) {
      Receive(run, {.kind = ActionKind::kRecvForward,
                    .stage = stage,
                    .microbatch = 0,
                    .peer = schedule.Holder(stage - 1, 0)});
    }
    RunPhase(Prepare(run, {ActionKind::kForward, stage, 0}));
    const Model& model = stages_.model(stages_.index(stage));
    Microbatch& mb = live_[stages_.index(stage)][0]->microbatch;
    if (model.options().stage.head) {
      losses.resize(mb.losses.elements());
      context_.backend.CopyToHost(context_.stream, mb.losses, losses.data());
      context_.stream.Synchronize();
    } else if (!IsHere(run, stage + 1, 0)) {
      Send({.kind = ActionKind::kSendForward,
            .stage = stage,
            .microbatch = 0,
            .peer = schedule.Holder(stage + 1, 0)});
    }
    RETURN_IF_ERROR(mesh_.all().status());
  }
  for (int i = 0; i < stages_.count(); ++i) {
    if (live_[i][0] != nullptr) Release(i, 0);
  }
  live_count_ = 0;
  return absl::OkStatus();
}

std::string Engine::At() const {
  std::lock_guard lock(mutex_);
  return at_;
}

void Engine::SetAt(std::string text) {
  std::lock_guard lock(mutex_);
  at_ = std::move(text);
}

}  // namespace moebius
