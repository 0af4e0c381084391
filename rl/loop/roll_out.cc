#include "rl/loop/roll_out.h"

#include "core/base/status.h"

namespace moebius {

absl::StatusOr<std::vector<RolloutGroup>> RollOut(Trainer& trainer, PolicyModel& policy,
                                                  const ProblemTools& tools,
                                                  const std::vector<uint64_t>& problems,
                                                  const RollOutOptions& options) {
  Mesh& mesh = trainer.mesh();
  const auto [begin, end] = ShareOf(std::ssize(problems), mesh.all().rank(), mesh.all().size());
  ASSIGN_OR_RETURN(const Model* model, policy.Get());
  absl::StatusOr<std::vector<RolloutGroup>> mine = std::vector<RolloutGroup>();
  const uint64_t first = options.first_group + begin;
  if (begin < end) {
    mine = SampleGroups(policy.FreeDecoder(options.decoder), tools,
                        {problems.begin() + begin, problems.begin() + end}, first, options.rollout);
  }
  absl::Status status = mine.status();
  if (status.ok()) {
    if (options.before_judging) options.before_judging(*model, *mine);
    status = ScoreSamples(tools, options.seed, first * options.rollout.group_size, options.journal, *mine);
  }
  RETURN_IF_ERROR(mesh.Agree(status));
  return GatherGroups(mesh, *mine);
}

}  // namespace moebius
