#include "parallel/layout.h"

#include <algorithm>

#include "core/base/status.h"
#include "core/base/strings.h"
#include "core/io/file.h"
#include "parallel/pipeline/generate.h"
#include "parallel/pipeline/schedule_text.h"
#include "parallel/pipeline/validate.h"
#include "parallel/stages.h"

namespace moebius {
namespace {

// The divisors of n next below and above x: "2 or 4".
std::string NearestDivisors(int64_t n, int64_t x) {
  int64_t below = 0, above = 0;
  for (int64_t d = 1; d <= n; ++d) {
    if (n % d != 0) continue;
    if (d < x) below = d;
    if (d > x && above == 0) above = d;
  }
  if (below == 0) return Concat(above);
  return above == 0 ? Concat(below) : Concat(below, " or ", above);
}

// The multiples of n around x.
std::string NearestMultiples(int64_t n, int64_t x) {
  const int64_t below = x / n * n;
  return below == 0 ? Concat(n) : Concat(below, " or ", below + n);
}

absl::StatusOr<Schedule> ReadSchedule(const Layout& layout) {
  ASSIGN_OR_RETURN(const std::string text, ReadFile(layout.schedule, kMaxScheduleTextBytes));
  ASSIGN_OR_RETURN(Schedule schedule, ScheduleFromText(text, layout.schedule));
  RETURN_IF_ERROR(Annotate(Validate(schedule), layout.schedule));
  if (schedule.ranks == layout.pipeline) return schedule;
  return UsageError(Concat(layout.schedule, ": is made for ", schedule.ranks,
                           " pipeline ranks, but parallel.pipeline is ", layout.pipeline, "; set it to ",
                           schedule.ranks));
}

// A user's file with communication of its own says when the copies of a shared table are summed, or it does
// not.
absl::Status CheckTied(const Schedule& schedule, const std::string& source) {
  for (const int rank : schedule.TiedHolders()) {
    const std::vector<Action>& list = schedule.actions[rank];
    const bool reduces = std::any_of(list.begin(), list.end(), [](const Action& action) {
      return action.kind == ActionKind::kReduceTied;
    });
    if (reduces) continue;
    return UsageError(Concat(source, ": rank ", rank,
                             " lacks REDUCE_TIED, which the model's embedding table needs: the first and the "
                             "last stage share it; add it after their last W, or leave communication out"));
  }
  return absl::OkStatus();
}

}  // namespace

std::string ToText(const Layout& layout) {
  std::string out =
      Concat("pipeline ", layout.pipeline, " x data ", layout.data, " x expert ", layout.expert);
  if (layout.pipeline > 1 || layout.schedule != Layout().schedule) out += Concat(", ", layout.schedule);
  return out;
}

Coordinates CoordinatesOf(const Layout& layout, int rank) {
  return {.pipeline = rank / (layout.data * layout.expert),
          .data = rank / layout.expert % layout.data,
          .expert = rank % layout.expert};
}

int RankOf(const Layout& layout, const Coordinates& at) {
  return (at.pipeline * layout.data + at.data) * layout.expert + at.expert;
}

int64_t MicrobatchesOf(const Layout& layout, const BatchSizes& batch) {
  const int64_t share = batch.sequences / layout.batch_shards();
  const int64_t each = batch.microbatch_sequences > 0 ? batch.microbatch_sequences : share;
  return each == 0 ? 0 : (share + each - 1) / each;
}

bool IsScheduleFile(const Layout& layout) { return layout.schedule.ends_with(".txt"); }

absl::StatusOr<Schedule> ScheduleOf(const Layout& layout, int64_t microbatches) {
  if (!IsScheduleFile(layout)) {
    return GenerateSchedule(
        {.name = layout.schedule,
         .ranks = layout.pipeline,
         .microbatches = static_cast<int>(std::min<int64_t>(microbatches, kMaxMicrobatches + 1)),
         .chunks = layout.chunks});
  }
  ASSIGN_OR_RETURN(Schedule schedule, ReadSchedule(layout));
  if (schedule.microbatches != microbatches) {
    return UsageError(Concat(layout.schedule, ": is made for ", schedule.microbatches,
                             " microbatches, but a step has ", microbatches, "; change batch or the file"));
  }
  return schedule;
}

absl::StatusOr<Schedule> ScheduleShape(const Layout& layout) {
  return IsScheduleFile(layout) ? ReadSchedule(layout) : ScheduleOf(layout, std::max(2 * layout.pipeline, 2));
}

absl::StatusOr<Layout> FitLayout(Layout layout, int ranks, const ModelConfig& model,
                                 const BatchSizes& batch) {
  std::vector<std::string> wrong;
  const auto add = [&](std::string text) { wrong.push_back(std::move(text)); };
  if (layout.pipeline < 1) add(Concat("parallel.pipeline is ", layout.pipeline, "; it must be at least 1"));
  if (layout.expert < 1) add(Concat("parallel.expert is ", layout.expert, "; it must be at least 1"));
  if (layout.data < 0)
    add(Concat("parallel.data is ", layout.data, "; it must be at least 1, or 0 for the rest"));
  if (wrong.empty()) {
    // Sizes of a recipe multiply to more than an int.
    const int64_t fixed = int64_t{layout.pipeline} * layout.expert, wanted = fixed * layout.data;
    bool ranks_divide = true;
    if (layout.data == 0) {
      ranks_divide = ranks % fixed == 0;
      if (!ranks_divide) {
        add(Concat(ranks, " ranks do not divide by parallel.pipeline x parallel.expert = ", layout.pipeline,
                   " x ", layout.expert, "; start ", NearestMultiples(fixed, ranks), " ranks"));
      }
      layout.data = static_cast<int>(std::max<int64_t>(1, ranks / fixed));
    } else if (wanted != ranks) {
      add(Concat("parallel.pipeline x data x expert = ", layout.pipeline, " x ", layout.data, " x ",
                 layout.expert, " is ", wanted, ", but there are ", ranks, " ranks; start ", wanted,
                 " ranks or set parallel.data to 0"));
    }
    const bool moe = model.n_routed_experts > 0;
    if (layout.expert > 1 && (!moe || model.n_routed_experts % layout.expert != 0)) {
      add(moe ? Concat("model.n_routed_experts ", model.n_routed_experts,
                       " does not divide by parallel.expert ", layout.expert, "; use ",
                       NearestDivisors(model.n_routed_experts, layout.expert))
              : Concat("parallel.expert is ", layout.expert, ", but the model has no experts; use 1"));
    }
    const int64_t shards = int64_t{layout.data} * layout.expert;
    // Where the ranks do not divide, `data` is made up.
    if (batch.sequences % shards != 0 && ranks_divide) {
      add(Concat("batch.sequences ", batch.sequences,
                 " does not divide by parallel.data x parallel.expert = ", layout.data, " x ", layout.expert,
                 "; use ", NearestMultiples(shards, batch.sequences)));
    }
    const int64_t share = std::max<int64_t>(1, batch.sequences / shards);
    const int64_t each = batch.microbatch_sequences > 0 ? std::min(share, batch.microbatch_sequences) : share;
    if (each * batch.length > kMostMicrobatchTokens) {
      add(Concat("a microbatch of ", each, " sequences of ", batch.length,
                 " tokens is more than one pass takes (", kMostMicrobatchTokens,
                 " tokens); set batch.microbatch_sequences to ",
                 std::max<int64_t>(1, kMostMicrobatchTokens / batch.length), " or less"));
    }
    const bool divides = ranks_divide && batch.sequences % shards == 0;
    const absl::StatusOr<Schedule> schedule =
        divides ? ScheduleOf(layout, MicrobatchesOf(layout, batch)) : ScheduleShape(layout);
    if (absl::IsNotFound(schedule.status())) return schedule.status();
    if (!schedule.ok()) {
      std::string message = Concat("parallel.schedule: ", std::string(schedule.status().message()));
      if (divides && message.find("microbatches") != std::string::npos) {
        message += Concat("; a step has as many as batch.microbatch_sequences (", each,
                          " here) makes of a rank's ", share, " sequences of batch.sequences");
      }
      add(std::move(message));
    } else if (schedule->stages > model.num_hidden_layers) {
      add(Concat("parallel.schedule ", layout.schedule, " on ", layout.pipeline, " pipeline ranks has ",
                 schedule->stages, " stages, but the model has ", model.num_hidden_layers,
                 " layers; use fewer pipeline ranks or more layers"));
    } else if (!schedule->ComputeOnly() && schedule->stages > 1 && SharesEmbedding(model)) {
      const absl::Status tied = CheckTied(*schedule, layout.schedule);
      if (!tied.ok()) add(std::string(tied.message()));
    }
  }
  if (wrong.empty()) return layout;
  std::string text = "the layout does not fit";
  for (const std::string& each : wrong) text += Concat("; ", each);
  return UsageError(text);
}

}  // namespace moebius
