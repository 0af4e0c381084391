#include "rl/loop/signal_watch.h"

#include "core/base/status.h"
#include "core/base/strings.h"

namespace moebius {

absl::Status SignalWatch::Observe(bool has_signal, const GroupSignal& rewards,
                                  std::vector<std::string>& notes) {
  without_ = has_signal ? 0 : without_ + 1;
  if (without_ == 0) return absl::OkStatus();
  const bool judged = rewards.groups > 0;
  std::string why = judged ? "all answers to every prompt earned the same reward"
                           : "no answer could be judged (rl/left_out)";
  if (judged && rewards.left_out > 0) why += Concat(", but for ", rewards.left_out, " left out");
  if (without_ == 1)
    notes.push_back(Concat(
        "no signal: ", why,
        ", so rewards teach nothing in this step (what else the loss has, weight decay and momentum move "
        "the weights)"));
  if (most_ == 0) return absl::OkStatus();
  if (without_ >= most_) {
    const std::string_view what_to_do =
        judged ? "start from a model that is sometimes right (task SFT first), add a reward that says how "
                 "nearly right an answer is (reward { part { name: \"dense\" } }), choose easier problems"
               : "read verdicts in samples/, and look whether golds can be parsed, the sandbox works "
                 "(moebius sandbox check), and reward.unfinished leaves answers out";
    return BadNumbersError(Concat("no signal; for ", without_,
                                  " steps in a row there was nothing to learn from, in the "
                                  "last because ",
                                  why, "; ", what_to_do,
                                  ", or set rl.no_signal_steps: 0 to go on all the same"));
  }
  if (without_ == (most_ + 1) / 2) {
    notes.push_back(Concat("warning: no signal for ", without_, " steps in a row; after ", most_ - without_,
                           " more the run saves and ends (rl.no_signal_steps: ", most_, ")"));
  }
  return absl::OkStatus();
}

}  // namespace moebius
