#include "parallel/pipeline/generate.h"

#include <algorithm>
#include <string_view>

#include "core/base/nearest.h"
#include "core/base/status.h"
#include "core/base/strings.h"
#include "parallel/pipeline/generators.h"

namespace moebius {
namespace {

// How stages lie on ranks.
enum class Placement { kOneStage, kLooped, kVShape, kBothDirections };

struct Entry {
  const char* name;
  Placement placement;
  void (*generate)(Schedule&);
};

constexpr Entry kEntries[] = {
    {"gpipe", Placement::kOneStage, generators::GPipe},
    {"1f1b", Placement::kOneStage, generators::OneFOneB},
    {"interleaved", Placement::kLooped, generators::Interleaved},
    {"zb_h1", Placement::kOneStage, generators::ZeroBubbleH1},
    {"zbv", Placement::kVShape, generators::ZeroBubbleV},
    {"dualpipe", Placement::kBothDirections, generators::DualPipe},
    {"dualpipev", Placement::kVShape, generators::DualPipeV},
};

// Megatron asks for multiples of PP; any number that splits into equal rounds of at least PP runs as well.
bool EqualRounds(int microbatches, int ranks) {
  return microbatches % std::max(1, microbatches / ranks) == 0;
}

std::string NearestRounds(int microbatches, int ranks) {
  int below = microbatches, above = microbatches;
  while (!EqualRounds(below, ranks)) --below;  // 1 is valid
  while (!EqualRounds(above, ranks)) ++above;  // as is every multiple of ranks
  return Concat(below, " or ", above);
}

absl::Status CheckNumber(std::string_view what, int64_t value, int64_t max) {
  if (value >= 1 && value <= max) return absl::OkStatus();
  return UsageError(Concat(what, " is ", value, "; choose 1 to ", max));
}

absl::Status CheckSpec(const ScheduleSpec& spec, const Entry& entry, int stages) {
  const int ranks = spec.ranks, microbatches = spec.microbatches;
  RETURN_IF_ERROR(
      CheckNumber("stages times microbatches", int64_t{stages} * microbatches, kMaxStageMicrobatches));
  const std::string who = Concat("schedule ", spec.name, " on ", ranks, " pipeline ranks ");
  if (entry.placement == Placement::kLooped && !EqualRounds(microbatches, ranks)) {
    return UsageError(Concat(who, "needs microbatches in rounds of equal size, at least ", ranks, " each; ",
                             microbatches, " do not divide; choose ", NearestRounds(microbatches, ranks)));
  }
  const bool both = entry.placement == Placement::kBothDirections;
  if (both && ranks % 2 != 0) {
    return UsageError(Concat(who, "needs an even number of them; choose ",
                             ranks == 1 ? "" : Concat(ranks - 1, " or "), ranks + 1, ", or dualpipev"));
  }
  const bool dual = both || std::string_view(entry.name) == "dualpipev";
  if (dual && microbatches < 2 * ranks) {
    return UsageError(Concat(who, "needs at least ", 2 * ranks, " microbatches, not ", microbatches,
                             "; choose ", 2 * ranks, ", or 1f1b"));
  }
  if (both && microbatches % 2 != 0) {
    return UsageError(Concat(
        who, "needs an even number of microbatches, half from each end, not ", microbatches, "; choose ",
        microbatches - 1 >= 2 * ranks ? Concat(microbatches - 1, " or ") : "", microbatches + 1));
  }
  return absl::OkStatus();
}

std::vector<std::vector<int>> Holders(Placement placement, int ranks, int stages) {
  std::vector<std::vector<int>> holders(placement == Placement::kBothDirections ? 2 : 1);
  for (int stage = 0; stage < stages; ++stage) {
    const bool down = placement == Placement::kVShape && stage >= ranks;
    holders[0].push_back(down ? stages - 1 - stage : stage % ranks);
    if (placement == Placement::kBothDirections) holders[1].push_back(ranks - 1 - stage);
  }
  return holders;
}

}  // namespace

std::vector<std::string> ScheduleNames() {
  std::vector<std::string> names;
  for (const Entry& entry : kEntries) names.push_back(entry.name);
  return names;
}

absl::StatusOr<Schedule> GenerateSchedule(const ScheduleSpec& spec) {
  const Entry* entry = std::find_if(std::begin(kEntries), std::end(kEntries),
                                    [&](const Entry& candidate) { return candidate.name == spec.name; });
  if (entry == std::end(kEntries)) {
    const std::string near = Nearest(spec.name, ScheduleNames());
    return UsageError(Concat("there is no schedule \"", Printable(spec.name), "\"; ",
                             near.empty() ? "" : Concat("did you mean ", near, "? "), "choose one of ",
                             Join(ScheduleNames())));
  }
  RETURN_IF_ERROR(CheckNumber("the number of pipeline ranks", spec.ranks, kMaxPipelineRanks));
  RETURN_IF_ERROR(CheckNumber("the number of microbatches", spec.microbatches, kMaxMicrobatches));
  int chunks = 1;
  if (entry->placement == Placement::kVShape) chunks = 2;
  if (entry->placement == Placement::kLooped) {
    RETURN_IF_ERROR(CheckNumber("the number of chunks a rank", spec.chunks, kMaxStages / spec.ranks));
    chunks = spec.chunks;
  }
  const int stages = chunks * spec.ranks;
  RETURN_IF_ERROR(CheckSpec(spec, *entry, stages));
  Schedule schedule = {.name = spec.name,
                       .ranks = spec.ranks,
                       .stages = stages,
                       .microbatches = spec.microbatches,
                       .holders = Holders(entry->placement, spec.ranks, stages),
                       .actions = std::vector<std::vector<Action>>(spec.ranks)};
  entry->generate(schedule);
  return schedule;
}

}  // namespace moebius
